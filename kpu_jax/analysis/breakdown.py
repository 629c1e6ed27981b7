"""Where the cycles of a report go, in terms that add up, and why one report takes longer than another."""

from __future__ import annotations

from typing import Any

import numpy as np

from kpu_jax.analysis.findings import Analysis
from kpu_jax.base.tables import Row, cell
from kpu_jax.model.bound import ENGINES
from kpu_jax.model.report import Report, check_report

PEAK, UNUSED, WAITING = "multiply-adds at the chip's peak", "fabric held beyond them", "waiting"
APART = "beyond the operations one by one"


def time_terms(report: Report) -> dict[str, float]:
    """The cycles of a report in terms that add up to them (of a network: row by row, added up), all but the last at least 0.

    The time that the multiply-adds would take at the chip's peak; what the fabric is held beyond that (edges, idle rows,
    columns and compute tiles); what the class that is held longest is held beyond the fabric; and the waiting of that class
    for latencies, data, room and others. Last, where there is any, the time beyond that of the operations one after the
    other (host work), or less than 0 where they overlap. Exact, given the report's `busy`. Raises `KPUError` for what is no
    feasible report of one simulation.
    """
    check_report("time_terms", report)
    rows = report if report.per_op is None else report.per_op
    cycles, peak = np.atleast_1d(rows.cycles), np.atleast_1d(rows.utilization * rows.cycles)
    fabric = np.maximum(np.atleast_1d(rows.busy["fabric"]), peak)
    most = np.maximum(np.max([np.atleast_1d(held) for held in rows.busy.values()], axis=0), fabric)
    binding = np.atleast_1d(rows.bound_by)
    terms = {PEAK: peak.sum(), UNUSED: (fabric - peak).sum()}
    for engine in ENGINES:
        if engine != "fabric":
            terms[f"{engine} held beyond the fabric"] = (most - fabric)[binding == engine].sum()
    terms[WAITING] = (cycles - most).sum()
    apart = float(report.cycles) - cycles.sum()  # a network as a graph: transfers to the host, less what runs side by side
    if abs(apart) > 1e-9 * float(report.cycles):
        terms[APART] = apart
    return {name: float(value) for name, value in terms.items()}


def time_table(report: Report) -> list[Row]:
    """`time_terms` with their shares, what is 0 left out."""
    total = float(report.cycles)
    terms = {name: value for name, value in time_terms(report).items() if abs(value) > 1e-9 * total}
    return [{"term": name, "cycles": value, "share %": 100 * value / total} for name, value in terms.items()]


def compare_reports(a: Report, b: Report) -> Analysis:
    """Why does `b` take more or less than `a`? Time, energy and bytes term by term; each table's differences add up to its total.

    Time in the terms of `time_terms`, at each chip's own clock. Raises `KPUError` for what is no feasible report.
    """
    check_report("a", a)
    check_report("b", b)
    us = [1e6 * float(r.seconds) / float(r.cycles) for r in (a, b)]
    of_a, of_b = time_terms(a), time_terms(b)
    time = [(name, of_a.get(name, 0.0) * us[0], of_b.get(name, 0.0) * us[1]) for name in {**of_a, **of_b}]
    energy = [(name, a.energy[name] * 1e-6, b.energy[name] * 1e-6) for name in a.energy]
    moved = [(level, sum(a.traffic[level].values()), sum(b.traffic[level].values())) for level in a.traffic]
    tables = {
        "time [us]": _differences(time, float(a.seconds) * 1e6, float(b.seconds) * 1e6),
        "energy [uJ]": _differences(energy, float(a.energy_pj) * 1e-6, float(b.energy_pj) * 1e-6),
        "read and written [byte]": _differences(moved, sum(x for _, x, _ in moved), sum(y for _, _, y in moved)),
    }
    ratio, joules = float(b.seconds) / float(a.seconds), float(b.energy_pj) / float(a.energy_pj)
    other = "" if np.isclose(float(a.macs), float(b.macs), rtol=1e-9) else " (of different workloads: their multiply-adds differ)"
    return Analysis(f"b takes {ratio:.3g} times the time and {joules:.3g} times the energy of a{other}", tables, _reasons(tables))


def _differences(terms: list[tuple[str, Any, Any]], a: Any, b: Any) -> list[Row]:
    rows = [(name, float(x), float(y)) for name, x, y in terms if x or y] + [("total", float(a), float(b))]
    whole = float(b) - float(a)
    found = []
    for name, x, y in rows:
        change = y - x if abs(y - x) > 1e-12 * max(abs(x), abs(y)) else 0.0  # not what rounding leaves
        share = 100 * change / whole if whole and change else 0.0
        found.append({"term": name, "a": x, "b": y, "b - a": change, "of the difference %": share})
    return found


def _reasons(tables: dict[str, list[Row]]) -> list[str]:
    """Per table the term that explains most of the difference."""
    lines = []
    for heading, (*terms, total) in tables.items():
        if abs(total["b - a"]) > 1e-9 * max(abs(total["a"]), abs(total["b"])) and terms:
            most = max(terms, key=lambda row: row["b - a"] * np.sign(total["b - a"]))
            more = "more" if total["b - a"] > 0 else "less"
            change = f"{heading}: b takes {cell(abs(total['b - a']))} {more}"
            cause = f"{most['of the difference %']:.0f} %, is {most['term']}: {cell(most['a'])} -> {cell(most['b'])}"
            lines.append(f"{change}; most of it, {cause}")
    return lines
