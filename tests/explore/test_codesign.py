"""Co-design: slopes against differences, secants against neighbours, limits, the exhaustive optimum, several networks."""

from __future__ import annotations

import functools

import numpy as np
import optax
import pytest

import kpu_jax as kpu
from kpu_jax.explore.codesign.axes import axes_of, chip_ids, knots_of
from kpu_jax.explore.codesign.finish import Finish
from kpu_jax.explore.codesign.gradient import Relaxation
from kpu_jax.explore.codesign.lagrangian import Multipliers, Problem
from kpu_jax.explore.codesign.networks import networks_of
from kpu_jax.explore.codesign.relaxation import NO_LIMIT
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES

STRATEGIES = SWEEP_STRATEGIES[::6]
FIELDS = {
    "compute.tile_count": [1, 2, 4],
    "on_chip_memory.l2.bank_count": [16, 4],  # not in order
    ("clocks.fabric_mhz", "clocks.streamer_mhz"): [(500, 600), (1000, 900)],
    "external_memory.bandwidth_gbps": [2, 50, 100],
}
SHORT = {"strategies": STRATEGIES, "starts": 4, "steps": 6, "seed": 1}


@functools.cache
def space() -> kpu.Space:
    return kpu.Space(FIELDS)


@functools.cache
def nets() -> dict[str, kpu.Workload]:
    deep = kpu.Workload.from_ops([("a", kpu.Gemm(64, 64, 2048)), ("b", kpu.Gemm(96, 200, 150))])
    return {"deep": deep, "wide": kpu.Workload.from_ops([("c", kpu.Gemm(512, 512, 32, count=3))])}


def relaxation(objective: str = "edp", **limits: float) -> tuple[Relaxation, Problem]:
    of = networks_of(nets(), [1.0, 3.0])
    problem = Problem.of(of, objective, limits)
    return Relaxation(space().base, axes_of(space()), of, STRATEGIES, problem.powers, limits.get("power_w", NO_LIMIT)), problem


