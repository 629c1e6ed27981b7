"""What a sweep says: the best chips, whether they are proven best, which fields decide, which limits bind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kpu_jax.analysis.findings import Analysis
from kpu_jax.base.errors import KPUError, is_number
from kpu_jax.base.tables import Row, Rows
from kpu_jax.explore.limits import CONSTRAINTS
from kpu_jax.explore.sweep import SweepResult
from kpu_jax.explore.sweep_table import best_rows, each_chip_once, short_names, sweep_table

SHOWN = 12  # chips that are listed
NEAR = 0.95  # share of a limit from which on it is said to bind
OF_OBJECTIVE = {"latency": "latency_ms", "energy": "energy_mj", "edp": "edp_js"}
_OF_LIMIT = {"area_mm2": ("area_mm2", 1.0), "power_w": ("power_w", 1.0), "tdp_w": ("tdp_w", 1.0), "seconds": ("latency_ms", 1e-3),
             "energy_pj": ("energy_mj", 1e9)}  # fmt: skip


def sweep_analysis(result: SweepResult) -> Analysis:
    """The analysis of a sweep: tables of its exact results, and advice."""
    rows = sweep_table(result)
    labels = short_names(result.space.paths)
    best = best_rows(result)
    tables = {"best": best, **chip_tables(rows, result.objective, list(labels.values()))}
    advice = [f"best {row['least']}: chip {row['chip']}, {row['value']}; {row['certificate']}" for row in best]
    advice += field_advice(tables["fields"]) + _limit_advice(rows, result.constraints)
    title = f"{result.summary.chips:,} chips screened, {result.retimed.chips:,} timed exactly, for the least {result.objective}"
    return Analysis(title, tables, advice)


def chip_tables(rows: Rows, objective: str, fields: Sequence[str]) -> dict[str, list[Row]]:
    """Of the rows of a sweep's table: those on the Pareto front, the best ones, and what each field costs."""
    kept = [row for row in rows if row["meets"]]
    if not kept:
        raise KPUError("none of these chips keeps the limits: there is nothing to analyse")
    column = OF_OBJECTIVE[objective]
    ranked = sorted(kept, key=lambda row: row[column])
    front, best = each_chip_once([row for row in ranked if row.get("pareto")]), each_chip_once(ranked)
    return {"fields": field_table(kept, column, fields), "Pareto set": front[:SHOWN], "best chips": best[:SHOWN]}


def field_table(rows: Rows, column: str, fields: Sequence[str]) -> list[Row]:
    """Per field that varies: the value of the best chip, and by how much the best chip with another value is worse.

    Of the chips timed exactly only, so other values may have better chips that were not timed.
    """
    best = min(rows, key=lambda row: row[column])
    found = []
    for name in fields:
        if not all(is_number(row.get(name)) for row in rows):
            continue
        least: dict[float, float] = {}
        for row in rows:
            least[float(row[name])] = min(least.get(float(row[name]), np.inf), row[column])
        others = {value: cost / best[column] - 1 for value, cost in least.items() if value != best[name]}
        if others:
            nearest, worst = min(others, key=lambda v: others[v]), max(others, key=lambda v: others[v])
            found.append({
                "field": name, "best value": best[name], "values timed": len(least), "next best": nearest,
                "it costs %": 100 * others[nearest], "worst": worst, "costs %": 100 * others[worst],
            })  # fmt: skip
    return sorted(found, key=lambda row: -row["it costs %"])


def field_advice(table: Rows) -> list[str]:
    """The fields in which the best chip must not change, and those in which it may."""
    firm, free = [], []
    for row in table:
        name, best, other, cost = (row[column] for column in ("field", "best value", "next best", "it costs %"))
        if cost > 5:
            firm.append(f"{name} = {best:g} (any other value timed: {cost:+.0f} %)")
        elif cost < 1:
            free.append(f"{name} ({other:g} instead of {best:g}: {cost:+.1f} %)")
    lines = [f"what decides: {', '.join(firm[:4])}"] if firm else []
    return lines + ([f"what hardly matters: {', '.join(free[:4])}"] if free else [])


def _limit_advice(rows: Rows, limits: Mapping[str, float]) -> list[str]:
    lines = []
    best = next(row for row in rows if row["meets"])
    for name, limit in limits.items():
        column, factor = _OF_LIMIT[name]
        used = best[column] * factor / limit
        state = "binds" if used > NEAR else "leaves room"
        lines.append(f"the limit {name} = {limit:g} {CONSTRAINTS[name]} {state}: the best chip takes {used:.0%} of it")
    return lines
