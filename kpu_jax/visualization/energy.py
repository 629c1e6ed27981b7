"""Where the energy goes: by memory level and kind of action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from kpu_jax.base.errors import KPUError, shown
from kpu_jax.base.units import unit_for
from kpu_jax.model.report import Report, check_report
from kpu_jax.visualization.results import entries_of
from kpu_jax.visualization.style import INK, MOST_BARS, legend_of, look, looks, new_axes, short, titled

WHAT = "plot_energy_breakdown"
NAMES = {
    "mac": "multiply-adds",
    "pe": "PE registers",
    "l1": "L1",
    "l2": "L2",
    "l3": "L3",
    "dram": "external memory",
    "overfetch": "burst padding",
    "host": "host memory",
    "vector": "vector engine",
    "clock": "clock",
    "leakage": "leakage",
}
LOOKS = looks(NAMES)


def plot_energy_breakdown(results: Report | Any, names: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Energy by memory level and kind of action.

    Of one report: a bar for each, largest first, with its share; what takes none is left out. Of a list of reports, or a dict
    {name: report}: stacked bars, one per report; of more than 40 the 39 that take most, and the mean of the others.
    Returns the Axes. Raises `KPUError` for no reports, infeasible ones, unnamed ones of different workloads, and
    names that do not fit.
    """
    entries = {name: check_report(f"{WHAT}: entry {shown(name)}", r) for name, r in entries_of(WHAT, results, names).items()}
    unknown = {part for report in entries.values() for part in report.energy} - set(NAMES)
    table = {
        name: {part: float(np.asarray(report.energy[part])) * 1e-12 for part in [*NAMES, *sorted(unknown)] if part in report.energy}
        for name, report in entries.items()
    }
    if not any(joules for parts in table.values() for joules in parts.values()):
        raise KPUError(f"{WHAT}: these reports have no energy at all")
    style = LOOKS | {part: look(len(NAMES) + i) for i, part in enumerate(sorted(unknown))}
    if len(table) == 1:
        return _parts(next(iter(table.values())), style, ax)
    return _stacks(table, style, ax)


def _parts(parts: dict[str, float], style: dict[str, Any], ax: Axes | None) -> Axes:
    order = [part for part in sorted(parts, key=lambda part: -parts[part]) if parts[part] > 0]
    total = sum(parts.values())
    unit = unit_for([parts[order[0]]], "J")
    ax = new_axes(ax, 7, 1.2 + 0.3 * len(order))
    for place, part in enumerate(order):
        ax.barh(place, parts[part] * unit.factor, height=0.7, **style[part].bar)
        share = f"{100 * parts[part] / total:.1f} %"
        ax.annotate(share, (parts[part] * unit.factor, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(np.arange(len(order)), [NAMES.get(part, part) for part in order], fontsize=8)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlabel(f"energy [{unit.name}]")
    ax.margins(x=0.12)
    whole = unit_for([total], "J")
    titled(ax, f"{total * whole.factor:,.4g} {whole.name} in all")
    return ax


def _stacks(table: dict[str, dict[str, float]], style: dict[str, Any], ax: Axes | None) -> Axes:
    count, note = len(table), ""
    if count > MOST_BARS:
        ranked = sorted(table, key=lambda name: -sum(table[name].values()))
        kept, rest = set(ranked[: MOST_BARS - 1]), ranked[MOST_BARS - 1 :]
        table = {name: parts for name, parts in table.items() if name in kept} | {
            f"mean of {len(rest)} others": {part: sum(table[name].get(part, 0.0) for name in rest) / len(rest) for part in style}
        }
        note = f"the {MOST_BARS - 1} of {count:,} that take most"
    unit = unit_for([sum(parts.values()) for parts in table.values()], "J")
    present = [part for part in style if any(parts.get(part, 0.0) > 0 for parts in table.values())]
    ax = new_axes(ax, 8.5, max(1.3 + 0.3 * len(table), 0.6 + 0.21 * len(present)))  # room for the bars, and for the legend
    left = np.zeros(len(table))
    for part in present:
        widths = np.array([parts.get(part, 0.0) for parts in table.values()]) * unit.factor
        ax.barh(np.arange(len(table)), widths, left=left, height=0.72, **style[part].bar)
        left = left + widths
    for place, total in enumerate(left):
        ax.annotate(f"{total:,.4g}", (total, place), (3, 0), textcoords="offset points", va="center", fontsize=7, color=INK)
    ax.set_yticks(np.arange(len(table)), [short(name) for name in table], fontsize=8)
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.set_xlabel(f"energy [{unit.name}]")
    ax.margins(x=0.1)
    titled(ax, "Energy by memory level and kind of action", note)
    legend_of(ax, {NAMES.get(part, part): style[part] for part in present})
    return ax
