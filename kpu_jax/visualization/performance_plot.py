"""Where the time of a workload goes, and how results compare: bars, or curves over a size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from kpu_jax.base.errors import KPUError, check_choice
from kpu_jax.base.units import unit_for
from kpu_jax.model.bound import ENGINES
from kpu_jax.model.report import Report, check_report
from kpu_jax.visualization.results import MEASURES, curve_of, entries_of, names_of, value_of
from kpu_jax.visualization.style import ENGINE_LOOKS, FAINT, INK, MOST_BARS, legend_of, look, new_axes, short, titled

WHAT = "plot_performance"
MOST_CURVES = 8


def plot_performance(results: Any, names: Sequence[str] | None = None, ax: Axes | None = None, *, measure: str = "seconds") -> Axes:
    """Bars or scaling curves of results, by what they are:

    - the report of a `Workload`: time of each of its rows; fill: the engine class that it is bound by; the figure at a bar
      is the utilization of the fabric. Of more than 40 rows the longest are shown and the others summed up.
      `names`: one per row (`workload.row_names`).
    - a list of reports, or a dict {name: result}: one bar each. A result is a report, a number (seconds), or a dict
      {measure: number} of a benchmark. More than 40 are drawn as one curve in ascending order.
    - a dict {name: {size: result}}: one curve each over the size; more than 8 as thin lines with their median.

    `measure`: "seconds", "cycles", "energy_pj", "edp", "power_w", "utilization" or "gflops" (keys of benchmark results in
    just these units; not for the rows of a workload). Returns the Axes. Raises `KPUError` for no results, unnamed reports
    of different workloads, infeasible entries, values that are not finite and at least 0, and names that do not fit.
    """
    check_choice("measure", measure, MEASURES)
    if isinstance(results, Report) and results.per_op is not None:
        if measure != "seconds":
            raise KPUError(f"{WHAT}: the rows of a workload are shown by measure='seconds', not {measure!r}")
        return _rows(check_report(WHAT, results), names, ax)
    entries = entries_of(WHAT, results, names)
    curves = {name: curve_of(entry) for name, entry in entries.items()}
    if all(curves.values()):
        values = {n: [(x, value_of(WHAT, f"{n}, {x:g}", e, measure)) for x, e in points or ()] for n, points in curves.items()}
        return _curves({name: np.array(points) for name, points in values.items()}, measure, ax)
    if any(curves.values()):
        odd = next(name for name, points in curves.items() if not points)
        raise KPUError(f"{WHAT}: {odd!r} is one result, others are dicts over sizes: plot them apart")
    heights = {name: value_of(WHAT, name, entry, measure) for name, entry in entries.items()}
    return (_bars if len(heights) <= MOST_BARS else _ranked)(heights, measure, ax)


def _rows(report: Report, names: Sequence[str] | None, ax: Axes | None) -> Axes:
    each = report.per_op
    rows = len(each.seconds)
    names = [str(i) for i in range(rows)] if names is None else names_of(WHAT, names)
    if len(names) != rows:
        raise KPUError(f"{WHAT}: the report has {rows} rows, but {len(names)} names were given")
    seconds, held = np.asarray(each.seconds), np.atleast_1d(each.bound_by)
    shown = np.arange(rows)
    if rows > MOST_BARS:
        shown = np.sort(np.argsort(-seconds, kind="stable")[: MOST_BARS - 1])
    rest = np.setdiff1d(np.arange(rows), shown)
    unit = unit_for([*seconds[shown], seconds[rest].sum()], "s")
    ax = new_axes(ax, 8, 1.3 + 0.22 * (len(shown) + bool(len(rest))))
    for place, i in enumerate(shown):
        width = seconds[i] * unit.factor
        ax.barh(place, width, **ENGINE_LOOKS[str(held[i])].bar)
        ax.annotate(f"{100 * each.utilization[i]:.0f} %", (width, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    if len(rest):
        others = seconds[rest].sum() * unit.factor
        ax.barh(len(shown), others, facecolor="white", edgecolor=INK, linewidth=0.8)
        ax.annotate(f"{others:,.4g} {unit.name} together", (0, len(shown)), (3, 0), textcoords="offset points", va="center", fontsize=7)
    labels = [short(names[i]) for i in shown] + ([f"{len(rest)} other rows"] if len(rest) else [])
    ax.set_yticks(np.arange(len(labels)), labels, fontsize=7)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlabel(f"time, all occurrences [{unit.name}]; utilization at the bar")
    cut = f"the {len(shown)} longest of {rows} rows" if len(rest) else ""
    time, energy = unit_for([report.seconds], "s"), unit_for([report.energy_pj * 1e-12], "J")
    whole = f"{report.seconds * time.factor:,.4g} {time.name}, {report.energy_pj * 1e-12 * energy.factor:,.4g} {energy.name}"
    titled(ax, whole, cut)
    legend_of(ax, {f"bound by: {e.replace('_', ' ')}": ENGINE_LOOKS[e] for e in ENGINES if e in held})
    ax.margins(x=0.08)
    longest = seconds[shown].max() * unit.factor
    if len(rest) and others > 3 * longest:
        ax.set_xlim(0, 3 * longest)  # what is summed up leaves the picture, so that the rows can be read
    return ax


def _label(measure: str, values: Any) -> tuple[float, str]:
    """(factor, axis label) for values of a measure."""
    title, unit, _ = MEASURES[measure]
    scale = unit_for(values, unit) if unit != "%" else None
    return (scale.factor, f"{title} [{scale.name}]") if scale else (1.0, f"{title} [{unit}]")


def _bars(heights: dict[str, float], measure: str, ax: Axes | None) -> Axes:
    factor, label = _label(measure, list(heights.values()))
    ax = new_axes(ax, 7, 1.2 + 0.3 * len(heights))
    for place, value in enumerate(heights.values()):
        ax.barh(place, value * factor, height=0.7, facecolor=look(0).colour, edgecolor=INK, linewidth=0.4)
        ax.annotate(f"{value * factor:,.4g}", (value * factor, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(np.arange(len(heights)), [short(name) for name in heights], fontsize=8)
    ax.set_ylim(len(heights) - 0.4, -0.6)
    ax.set_xlabel(label)
    ax.margins(x=0.12)
    return ax


def _ranked(heights: dict[str, float], measure: str, ax: Axes | None) -> Axes:
    order = sorted(heights, key=lambda name: heights[name])
    values = np.array([heights[name] for name in order])
    factor, label = _label(measure, values)
    ax = new_axes(ax, 7, 4)
    ax.plot(np.arange(1, len(values) + 1), values * factor, color=look(0).colour)
    for i, name, side in ((0, order[0], "left"), (len(values) - 1, order[-1], "right")):
        ax.plot(i + 1, values[i] * factor, look(1 if i else 2).marker, color=INK)
        ax.annotate(short(name), (i + 1, values[i] * factor), (0, 8), textcoords="offset points", ha=side, fontsize=8)
    if values[0] > 0 and values[-1] > 30 * values[0]:
        ax.set_yscale("log")
    ax.set(xlabel="rank [results]", ylabel=label)
    ax.margins(y=0.12)
    ax.grid(alpha=0.3)
    titled(ax, f"{len(values):,} results in ascending order", "the least and the most are named")
    return ax


def _curves(curves: dict[str, np.ndarray], measure: str, ax: Axes | None) -> Axes:
    everything = np.concatenate(list(curves.values()))
    factor, label = _label(measure, everything[:, 1])
    ax = new_axes(ax, 7, 4.2)
    if len(curves) <= MOST_CURVES:
        for i, (name, points) in enumerate(curves.items()):
            each = look(i)
            entry = short(name) if not name.startswith("_") else f" {short(name)}"  # matplotlib leaves out what begins with "_"
            ax.plot(*(points * [1, factor]).T, each.marker, color=each.colour, linestyle=each.line, label=entry, markersize=6)
        ax.legend(fontsize=8)
    else:
        ax.add_collection(LineCollection([p * [1, factor] for p in curves.values()], colors=FAINT, linewidths=0.6, alpha=0.7))
        if single := [points[0] * [1, factor] for points in curves.values() if len(points) == 1]:
            ax.plot(*np.array(single).T, ".", color=FAINT, label="series of one size")
        sizes, place = np.unique(everything[:, 0], return_inverse=True)
        middle = [np.median(everything[place == i, 1]) for i in range(len(sizes))]
        ax.plot(sizes, np.array(middle) * factor, "o-", color=look(0).colour, label="median at each size")
        ax.legend(fontsize=8, loc="upper left")
        titled(ax, f"{len(curves):,} series", "thin lines: every series")
    ax.autoscale_view()
    for axis, column in (("x", everything[:, 0]), ("y", everything[:, 1])):
        if column.min() > 0 and column.max() > 30 * column.min():
            getattr(ax, f"set_{axis}scale")("log")
    ax.set(xlabel="size [as given]", ylabel=label)
    ax.grid(alpha=0.3, which="both")
    return ax
