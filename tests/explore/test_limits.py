"""Limits, and the floors under them, against random schedules that keep the limits."""

from __future__ import annotations

import numpy as np
import pytest

from kpu_jax import KPUError
from kpu_jax.explore.kernel import Totals
from kpu_jax.explore.limits import OBJECTIVES, floors, keeps, limits_of, measures


def random_chips(seed: int) -> tuple[Totals, np.ndarray, np.ndarray]:
    """Totals of 40 chips, and the (seconds, energy) of 500 schedules on each: dynamic energy + static power x time."""
    rng = np.random.default_rng(seed)
    static = rng.uniform(0.1, 2, 40)
    seconds = rng.uniform(1, 5, (40, 500))
    dynamic = rng.uniform(1, 8, (40, 500)) * 1e12
    energy = dynamic + static[:, None] * seconds * 1e12
    totals = Totals(
        seconds=seconds[:, 0], energy_pj=energy[:, 0], least_seconds=seconds.min(1), least_energy_pj=energy.min(1),
        least_dynamic_pj=dynamic.min(1), static_w=static, area_mm2=rng.uniform(1, 10, 40), tdp_w=rng.uniform(1, 10, 40),
    )  # fmt: skip
    return totals, seconds, energy


@pytest.mark.parametrize("limits", [{}, {"power_w": 1.5}, {"power_w": 1.0, "area_mm2": 6}, {"seconds": 2, "energy_pj": 5e12}, {"tdp_w": 4}])
def test_no_schedule_within_the_limits_is_below_the_floor(limits):
    for seed in range(5):
        totals, seconds, energy = random_chips(seed)
        ok = keeps(limits, measures(seconds, energy, totals.area_mm2[:, None], totals.tdp_w[:, None]))
        floor = floors(totals, limits)
        values = {"latency": seconds, "energy": energy, "edp": seconds * energy * 1e-12}
        for name in OBJECTIVES:
            best = np.where(ok, values[name], np.inf).min(axis=1)
            assert (best >= floor[name]).all(), name
        assert ok.any()


def test_a_power_limit_raises_the_floor_and_excludes_what_idles_above_it():
    totals, _, _ = random_chips(0)
    free, limited = floors(totals, {}), floors(totals, {"power_w": 1.0})
    assert (limited["latency"] >= free["latency"]).all() and (limited["latency"] > free["latency"]).any()
    np.testing.assert_array_equal(np.isinf(limited["edp"]), totals.static_w >= 1.0)


WRONG = [{"area": 5}, {"area_mm2": -1}, {"area_mm2": float("nan")}, {"power_w": "5"}, {"power_w": 0}, [1], "area_mm2"]


@pytest.mark.parametrize("given", WRONG)
def test_wrong_limits_are_named(given):
    with pytest.raises(KPUError, match="constraints"):
        limits_of(given)
