"""A sweep's exact results as rows, for people and for files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kpu_jax.base.errors import KPUError, shown
from kpu_jax.base.tables import Row, Sheet
from kpu_jax.base.units import quantity
from kpu_jax.base.validation import check_type
from kpu_jax.explore.limits import CONSTRAINTS, OBJECTIVES

if TYPE_CHECKING:
    from kpu_jax.explore.sweep import SweepResult

SHOWN = 12  # chips of the Pareto set that print
UNITS = {"latency": ("s", 1.0), "energy": ("J", 1e-12), "edp": ("J s", 1.0)}  # objective -> its SI unit, and one of ours in it


def sweep_table(result: SweepResult) -> list[Row]:
    """The chips of a sweep that were timed exactly, best first by the sweep's objective.

    One dict per chip and objective that its mappings were chosen for (`mapped_for`). `pareto` is true on the exact
    front over (latency, energy, area); `meets` where the limits are kept. Raises `KPUError` for what is no result of a sweep.
    """
    from kpu_jax.explore.sweep import SweepResult

    check_type("result", result, SweepResult, "give what kpu.sweep returned")
    r = result.retimed
    fields = result.space.values(r.ids)
    labels = short_names(result.space.paths)
    rows = []
    for i in np.argsort(np.where(r.meets, r.measure(result.objective), np.inf), kind="stable"):
        rows.append(
            {
                "chip": int(r.ids[i]),
                "mapped_for": str(r.mapped_for[i]),
                "latency_ms": r.seconds[i] * 1e3,
                "energy_mj": r.energy_pj[i] * 1e-9,
                "edp_js": r.seconds[i] * r.energy_pj[i] * 1e-12,
                "area_mm2": r.area_mm2[i],
                "power_w": r.energy_pj[i] * 1e-12 / r.seconds[i],
                "tdp_w": r.tdp_w[i],
                "pareto": bool(r.on_front[i]),
                "meets": bool(r.meets[i]),
                **{labels[path]: float(column[i]) for path, column in fields.items()},
            }
        )
    return rows


def sweep_sheet(result: SweepResult) -> Sheet:
    """What a sweep's result prints: the best chip per objective, and the beginning of the Pareto set."""
    limits = ", ".join(f"{name} at most {value:g} {CONSTRAINTS[name]}" for name, value in result.constraints.items())
    title = f"Sweep of {result.summary.chips:,} chips for the least {result.objective}, {result.retimed.chips:,} timed exactly"
    labels = short_names(result.space.paths)
    front = each_chip_once([row for row in sweep_table(result) if row["pareto"]])
    chips = [
        {
            "chip": row["chip"], "latency": quantity(row["latency_ms"] * 1e-3, "s"), "energy": quantity(row["energy_mj"] * 1e-3, "J"),
            "energy x delay": quantity(row["edp_js"], "J s"), "area [mm^2]": row["area_mm2"], "power [W]": row["power_w"],
            **{labels[path]: row[labels[path]] for path in result.space.paths},
        }
        for row in front[:SHOWN]
    ]  # fmt: skip
    heading = "Pareto set over (latency, energy, area), best first" + (f", {SHOWN} of {len(front):,}" if len(front) > SHOWN else "")
    return Sheet(title, {"": best_rows(result), heading: chips}, [f"limits: {limits or 'none'}"])


def best_rows(result: SweepResult) -> list[Row]:
    """The best chip per objective, and whether any chip that was not timed exactly can be better."""
    rows, certified, floors = [], result.certified, result.floor
    for name in OBJECTIVES:
        unit, factor = UNITS[name]
        point, value = result.retimed.best(name)
        least = quantity(floors[name] * factor, unit)
        others = "proven: no other chip can be better" if certified[name] else f"not proven best: the others are at least {least}"
        rows.append({"least": name, "chip": int(result.retimed.ids[point]), "value": quantity(value * factor, unit), "certificate": others})
    return rows


def each_chip_once(rows: Sequence[Any]) -> list[Any]:
    """The first row of every chip, in their order: without its mappings for other objectives."""
    first: dict[Any, Any] = {}
    for row in rows:
        first.setdefault(row["chip"], row)
    return list(first.values())


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Dotted path -> its shortest ending that no other of these paths shares. Raises `KPUError` for what is no list of paths."""
    if isinstance(paths, str) or not isinstance(paths, Iterable) or not all(isinstance(path, str) for path in paths):
        raise KPUError(f"short_names needs a list of dotted paths, got {shown(paths)}")
    names = {}
    for path in paths:
        parts = path.split(".")
        endings = [".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]
        names[path] = next(e for e in endings if sum(p == e or p.endswith(f".{e}") for p in paths) == 1)
    return names
