"""The critical path: parts that add up, that are derivatives, and that name the bottleneck."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest
from law_cases import MOST_PASSES, bounded
from strategies import Triple, in_chunks, passes_of, random_triples, take

import kpu_jax as kpu
from kpu_jax.base.pytree import get_path
from kpu_jax.hardware.fields import FIELDS
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.evaluate import criticality
from kpu_jax.model.timing import ENGINES

CHIP = kpu.presets.edge_ai()
GEMM = kpu.Gemm(128, 256, 256, dtype="int8", bias=True, activation="gelu")
MAPPING = kpu.Mapping(l3_tile=(128, 128, 128), l2_tile=(32, 64, 64))
# What makes one engine class alone slower by a factor: (path of the chip, power of the factor).
SLOWER = {
    "block_mover": (("clocks.block_mover_mhz", -1), ("latency.block_mover_ns", 1)),
    "streamer": (("clocks.streamer_mhz", -1), ("latency.streamer_ns", 1)),
    "vector": tuple((path, 1) for path in FIELDS if path.startswith("vector.cycles_")),
}


split = jax.jit(jax.vmap(criticality))


@functools.cache
def cases(count: int) -> tuple[Triple, Any]:
    """(feasible triples of moderate length, their cycles and the parts of the engine classes)."""
    triples = random_triples(50, 5 * count, most=512, fitting=1.0)
    fits = in_chunks(bounded, *triples).status_code == 0
    kept = np.flatnonzero(fits & (passes_of(triples) <= MOST_PASSES))[:count]
    assert len(kept) == count
    triples = Triple(*(take(tree, kept) for tree in triples))
    with jax.enable_x64(True):
        return triples, jax.tree.map(np.asarray, split(*triples))


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.long)])
def test_the_parts_add_up_to_the_exact_time(count):
    triples, (cycles, parts, status, _) = cases(count)
    assert not np.any(status)
    np.testing.assert_allclose(cycles, exact_cycles_of(*triples) * triples.op.count, rtol=1e-13)
    np.testing.assert_allclose(np.sum([parts[e] for e in ENGINES], axis=0), cycles, rtol=1e-12)
    assert all(np.min(part) >= 0 for part in parts.values())
    assert all(np.max(part) > 0 for part in parts.values()), "every engine class is critical somewhere"


@pytest.mark.parametrize("engine", list(SLOWER))
def test_a_part_is_the_derivative_by_the_engine_s_slowness(engine):
    """Between ties the time is linear in the factor, so that a small step gives the derivative exactly."""
    triples, (_, parts, _, _) = cases(60)

    def slowed(factor: float) -> np.ndarray:
        chips = triples.cfg
        for path, power in SLOWER[engine]:
            chips = kpu.replace_path(chips, path, get_path(chips, path) * factor**power)
        return exact_cycles_of(chips, triples.op, triples.mapping) * triples.op.count

    step = 1e-6
    up, down, now = slowed(1 + step), slowed(1 - step), slowed(1.0)
    straight = np.abs(up - 2 * now + down) <= 1e-11 * now  # else a tie: another path becomes critical
    assert np.mean(straight) > 0.5
    slope = (up - down) / (2 * step)
    np.testing.assert_allclose(slope[straight], parts[engine][straight], rtol=1e-4, atol=1e-5 * np.max(now))


def test_one_call_names_the_bottleneck():
    parts = kpu.critical_path(CHIP, GEMM, MAPPING)
    report = kpu.simulate(CHIP, GEMM, MAPPING)
    assert set(parts) == set(ENGINES)
    assert sum(parts.values()) == pytest.approx(float(report.cycles), rel=1e-12)
    slow = CHIP.replace({"clocks.block_mover_mhz": 10.0})
    assert max(kpu.critical_path(slow, GEMM, MAPPING).items(), key=lambda item: item[1])[0] == "block_mover"
    assert kpu.critical_path(CHIP, GEMM)  # finds its mapping


def test_it_goes_through_jit_and_vmap():
    """Pure under a trace; the parts still add up, in float32 to its precision."""

    @jax.jit
    @jax.vmap
    def parts(mhz):
        chip = kpu.replace_path(CHIP, "clocks.block_mover_mhz", mhz)
        return kpu.critical_path(chip, GEMM, MAPPING), kpu.simulate(chip, GEMM, MAPPING).cycles

    found, cycles = parts(np.array([10.0, 50.0, 500.0], np.float32))
    np.testing.assert_allclose(sum(found.values()), cycles, rtol=1e-5)
    assert found["block_mover"][0] > found["block_mover"][2]


def test_bad_input_is_named():
    with pytest.raises(kpu.InfeasibleError, match="L3"):
        kpu.critical_path(CHIP, kpu.Gemm(4096, 4096, 4096), kpu.Mapping(l3_tile=(4096, 4096, 4096), l2_tile=(64, 64, 64)))
    with pytest.raises(kpu.KPUError, match="Gemm"):
        kpu.critical_path(CHIP, kpu.networks.mlp(), MAPPING)
    with pytest.raises(kpu.KPUError, match="vmap"):
        kpu.critical_path(CHIP.replace({"clocks.dma_mhz": np.array([100.0, 200.0])}), GEMM, MAPPING)
