"""Derivatives of exact time and energy: finite, rightly signed, equal to differences, alike in both modes."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest
from law_cases import MOST_PASSES, assert_all, bounded
from strategies import Triple, in_chunks, passes_of, random_triples, stack, take

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.base.pytree import get_path, leaf_paths, replace_path
from kpu_jax.hardware import preset
from kpu_jax.mapping import Mapping
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.bound import ENGINES
from kpu_jax.model.evaluate import evaluate
from kpu_jax.workload import Gemm

FASTER = (  # more of these never takes longer
    "host_memory.bandwidth_gbps", "external_memory.bandwidth_gbps", "memory_controller.page_buffer_capacity_kb",
    "memory_controller.bandwidth_gbps", "clocks.dma_mhz", "clocks.block_mover_mhz", "clocks.streamer_mhz",
)  # fmt: skip
SLOWER = ("latency.host_ns", "latency.external_ns", "latency.block_mover_ns", "latency.streamer_ns")
RELAXED = (  # counts behind a ceiling: the derivative of the time without it, so no difference equals it
    "data_movement.dma_engine_count", "data_movement.block_mover_count", "data_movement.streamer_count",
    "buses.dma_bytes", "buses.block_mover_bytes", "buses.streamer_bytes",
)  # fmt: skip
CONTINUOUS = (*FASTER, *SLOWER, "clocks.fabric_mhz", "vector.cycles_add", "vector.cycles_gelu")
STEP = 1e-5  # relative, of finite differences
COUNTS = [40, pytest.param(400, marks=pytest.mark.long)]


def cycles(cfg: Any, op: Any, mapping: Any) -> Any:
    """Exact makespan [fabric cycles]."""
    return evaluate(cfg, op, mapping, exact=True).cycles


@jax.jit
@jax.vmap
def slopes(cfg: Any, op: Any, mapping: Any) -> Any:
    """Reverse mode: the derivative by every field of the chip."""
    return jax.grad(cycles)(cfg, op, mapping)


@jax.jit
@jax.vmap
def slope_along(cfg: Any, op: Any, mapping: Any, direction: Any) -> Any:
    """Forward mode: the derivative along a direction in the space of chips."""
    return jax.jvp(lambda c: cycles(c, op, mapping), (cfg,), (direction,))[1]


@functools.lru_cache(maxsize=2)
def timed(count: int) -> tuple[Triple, np.ndarray, Any]:
    """(feasible triples of few passes, their exact cycles, the derivatives by every field)."""
    triples = random_triples(30, 4 * count, most=512, most_side=32, fitting=1.0)
    fits = in_chunks(bounded, *triples).status_code == 0
    kept = np.flatnonzero(fits & (passes_of(triples) <= MOST_PASSES / 5))[:count]
    assert len(kept) == count
    triples = Triple(*(take(tree, kept) for tree in triples))
    return triples, exact_cycles_of(*triples), in_chunks(slopes, *triples)


def slope_of(cfg: Any, op: Any, mapping: Any) -> Any:
    """The derivative of one case by every field, with the compilation that the random cases use."""
    return take(in_chunks(slopes, *stack([Triple(cfg, op, mapping)] * 40)), 0)


def everywhere(triples: Triple) -> np.ndarray:
    return np.ones(len(triples.op.m), bool)


@pytest.mark.parametrize("count", COUNTS)
def test_finite_and_rightly_signed(count):
    triples, _, slope = timed(count)
    for path, values in leaf_paths(slope):
        assert_all(np.isfinite(values), everywhere(triples), triples, values, about=path)
    for paths, sign in (((*FASTER, *RELAXED), -1), (SLOWER, 1)):
        for path in paths:
            values = get_path(slope, path)
            assert_all(sign * values >= 0, everywhere(triples), triples, values, about=path)
    used = {path: np.mean(get_path(slope, path) != 0) for path in (*FASTER, *SLOWER, *RELAXED)}
    print("non-zero:", ", ".join(f"{path} {100 * share:.0f} %" for path, share in used.items()))
    assert min(used.values()) > 0


@pytest.mark.parametrize("count", COUNTS)
def test_exact_time_has_no_slope_in_the_array(count):
    """Rows and columns are counts: neither the passes that they decide nor the fill and drain give them a slope."""
    triples, _, slope = timed(count)
    for path in ("compute.processor_array.rows", "compute.processor_array.cols", "compute.fold_overlap", "compute.drain_overlap"):
        assert_all(get_path(slope, path) == 0, everywhere(triples), triples, get_path(slope, path), about=path)


def test_eager_and_compiled_slopes_agree():
    cfg, op, mapping = preset("edge_ai"), Gemm(64, 48, 32).plain(), Mapping(l3_tile=(32, 48, 32), l2_tile=(16, 16, 16))
    with jax.enable_x64(True):
        eager = jax.grad(cycles)(cfg, op, mapping)
    for (path, got), (_, expected) in zip(leaf_paths(eager), leaf_paths(slope_of(cfg, op, mapping)), strict=True):
        assert float(got) == pytest.approx(float(expected), rel=1e-9), path


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("path", CONTINUOUS)
def test_equal_to_differences_of_the_exact_time(path, count):
    """Differences to both sides agree where the time is smooth; at a kink the slope lies between them."""
    triples, exact, slope = timed(count)
    value, slope = get_path(triples.cfg, path), get_path(slope, path)
    step = STEP * value

    def times(sign: int) -> np.ndarray:
        return exact_cycles_of(replace_path(triples.cfg, path, value + sign * step), triples.op, triples.mapping)

    some = step > 0
    width = np.where(some, step, 1)
    right, left = (times(1) - exact) / width, (exact - times(-1)) / width
    # Second-order terms of 1/x laws, and rounding of the times.
    slack = 4 * STEP * np.maximum(np.abs(left), np.abs(right)) + 1e-12 * exact / width
    low, high = np.minimum(left, right) - slack, np.maximum(left, right) + slack
    smooth = some & (high - low <= 2 * slack + 1e-3 * np.abs(slope))
    print(f"{path}: smooth in {smooth.sum()} of {some.sum()}, non-zero in {np.sum(some & (slope != 0))}")
    assert_all((slope >= low) & (slope <= high), some, triples, slope, left, right, about=path)
    assert smooth.sum() >= 0.8 * some.sum()


@pytest.mark.parametrize("count", COUNTS)
def test_both_modes_agree(count):
    triples, _, slope = timed(count)
    rng = np.random.default_rng(31)
    direction = jax.tree.map(lambda v: v * rng.uniform(-1, 1, v.shape), triples.cfg)
    along = in_chunks(slope_along, *triples, direction)
    terms = [s * d for s, d in zip(jax.tree.leaves(slope), jax.tree.leaves(direction), strict=True)]
    scale = sum(np.abs(term) for term in terms)
    law = np.abs(along - sum(terms)) <= 1e-9 * scale
    assert_all(law, everywhere(triples), triples, along, sum(terms))


@pytest.mark.parametrize("count", COUNTS)
def test_time_is_homogeneous_in_the_durations(count):
    """All clocks and bandwidths twice as fast, all latencies half as long: as many cycles. So the slopes balance."""
    triples, exact, slope = timed(count)
    rates = (*(p for p in FASTER if p != "memory_controller.page_buffer_capacity_kb"), "clocks.fabric_mhz")

    def elasticity(path: str) -> np.ndarray:
        return get_path(slope, path) * get_path(triples.cfg, path)

    balance = sum(map(elasticity, rates)) - sum(map(elasticity, SLOWER))
    assert_all(np.abs(balance) <= 1e-9 * exact, everywhere(triples), triples, balance, exact)


def test_bandwidth_bound_time_is_inverse_in_bandwidth():
    """Everything else fast: cycles = a + bytes / bandwidth, so the elasticity is the share of the transfers."""
    fast = {f"clocks.{name}_mhz": 20000 for name in ("dma", "block_mover", "streamer")}
    fast |= {f"data_movement.{name}_count": 64 for name in ("dma_engine", "block_mover", "streamer")}
    slow = {"external_memory.bandwidth_gbps": 1, "external_memory.bank_count": 1, "latency.external_ns": 0}
    cfg = preset("edge_ai").replace({**fast, **slow, "on_chip_memory.l3.tile_capacity_kb": 1024})
    op = Gemm(256, 256, 256).plain()
    mapping = Mapping(l3_tile=(64, 256, 256), l2_tile=(64, 64, 256))
    triples = stack([Triple(cfg, op, mapping)])
    report, slope = in_chunks(bounded, *triples), slope_of(cfg, op, mapping)
    transfers = sum(report.reads["dram"].values()) + sum(report.writes["dram"].values())
    assert report.bound_by_code == ENGINES.index("dma")
    assert -slope.external_memory.bandwidth_gbps == pytest.approx(transfers / 1e9 * 750e6, rel=1e-12)


def joules(cfg: Any, op: Any, mapping: Any) -> Any:
    """Energy [J] with the time of the bound."""
    return evaluate(cfg, op, mapping, exact=False).energy_pj * 1e-12


@jit_for(BATCH)
@jax.vmap
def energy_slopes(cfg: Any, op: Any, mapping: Any) -> Any:
    return joules(cfg, op, mapping), jax.grad(joules)(cfg, op, mapping).technology


def test_energy_by_technology():
    """Energy is linear in the energies per action; areas enter through the leakage of the logic; capacities by sqrt."""
    triples = random_triples(32, 1000, fitting=1.0)
    fits = in_chunks(bounded, *triples).status_code == 0
    energy, slope = in_chunks(energy_slopes, *triples)
    technology = triples.cfg.technology
    linear = [p for p, _ in leaf_paths(slope) if p.endswith(("_pj", "_pj_per_byte", "_pj_per_cycle_per_pe"))]
    linear += ["sram_leakage_mw_per_mib", "logic_leakage_mw_per_mm2"]
    for path, values in leaf_paths(slope):
        assert_all(np.isfinite(values), fits, triples, values, about=path)
        if path != "sram_reference_kb":
            assert_all(values >= 0, fits, triples, values, about=path)
    parts = sum(get_path(slope, p) * get_path(technology, p) for p in linear)
    assert_all(np.isclose(parts, energy, rtol=1e-9), fits, triples, parts, energy)
    assert_all(slope.sram_reference_kb < 0, fits, triples, slope.sram_reference_kb)
    never = {p for p, v in leaf_paths(slope) if not np.any(v[fits])}
    assert never == {"node_nm", "sram_mm2_per_mib", "tdp_w_per_tops", "tdp_mw_per_gbps", "tdp_mw_per_kb"}, never


def test_an_infeasible_mapping_has_no_slope_rather_than_nan():
    slope = slope_of(
        preset("minimal"),
        Gemm(64, 64, 64).plain(),
        Mapping(l3_tile=(64,) * 3, l2_tile=(8,) * 3, partition=(1, 2, 1, 1)),
    )
    assert not any(np.any(v) for v in jax.tree.leaves(slope))