def points(relaxed: Relaxation, count: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(0.05, 0.95, (count, len(relaxed.axes))) * [a.knots[-1] for a in relaxed.axes]


def test_coordinates_and_indices_agree_with_the_space():
    axes, ids = axes_of(space()), np.arange(len(space()))
    knots = knots_of(axes, ids)
    assert (chip_ids(axes, knots) == ids).all()
    want = space().values(ids)
    for i, axis in enumerate(axes):
        values, _ = axis.values(axis.knots[knots[:, i]])
        for path, column in zip(axis.paths, values.T, strict=True):
            np.testing.assert_allclose(column, want[path], rtol=1e-14)
    assert [a.smooth for a in axes] == [False, False, True, True]


@pytest.mark.parametrize("limits", [{}, {"power_w": 1.5}])
def test_gradient_is_the_slope_of_the_relaxed_optimum(limits):
    relaxed, problem = relaxation(**limits)
    x = points(relaxed, 5)
    gradient = relaxed.gradient(relaxed.at(x), np.tile(problem.objective, (5, 1)))
    for i in range(len(relaxed.axes)):
        step = np.zeros(len(relaxed.axes))
        step[i] = 1e-6
        rise = (relaxed.at(x + step).relaxed - relaxed.at(x - step).relaxed) @ problem.objective
        np.testing.assert_allclose(gradient[:, i], rise / 2e-6, rtol=1e-5, atol=1e-8)
    assert (np.abs(gradient).max(axis=0) > 1e-3).all()


def test_slopes_have_the_right_sign():
    relaxed, problem = relaxation("latency")
    gradient = relaxed.gradient(relaxed.at(points(relaxed, 5)), np.tile(problem.objective, (5, 1)))
    assert (gradient[:, 2:] <= 1e-12).all() and (gradient[:, 2:].min(axis=0) < -1e-3).all()  # faster clocks and memory


def test_secants_are_the_differences_between_neighbouring_chips():
    """Against simulating every mapping of both chips alone."""
    relaxed, problem = relaxation("latency")
    x = np.stack([axis.knots[0] * np.ones(1) for axis in relaxed.axes], axis=1)
    gradient = relaxed.gradient(relaxed.at(x), problem.objective[None])

    def log_latency(tiles: int, banks: int) -> float:
        chip = space().base
        fields = {"compute.tile_count": tiles, "on_chip_memory.l2.bank_count": banks, "clocks.fabric_mhz": 500,
                  "clocks.streamer_mhz": 600, "external_memory.bandwidth_gbps": 2}  # fmt: skip
        for path, value in fields.items():
            chip = kpu.replace_path(chip, path, np.float64(value))
        return float(sum(w * np.log(least_seconds(chip, net)) for w, net in zip((0.25, 0.75), nets().values(), strict=True)))

    def least_seconds(chip, net):
        def each(op):
            reports = (kpu.simulate(chip, op, kpu.mapping.proposals.propose(chip, op, s), timing="bound") for s in STRATEGIES)
            return min(float(r.seconds) for r in reports)

        return sum(each(net.row(i)) for i in range(net.rows))  # simulate counts repeats

    start = log_latency(1, 4)
    np.testing.assert_allclose(gradient[0, 0], (log_latency(2, 4) - start) / np.log(2), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient[0, 1], (log_latency(1, 16) - start) / np.log(4), rtol=1e-9, atol=1e-12)
    assert gradient[0, 0] < 0


def test_the_multipliers_grow_while_a_limit_is_exceeded_and_fall_to_zero_else():
    relaxed, problem = relaxation(area_mm2=1.0, tdp_w=1e4)
    logs = relaxed.at(points(relaxed, 2)).relaxed
    multipliers = Multipliers(problem, 2)
    first = multipliers.pull(logs)
    multipliers.update(logs)
    assert (multipliers.pull(logs)[:, 0] > first[:, 0]).all() and (multipliers.pull(logs)[:, 1] == 0).all()


def exhaustive(objective: str, limits: dict[str, float]) -> float:
    """The best exact value over every chip of the space."""
    relaxed, problem = relaxation(objective, **limits)
    every = Finish(space(), relaxed, problem, objective, limits)
    for first in range(0, len(space()), 8):
        every.time(list(range(first, min(first + 8, len(space())))))
    excess, value = every.exact[every.best].key
    assert excess == 0
    return value


@pytest.mark.parametrize(("objective", "limits"), [("edp", {}), ("latency", {"area_mm2": 22.0, "power_w": 1.5})])
def test_finds_the_best_of_a_small_space(objective, limits):
    best = exhaustive(objective, limits)
    found = kpu.codesign(space(), nets(), weights=[1, 3], objective=objective, constraints=limits, **SHORT)
    assert found.value <= best * 1.01 and found.locally_optimal
    assert found.area_mm2 <= limits.get("area_mm2", np.inf)
    for name, net in nets().items():
        report = kpu.simulate(found.chip, net, found.mappings[name])
        seconds, energy = float(np.sum(report.seconds)), float(np.sum(report.energy_pj))
        np.testing.assert_allclose((found.seconds[name], found.energy_pj[name]), (seconds, energy), rtol=1e-9)
        assert energy * 1e-12 / seconds <= limits.get("power_w", np.inf) * (1 + 1e-9)
    logs = {n: np.log({"edp": found.seconds[n] * found.energy_pj[n] * 1e-12, "latency": found.seconds[n]}[objective]) for n in nets()}
    np.testing.assert_allclose(found.value, np.exp(0.25 * logs["deep"] + 0.75 * logs["wide"]), rtol=1e-9)
    assert np.isfinite(found.gap) and objective in repr(found)


def test_weights_decide_between_networks():
    found = {name: kpu.codesign(space(), nets(), weights={name: 1}, objective="energy", **SHORT) for name in nets()}
    for name, best in found.items():
        np.testing.assert_allclose(best.value, best.energy_pj[name], rtol=1e-9)  # the other's weight is 0
        assert all(best.value <= other.energy_pj[name] * (1 + 1e-9) for other in found.values())


def test_says_which_limit_binds_and_the_closest_chip():
    with pytest.raises(kpu.KPUError, match=r"area_mm2 binds. The closest is chip \d+: area_mm2 .*compute.tile_count = 1,"):
        kpu.codesign(space(), nets(), constraints={"area_mm2": 0.5, "power_w": 50}, **SHORT)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"objective": "speed"}, "objective"), ({"constraints": {"area": 3}}, "area_mm2"), ({"weights": [1]}, "2 numbers"),
        ({"weights": {"dep": 1}}, "deep"), ({"weights": [0, 0]}, "all are 0"), ({"weights": [-1, 2]}, "weights"),
        ({"optimizer": 0.05}, "optax"), ({"starts": 0}, "starts"), ({"steps": 1.5}, "steps"), ({"seed": -1}, "seed"),
        ({"optimizer": optax.sgd(np.nan)}, "not finite"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(changed, word):
    with pytest.raises(kpu.KPUError, match=word):
        kpu.codesign(space(), nets(), **{**SHORT, **changed})


@pytest.mark.parametrize("workload", [[], {}, "resnet50"])
def test_wrong_workloads_are_named(workload):
    with pytest.raises(kpu.KPUError):
        kpu.codesign(space(), workload)
