"""`simulate` and the `Simulator` facade as a user meets them."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from compilations import compilations

import kpu_jax as kpu

CHIP = kpu.presets.edge_ai()
GEMM = kpu.Gemm(128, 768, 768)
MAPPING = kpu.Mapping(l3_tile=(128, 64, 384), l2_tile=(64, 32, 384), partition=(1, 2, 1, 1))


def test_a_report_answers_in_numpy_float64():
    r = kpu.simulate(CHIP, GEMM, MAPPING).check()
    assert r.status == "ok" and r.bound_by in ("dma", "block_mover", "streamer", "fabric")
    for leaf in jax.tree.leaves(r):
        assert isinstance(leaf, np.float64)
    assert r.cycles >= r.cycles_bound > 0
    assert r.seconds == pytest.approx(r.cycles / 750e6, rel=1e-15)
    assert r.edp == pytest.approx(r.seconds * r.energy_pj * 1e-12, rel=1e-15)
    assert r.traffic["dram"]["B"] == 768 * 768  # int8, moved once: all of M is in the L3 block
    assert "cycles" in repr(r) and "utilization" in repr(r)


def test_the_bound_may_be_asked_for():
    r = kpu.simulate(CHIP, GEMM, MAPPING, timing="bound")
    assert r.cycles == r.cycles_bound == kpu.simulate(CHIP, GEMM, MAPPING).cycles_bound


def test_no_second_compilation_for_other_numbers():
    kpu.simulate(CHIP, GEMM, MAPPING)
    with compilations() as names:
        kpu.simulate(kpu.presets.datacenter(), kpu.Gemm(5, 6, 7, dtype="fp8_e4m3", activation="gelu"), MAPPING)
        kpu.simulate(CHIP, kpu.Conv(1, 8, 8, 3, 8, 3), kpu.Mapping(l3_tile=(6, 8, 27), l2_tile=(6, 8, 9), dataflow="input_stationary"))
        kpu.simulate(CHIP.replace({"clocks.fabric_mhz": 900}), kpu.VectorOp(1000), kpu.Mapping(l3_tile=(100, 1, 1), l2_tile=(10, 1, 1)))
    assert names == []


def test_count_repeats_the_operation():
    once, thrice = (kpu.simulate(CHIP, kpu.Gemm(64, 64, 64, count=c), MAPPING) for c in (1, 3))
    for name in ("cycles", "cycles_bound", "seconds", "energy_pj", "macs", "overfetch"):
        assert getattr(thrice, name) == pytest.approx(3 * getattr(once, name), rel=1e-15), name
    assert thrice.edp == pytest.approx(9 * once.edp, rel=1e-15) and thrice.power_w == pytest.approx(once.power_w, rel=1e-15)
    assert thrice.traffic["dram"]["A"] == 3 * once.traffic["dram"]["A"]


def test_a_workload_is_the_sum_of_its_operations():
    net = kpu.Workload.from_ops([("a", kpu.Gemm(64, 64, 64, count=2)), ("b", kpu.Gemm(100, 30, 200)), ("v", kpu.VectorOp(999))])
    mappings = [kpu.best_mapping(CHIP, net.row(i)) for i in range(3)]
    r = kpu.simulate(CHIP, net, jax.tree.map(lambda *v: np.stack(v), *mappings)).check()
    parts = [kpu.simulate(CHIP, net.row(i), m) for i, m in enumerate(mappings)]
    assert len(r.per_op.cycles) == 3
    for name in ("cycles", "seconds", "energy_pj", "macs"):
        assert getattr(r, name) == pytest.approx(sum(getattr(p, name) for p in parts), rel=1e-12)
        np.testing.assert_allclose(getattr(r.per_op, name), [getattr(p, name) for p in parts], rtol=1e-12)
    assert r.edp == pytest.approx(r.energy_pj * 1e-12 * r.seconds, rel=1e-15)


def test_area_and_tdp_are_the_chips():
    r = kpu.simulate(CHIP, GEMM, MAPPING)
    assert r.area_mm2 == pytest.approx(sum(kpu.area_mm2(CHIP).values()), rel=1e-12)
    assert r.tdp_w == pytest.approx(float(kpu.hardware.tdp_watts(CHIP)), rel=1e-12)


def test_an_infeasible_mapping_says_what_overflows():
    r = kpu.simulate(CHIP, GEMM, kpu.Mapping(l3_tile=(128, 768, 768), l2_tile=(64, 64, 64)))
    assert r.cycles == r.energy_pj == np.inf and "L3 overflows by" in r.status and "byte" in r.status
    with pytest.raises(kpu.InfeasibleError, match="L3 overflows"):
        r.check()


def test_a_simulation_does_not_depend_on_the_one_before():
    first = kpu.simulate(CHIP, GEMM, MAPPING)
    kpu.simulate(kpu.presets.t64(), kpu.Gemm(3, 3, 3), MAPPING)
    assert kpu.simulate(CHIP, GEMM, MAPPING) == first


def test_vmap_over_chips():
    chips = [CHIP.replace({"clocks.fabric_mhz": mhz}) for mhz in (300, 750, 1500)]
    stacked = jax.tree.map(lambda *v: np.stack(v), *chips)
    with jax.enable_x64(True):
        cycles = jax.jit(jax.vmap(lambda c: kpu.simulate(c, GEMM, MAPPING, timing="bound").cycles))(stacked)
    np.testing.assert_allclose(cycles, [kpu.simulate(c, GEMM, MAPPING, timing="bound").cycles for c in chips], rtol=1e-12)


STACKED = jax.tree.map(lambda v: np.stack([v, v]), CHIP)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (({}, GEMM, MAPPING), "must be a KPUConfig"),
        ((CHIP, "resnet50", MAPPING), "workload must be"),
        ((CHIP, GEMM, {}), "mapping must be"),
        ((STACKED, GEMM, MAPPING), "vmap"),
        ((STACKED, kpu.networks.mlp(), MAPPING), "vmap"),
        ((CHIP, kpu.networks.mlp(), jax.tree.map(lambda v: np.stack([v] * 2), MAPPING)), "3 rows, the mapping 2"),
        ((CHIP, GEMM, jax.tree.map(lambda v: v * np.nan, MAPPING)), "mapping"),
        ((jax.tree.map(lambda v: -v, CHIP), GEMM, MAPPING), "host_memory"),
        ((CHIP, jax.tree.map(lambda v: v * 0, GEMM.plain()), MAPPING), "m "),
    ],
)
def test_wrong_arguments_are_named(arguments, word):
    with pytest.raises(kpu.KPUError, match=word):
        kpu.simulate(*arguments)


def test_a_mapping_is_needed_under_a_transformation():
    with pytest.raises(kpu.KPUError, match="best_mapping"):
        jax.jit(lambda c: kpu.simulate(c, GEMM).cycles)(CHIP)


def test_the_facade():
    with kpu.Simulator() as sim:
        assert (sim.main_memory_size, sim.scratchpad_size) == (1 << 30, 1 << 20) and sim.report is None
        report = sim.run(kpu.networks.mlp(batch=8))
        assert sim.report is report and report.macs == kpu.networks.mlp(batch=8).macs.sum()
    assert kpu.KPUSimulator is kpu.Simulator
    own = kpu.Simulator(config=CHIP)
    assert own.scratchpad_size == 2 * 128 * 1024 and own.main_memory_size == 2 * 512 * 1024**2
    assert kpu.Simulator(12345, 6789, config=CHIP).scratchpad_size == 6789
    assert "1,073,741,824" in repr(kpu.Simulator())


@pytest.mark.parametrize(
    ("arguments", "options", "word"),
    [
        ((0,), {}, "main_memory_size"), ((1 << 60,), {}, "main_memory_size"), ((1.5,), {}, "main_memory_size"),
        ((None, -1), {}, "scratchpad_size"), ((), {"config": "edge_ai"}, "config"), ((), {"config": {}}, "config"),
        ((), {"config": STACKED}, "config"), ((CHIP,), {}, "config="),
    ],
)  # fmt: skip
def test_wrong_sizes_are_named(arguments, options, word):
    with pytest.raises(kpu.KPUError, match=word):
        kpu.Simulator(*arguments, **options)
