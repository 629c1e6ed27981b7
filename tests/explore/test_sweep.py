"""Sweeps against simulating every chip; cut anywhere; sound certificates; what happens when nothing fits."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.explore import sweep as module
from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.explore.sweep import evaluate_range
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES, propose

STRATEGIES = SWEEP_STRATEGIES[::6]
FIELDS = {
    "compute.tile_count": [1, 2, 4],
    "on_chip_memory.l2.bank_count": [4, 16],
    "clocks.fabric_mhz": [500, 1000],
    "external_memory.bandwidth_gbps": [5, 50, 100],
}


@functools.cache
def space() -> kpu.Space:
    return kpu.Space(FIELDS)


@functools.cache
def net() -> kpu.Workload:
    ops = [("a", kpu.Gemm(96, 200, 150)), ("b", kpu.Conv(1, 14, 14, 16, 24, 3, padding=1)), ("c", kpu.Gemm(64, 64, 512, count=3))]
    return kpu.Workload.from_ops(ops)


def bounded(strategies: np.ndarray) -> dict[str, np.ndarray]:
    """[chip, op, strategy] seconds and energies, counts applied, by simulating each alone, without the sweep's kernels."""
    chips = space().chips(np.arange(len(space())))
    ops = jax.tree.map(lambda v: np.asarray(v, np.float64), net().ops)

    @jax.jit
    def every(chips, ops):
        def one(cfg, op, strategy):
            r = kpu.simulate(cfg, op, propose(cfg, op, strategy), timing="bound")
            return r.seconds, r.energy_pj

        over_strategies = jax.vmap(one, (None, None, 0))
        over_ops = jax.vmap(over_strategies, (None, 0, None))
        return jax.vmap(over_ops, (0, None, None))(chips, ops, strategies)

    with jax.enable_x64(True):
        seconds, energy = jax.tree.map(np.asarray, every(chips, ops))
    return {"seconds": seconds, "energy": energy}


def summary(start: int = 0, stop: int | None = None, **more):
    return evaluate_range(space(), net().ops, start, len(space()) if stop is None else stop, strategies=STRATEGIES, **more)


def test_floors_and_front_agree_with_simulating_every_chip():
    found = bounded(STRATEGIES)
    least_d, least_e = found["seconds"].min(2).sum(1), found["energy"].min(2).sum(1)
    want = {"latency": least_d, "energy": least_e, "edp": least_d * least_e * 1e-12}
    got = summary()
    assert got.chips == len(space()) and got.evaluations == len(space()) * 3 * len(STRATEGIES)
    for name in OBJECTIVES:
        floors = dict(zip(got.best[name][:, 1].astype(int).tolist(), got.best[name][:, 0].tolist(), strict=True))
        assert set(floors) == set(np.flatnonzero(np.isfinite(least_d)).tolist())
        for chip, floor in floors.items():
            assert 0.9999 * want[name][chip] <= floor <= want[name][chip]


@pytest.mark.parametrize("cuts", [[0, 1, 36], [0, 7, 8, 20, 36]])
def test_any_cut_gives_the_same_summary(cuts):
    whole = summary()
    parts = [summary(a, b) for a, b in zip(cuts, cuts[1:], strict=False)]
    total = functools.reduce(lambda a, b: b + a, parts)
    assert (total.chips, total.met, total.evaluations) == (whole.chips, whole.met, whole.evaluations)
    np.testing.assert_array_equal(total.front_ids, whole.front_ids)
    np.testing.assert_array_equal(total.front_points, whole.front_points)
    for name in OBJECTIVES:
        np.testing.assert_array_equal(total.best[name], whole.best[name])


def test_blocks_that_cut_the_speeds_change_nothing_but_the_last_bit():
    whole, blocks = summary(), summary(3, 30, block_evaluations=4 * 4 * len(STRATEGIES))
    floors = dict(whole.best["edp"][:, ::-1].tolist())
    assert blocks.chips == 27 and len(blocks.best["edp"]) == 27
    for floor, chip in blocks.best["edp"]:
        assert floor == pytest.approx(floors[chip], rel=1e-6)


@pytest.mark.parametrize("limits", [{}, {"power_w": 0.6}])
def test_a_certified_best_is_the_best_of_all_chips_by_exact_time(limits):
    whole = kpu.sweep(space(), net(), constraints=limits, retime_chips=len(space()))
    some = kpu.sweep(space(), net(), constraints=limits, retime_chips=10)
    assert all(whole.certified.values())
    for name in OBJECTIVES:
        best = whole.retimed.best(name)[1]
        assert some.floor[name] <= best * (1 + 1e-12) or some.certified[name]
        if some.certified[name]:
            assert some.retimed.best(name)[1] == pytest.approx(best, rel=1e-12)
    assert some.retimed.chips <= 10
    r = whole.retimed
    np.testing.assert_array_equal(r.meets, r.energy_pj * 1e-12 / r.seconds <= limits.get("power_w", np.inf))


def test_the_exact_results_are_those_of_simulate():
    result = kpu.sweep(space(), net(), retime_chips=4)
    for name in OBJECTIVES:
        point, value = result.retimed.best(name)
        report = kpu.simulate(space().chip(int(result.retimed.ids[point])), net(), result.retimed.mapping(point)).check()
        got = {"latency": report.seconds, "energy": report.energy_pj, "edp": report.edp}[name]
        assert got == pytest.approx(value, rel=1e-12)


def test_nobody_keeps_the_limits():
    with pytest.raises(kpu.KPUError, match=r"no chip of the space keeps the limits; the nearest is chip \d+: area_mm2 .*limit 0.001"):
        kpu.sweep(space(), net(), constraints={"area_mm2": 0.001})
    with pytest.raises(kpu.KPUError, match="can hold one tile"):
        kpu.sweep({"on_chip_memory.l1.buffer_capacity_kb": [2**-10]}, kpu.Gemm(8, 8, 8, dtype="fp32"))


def test_limits_that_no_exact_time_keeps(monkeypatch):
    monkeypatch.setattr(module, "floors", lambda totals, limits: {o: np.zeros(len(totals.seconds)) for o in OBJECTIVES})
    with pytest.raises(kpu.KPUError, match="most promising chips keeps the limits by exact time; the nearest is chip"):
        kpu.sweep(space(), net(), constraints={"seconds": 1e-9}, retime_chips=2)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("x", kpu.Gemm(8, 8, 8)), "space"),
        ((FIELDS, "resnet50"), "workload"),
        ((FIELDS, kpu.Gemm(8, 8, 8), {"objective": "EPD"}), "objective"),
        ((FIELDS, kpu.Gemm(8, 8, 8), {"constraints": {"area": 1}}), "area_mm2"),
        ((FIELDS, kpu.Gemm(8, 8, 8), {"retime_chips": 0}), "retime_chips"),
    ],
)
def test_wrong_arguments_are_named(arguments, word):
    *positional, options = arguments if isinstance(arguments[-1], dict) and len(arguments) == 3 else (*arguments, {})
    with pytest.raises(kpu.KPUError, match=word):
        kpu.sweep(*positional, **options)
