"""More of anything never makes a fixed mapping slower, and never makes it overflow."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from law_cases import STEPPED, assert_all, bounded, stepped
from strategies import in_chunks

from kpu_jax.base.pytree import get_path, replace_path
from kpu_jax.model.batch import exact_cycles_of

COUNTS = (
    "host_memory.region_count", "external_memory.bank_count", "memory_controller.controller_count",
    "memory_controller.page_buffer_count", "on_chip_memory.l3.tile_count", "on_chip_memory.l2.bank_count",
    "data_movement.dma_engine_count", "data_movement.block_mover_count", "data_movement.streamer_count",
    "compute.tile_count", "buses.dma_bytes", "buses.block_mover_bytes", "buses.streamer_bytes",
)  # fmt: skip
SIZES = (
    "host_memory.region_capacity_mb", "host_memory.bandwidth_gbps", "external_memory.bank_capacity_mb",
    "external_memory.bandwidth_gbps", "memory_controller.page_buffer_capacity_kb", "memory_controller.bandwidth_gbps",
    "on_chip_memory.l3.tile_capacity_kb", "on_chip_memory.l2.bank_capacity_kb",
    "on_chip_memory.l1.buffer_capacity_kb", "clocks.dma_mhz", "clocks.block_mover_mhz", "clocks.streamer_mhz",
)  # fmt: skip
SHORTER = ("latency.host_ns", "latency.external_ns", "latency.block_mover_ns", "latency.streamer_ns")
TIMES_ROUNDING = 1e-11  # sums of durations that are not dyadic, in another order


def more(cfg: Any, path: str, rng: np.random.Generator) -> Any:
    """Stacked chips with more of one thing, by a random factor (of latency: less)."""
    value = get_path(cfg, path)
    factor = rng.uniform(1, 4, len(value))
    if path in COUNTS:
        raised = value + np.floor(rng.uniform(1, 1 + value))
    else:
        raised = value / factor if path in SHORTER else value * factor
    return replace_path(cfg, path, raised)


def more_of_several(cfg: Any, rng: np.random.Generator) -> Any:
    """Stacked chips, each with more of a few things at once."""
    for path in (*COUNTS, *SIZES, *SHORTER):
        chosen = rng.random(len(cfg.compute.tile_count)) < 0.15
        raised = more(cfg, path, rng)
        cfg = jax.tree.map(lambda old, new, c=chosen: np.where(c, new, old), cfg, raised)
    return cfg


def not_slower(after: Any, before: Any) -> np.ndarray:
    """Infinite before allows anything after."""
    return (after <= before * (1 + TIMES_ROUNDING)) | np.isinf(before)


def test_more_of_several_things_by_the_bound(large):
    triples, report, fits = large
    better = more_of_several(triples.cfg, np.random.default_rng(20))
    after = in_chunks(bounded, better, triples.op, triples.mapping)
    slower = fits & (after.cycles_bound < report.cycles_bound)
    print(f"shorter in {slower.sum()} of {fits.sum()}; {np.sum(~fits & (after.status_code == 0))} fit that did not")
    assert_all(after.status_code == 0, fits, triples, after.status_code)
    assert_all(
        not_slower(after.cycles_bound, report.cycles_bound), fits, triples, after.cycles_bound, report.cycles_bound
    )


@pytest.mark.parametrize("path", (*COUNTS, *SIZES, *SHORTER))
def test_more_of_one_thing_by_the_bound(path, large):
    triples, report, fits = large
    after = in_chunks(bounded, more(triples.cfg, path, np.random.default_rng(21)), triples.op, triples.mapping)
    assert_all(after.status_code == 0, fits, triples, after.status_code, about=path)
    law = not_slower(after.cycles_bound, report.cycles_bound)
    assert_all(law, fits, triples, after.cycles_bound, report.cycles_bound, about=path)


@pytest.mark.parametrize("count", STEPPED)
def test_more_of_several_things_by_the_exact_time(count):
    triples, exact, _ = stepped(count)
    better = more_of_several(triples.cfg, np.random.default_rng(22))
    after = exact_cycles_of(better, triples.op, triples.mapping)
    print(f"shorter in {np.sum(after < exact)} of {count}")
    assert_all(not_slower(after, exact), np.ones(count, bool), triples, after, exact)


@pytest.mark.parametrize("count", STEPPED)
def test_a_faster_fabric_clock_never_takes_more_seconds(count):
    triples, exact, _ = stepped(count)
    faster = more(triples.cfg, "clocks.fabric_mhz", np.random.default_rng(23))
    after = exact_cycles_of(faster, triples.op, triples.mapping)
    seconds = [cycles / cfg.clocks.fabric_mhz for cycles, cfg in ((after, faster), (exact, triples.cfg))]
    assert_all(not_slower(*seconds), np.ones(count, bool), triples, *seconds)
