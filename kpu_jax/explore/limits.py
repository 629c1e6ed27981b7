"""Limits on a chip, and what no schedule on it can fall below while it keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, check_number, nearest

OBJECTIVES = ("latency", "energy", "edp")
CONSTRAINTS = {"area_mm2": "mm^2", "power_w": "W", "tdp_w": "W", "seconds": "s", "energy_pj": "pJ"}
ROUNDING = 3e-5  # relative, of float32 totals: floors are lowered, limits widened by it


def limits_of(constraints: Mapping[str, float] | None) -> dict[str, float]:
    """Checked upper limits by name of `CONSTRAINTS`. Raises `KPUError` for unknown names and numbers not positive."""
    if constraints is not None and not isinstance(constraints, Mapping):
        raise KPUError(f"constraints must be a mapping such as {{'area_mm2': 20}}, got {type(constraints).__name__}")
    limits = {}
    for name, value in (constraints or {}).items():
        if name not in CONSTRAINTS:
            raise KPUError(f"constraints: {name!r} is unknown: {nearest(name, CONSTRAINTS)}")
        limits[name] = check_number(f"constraints.{name}", value, CONSTRAINTS[name], low=0, low_open=True)
    return limits


def measures(seconds: Any, energy_pj: Any, area_mm2: Any, tdp_w: Any) -> dict[str, Any]:
    """What each name of `CONSTRAINTS` limits."""
    with np.errstate(invalid="ignore"):  # infinite energy over infinite time
        power = energy_pj * 1e-12 / seconds
    return {"area_mm2": area_mm2, "power_w": power, "tdp_w": tdp_w, "seconds": seconds, "energy_pj": energy_pj}


def keeps(limits: Mapping[str, float], measured: Mapping[str, Any]) -> Any:
    """Mask of the chips whose measures are finite and within every limit."""
    ok = (measured["seconds"] < np.inf) & (measured["energy_pj"] < np.inf)
    for name, limit in limits.items():
        ok = ok & (measured[name] <= limit)
    return ok


def floors(totals: Any, limits: Mapping[str, float]) -> dict[str, Any]:
    """Per objective, what no schedule of the stated set on each chip can fall below within the limits; infinite if none keeps them.

    `totals`: `kernel.Totals` as float64, NumPy or JAX arrays. Time: the sum of each operation's least bound; under a power limit P also
    t >= dynamic energy / (P - static power), as a slower schedule spreads its energy over more time. Energy: the sum of
    the least energies, and at least the dynamic one plus the static power over that time. EDP: their product.
    """
    xp = totals.seconds.__array_namespace__()
    limit = {name: limits.get(name, np.inf) for name in CONSTRAINTS}
    slack = limit["power_w"] * (1 + ROUNDING) - totals.static_w  # W that are left for the dynamic energy
    by_power = totals.least_dynamic_pj * 1e-12 / xp.where(slack > 0, slack, np.inf)
    seconds = xp.maximum(totals.least_seconds, by_power)
    energy = xp.maximum(totals.least_energy_pj, totals.least_dynamic_pj + totals.static_w * xp.where(seconds < np.inf, seconds, 0.0) * 1e12)
    possible = (seconds < np.inf) & (energy < np.inf) & (slack > 0)
    fixed = {"area_mm2": totals.area_mm2, "tdp_w": totals.tdp_w, "seconds": seconds, "energy_pj": energy}
    for name, values in fixed.items():
        possible = possible & (values <= limit[name] * (1 + ROUNDING))
    found = {"latency": seconds, "energy": energy, "edp": seconds * energy * 1e-12}
    return {name: xp.where(possible, values * (1 - ROUNDING), np.inf) for name, values in found.items()}
