"""A sweep's chips by their fields: parallel coordinates, and slices along one field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize

from kpu_jax.base.errors import KPUError, check_choice
from kpu_jax.explore.sweep import SweepResult
from kpu_jax.visualization.style import FAINT, INK, SEQUENTIAL, VERMILION, look, new_axes, plain_log_ticks, thinned, titled
from kpu_jax.visualization.sweep_rows import RESULTS, Column, Row, fields_of, finite_column, rows_of, within

WHAT = "plot_sweep"
KINDS = ("parallel", "slice")
MOST_LINES = 300
MOST_FIELDS = 10  # vertical axes of fields
MOST_VALUES = 6  # tick labels of one vertical axis


def plot_sweep(
    result: SweepResult | Sequence[Row],
    ax: Axes | None = None,
    *,
    kind: str = "parallel",
    field: str | None = None,
    measure: str = "edp_js",
) -> Axes:
    """The chips of a sweep that were timed exactly, by their fields.

    `result`: of `kpu.sweep`, or the rows of its table (`analysis.sweep_table`). `kind`:

    - "parallel": one vertical axis per field that varies, then latency, energy and area; a line per chip, dark for little
      `measure`; thick: on the Pareto front. Of more than 300 lines an even choice by `measure` is shown, with the best; of
      more than 10 fields those along which the best chip's `measure` changes most.
    - "slice": `measure` over `field` (the first that varies): dots are chips, the line is the best one at each value. Chips
      beyond the limits are left out.

    `measure`: "latency_ms", "energy_mj", "edp_js", "area_mm2", "power_w" or "tdp_w". Returns the Axes. Raises `KPUError` for
    other data, no rows, no field that varies, unknown names, and no chip within the limits.
    """
    check_choice("kind", kind, KINDS)
    check_choice("measure", measure, RESULTS)
    rows = rows_of(WHAT, result)
    kept = [row for row, good in zip(rows, within(rows), strict=True) if good]
    if not kept:
        raise KPUError(f"{WHAT}: none of these chips keeps the limits in finite time: widen the limits")
    fields = fields_of(kept)
    if not fields:
        raise KPUError(f"{WHAT}: no field varies among these {len(kept)} rows: sweep over two values at least")
    if kind == "slice":
        return _slice(kept, check_choice("field", field, fields) if field else fields[0], measure, ax)
    return _parallel(kept, fields, measure, ax)


def _parallel(rows: list[Row], fields: list[str], measure: str, ax: Axes | None) -> Axes:
    goal, goal_label = finite_column(rows, measure)
    varied, fields = len(fields), _strongest(rows, fields, goal)
    columns = [*fields, *dict.fromkeys((Column.LATENCY, Column.ENERGY, Column.AREA, measure))]
    order = np.argsort(goal, kind="stable")
    shown = order[thinned(len(order), MOST_LINES)]
    table, labels = zip(*(finite_column(rows, column) for column in columns), strict=True)
    placed = np.array([_placed(values, column in fields) for values, column in zip(table, columns, strict=True)])
    front = np.array([bool(row.get("pareto", False)) for row in rows])
    logarithmic = goal.min() > 0 and goal.max() > 3 * goal.min()
    norm = LogNorm(goal.min(), goal.max()) if logarithmic else Normalize(goal.min(), goal.max() + 1e-300)
    ax = new_axes(ax, max(7.0, 1.25 * len(columns) + 1.5), 4.6)
    lines = [np.column_stack([np.arange(len(columns)), placed[:, i]]) for i in shown]
    widths = [2.2 if front[i] else 0.8 for i in shown]
    colours = colormaps[SEQUENTIAL](norm(goal[shown]))
    colours[:, 3] = np.where(front[shown], 0.95, 0.5)
    ax.add_collection(LineCollection(lines[::-1], colors=colours[::-1], linewidths=widths[::-1], zorder=2))
    best = order[0]
    ax.plot(np.arange(len(columns)), placed[:, best], "o--", color=VERMILION, markersize=6, zorder=4,
            label=f"least {goal_label.split(' [')[0]}: chip {rows[best].get('chip', best)}")  # fmt: skip
    for x, (column, values) in enumerate(zip(columns, table, strict=True)):
        ax.axvline(x, color=INK, linewidth=0.8, zorder=1)
        for value, y in _ticks(values, placed[x], column in fields):
            ax.annotate(f"{value:.4g}", (x, y), (3, 0), textcoords="offset points", fontsize=7, va="center", zorder=5,
                        bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75})  # fmt: skip
    names = [label.replace(" [", "\n[") for label in labels]
    names = ["\n".join([" ".join(_wrapped(n.split("\n")[0])), n.split("\n")[1]]) for n in names]
    ax.set_xticks(np.arange(len(columns)), names, fontsize=7.5)
    ax.set_yticks([])
    ax.set_xlim(-0.15, len(columns) - 0.55)
    ax.set_ylim(-0.05, 1.12)
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)
    bar = ax.get_figure().colorbar(ScalarMappable(norm, SEQUENTIAL), ax=ax, label=goal_label, pad=0.01)  # type: ignore[union-attr]
    if logarithmic:
        plain_log_ticks(bar.ax.yaxis, goal.min(), goal.max())
    thin = f"{len(shown)} of {len(rows):,} shown" if len(shown) < len(rows) else ""
    cut = f"the {len(fields)} strongest of {varied} fields" if len(fields) < varied else ""
    titled(ax, f"{len(rows):,} mapped chips within the limits", thin, cut, "thick: on the Pareto front" if front.any() else "")
    ax.legend(fontsize=8, loc="upper left")
    return ax


def _strongest(rows: list[Row], fields: list[str], goal: np.ndarray) -> list[str]:
    """Of more fields than fit, those along which the least goal changes most, in their order."""
    if len(fields) <= MOST_FIELDS:
        return fields

    def change(field: str) -> float:
        distinct, place = np.unique(finite_column(rows, field)[0], return_inverse=True)
        return float(np.ptp([goal[place == i].min() for i in range(len(distinct))]))

    kept = sorted(fields, key=change, reverse=True)[:MOST_FIELDS]
    return [field for field in fields if field in kept]


def _wrapped(text: str) -> list[str]:
    """Words, a long name broken in two lines."""
    words = text.split()
    if len(text) > 12 and len(words) > 1:
        half = (len(words) + 1) // 2
        return [" ".join(words[:half]) + "\n" + " ".join(words[half:])]
    return words


def _placed(values: np.ndarray, ranked: bool) -> np.ndarray:
    """[row] height 0..1: fields by rank of their values, results by size, logarithmic if they span much."""
    if ranked:
        distinct, rank = np.unique(values, return_inverse=True)
        return rank / max(len(distinct) - 1, 1)
    if values.min() > 0 and values.max() > 10 * values.min():
        values = np.log(values)
    return (values - values.min()) / (np.ptp(values) or 1.0)


def _ticks(values: np.ndarray, placed: np.ndarray, ranked: bool) -> list[tuple[float, float]]:
    """(value, height) of the labels on one vertical axis."""
    distinct, first = np.unique(values, return_index=True)
    if not ranked:
        wanted = np.linspace(0, 1, 4)
        picked = sorted({int(np.argmin(np.abs(placed[first] - w))) for w in wanted})
        kept = [picked[0]]
        for i in picked[1:]:
            if placed[first[i]] - placed[first[kept[-1]]] > 0.06:
                kept.append(i)
        return [(float(distinct[i]), float(placed[first[i]])) for i in kept]
    return [(float(distinct[i]), float(placed[first[i]])) for i in thinned(len(distinct), MOST_VALUES)]


def _slice(rows: list[Row], field: str, measure: str, ax: Axes | None) -> Axes:
    (x, x_label), (y, y_label) = finite_column(rows, field), finite_column(rows, measure)
    values = np.unique(x)
    best = np.array([y[x == v].min() for v in values])
    ax = new_axes(ax, 6.5, 4.2)
    dots: dict[str, Any] = {"color": FAINT, "markeredgecolor": "#777777", "markeredgewidth": 0.5, "markersize": 4}
    ax.plot(x, y, "o", label="chips", rasterized=len(rows) > 2000, **dots)
    ax.plot(values, best, "s-", color=look(0).colour, label="best at each value")
    if values[0] > 0 and values[-1] >= 8 * values[0]:
        ax.set_xscale("log")
    ticks = values[thinned(len(values), 8)]
    ax.set_xticks(ticks, [f"{v:g}" for v in ticks])
    ax.xaxis.minorticks_off()
    if y.min() > 0 and y.max() > 10 * y.min():
        ax.set_yscale("log")
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    titled(ax, f"{len(rows):,} mapped chips within the limits")
    return ax
