"""The Pareto front of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from kpu_jax.base.errors import KPUError
from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.explore.sweep import SweepResult
from kpu_jax.visualization.style import FAINT, INK, SEQUENTIAL, VERMILION, new_axes, plain_log_ticks, thinned, titled
from kpu_jax.visualization.sweep_rows import Column, Row, column_of, rows_of, shown_column, within

MOST_DOTS = 5000
BEST = {"latency": (Column.LATENCY, "<", 17), "energy": (Column.ENERGY, "v", 13), "edp": (Column.EDP, "*", 10)}


def plot_pareto(result: SweepResult | Sequence[Row], ax: Axes | None = None) -> Axes:
    """Latency against energy of the chips of a sweep, timed exactly; colour is area.

    `result`: of `kpu.sweep`, or the rows of its table (`analysis.sweep_table`, table.csv). Circles: chips within the limits,
    joined along the (latency, energy) front; crosses: beyond them; larger marks: the best chip per objective.
    Small dots, if it is a result: chips on the front over (latency, energy, area) by the lower bound, 5,000 at most.
    Returns the Axes. Raises `KPUError` for other data, no rows, and no chip within the limits.
    """
    rows = rows_of("plot_pareto", result)
    (time, time_label), (energy, energy_label) = (shown_column(rows, c) for c in (Column.LATENCY, Column.ENERGY))
    area = column_of(rows, Column.AREA)
    meets = within(rows)
    if not meets.any():
        raise KPUError("plot_pareto: none of these chips keeps the limits in finite time: widen the limits")
    ax = new_axes(ax, 7.5, 5)
    points = result.summary.front_points if isinstance(result, SweepResult) else np.zeros((0, 3))
    points = points[thinned(len(points), MOST_DOTS)]
    points = points * [_times(time, rows, Column.LATENCY) * 1e3, _times(energy, rows, Column.ENERGY) * 1e-9, 1.0]
    areas = np.concatenate([points[:, 2], area[meets]])
    low, high = float(areas.min()), float(areas.max())
    colours: dict[str, Any] = {"cmap": SEQUENTIAL, "vmin": low, "vmax": high if high > low else low * 1.01 + 1e-12}
    ax.scatter(points[:, 0], points[:, 1], 8, points[:, 2], alpha=0.5, linewidths=0, **colours)
    circles = ax.scatter(time[meets], energy[meets], 50, area[meets], edgecolors=INK, linewidths=0.6, zorder=3, **colours)
    beyond = ~meets & np.isfinite(time) & np.isfinite(energy)
    if beyond.any():
        ax.plot(time[beyond], energy[beyond], "x", color=FAINT, markersize=5, zorder=1, label="beyond the limits")
    front = _front(time, energy, meets)
    ax.plot(time[front], energy[front], color=INK, linewidth=1, zorder=2, label="front of exact (latency, energy)")
    for name in OBJECTIVES:
        column, mark, size = BEST[name]
        i = int(np.argmin(np.where(meets, column_of(rows, column), np.inf)))
        ax.plot(time[i], energy[i], mark, color=VERMILION, markersize=size, markeredgecolor="white", zorder=4, linestyle="none",
                label=f"best {name}: chip {rows[i].get('chip', i)}")  # fmt: skip
    everything = np.concatenate([time[meets | beyond], points[:, 0]])
    if everything.min() > 0 and everything.max() > 3 * everything.min():
        ax.set_xscale("log")
        plain_log_ticks(ax.xaxis, everything.min(), everything.max())
    heights = np.concatenate([energy[meets | beyond], points[:, 1]])
    if heights.min() > 0 and heights.max() > 10 * heights.min():
        ax.set_yscale("log")
        plain_log_ticks(ax.yaxis, heights.min(), heights.max())
    ax.set(xlabel=time_label, ylabel=energy_label)
    ax.margins(0.08)
    small = f"dots: {len(points):,} on the front by lower bound" if len(points) else ""
    chips = result.summary.chips if isinstance(result, SweepResult) else len({str(row.get("chip", i)) for i, row in enumerate(rows)})
    titled(ax, f"{chips:,} chips" + ("" if isinstance(result, SweepResult) else ", timed exactly"), small, "circles: by exact time")
    ax.get_figure().colorbar(circles, ax=ax, label="area [mm$^2$]")  # type: ignore[union-attr]
    ax.grid(alpha=0.3, which="both")
    ax.legend(fontsize=8)
    return ax


def _times(shown: np.ndarray, rows: Sequence[Row], column: str) -> float:
    """The factor from a table's column to what is drawn."""
    values = column_of(rows, column)
    i = int(np.argmax(np.where(np.isfinite(values), values, -1.0)))
    return float(shown[i] / values[i]) if values[i] else 1.0


def _front(time: np.ndarray, energy: np.ndarray, meets: np.ndarray) -> list[int]:
    """Indices of the points that none is better than in both, fastest first."""
    front: list[int] = []
    for i in np.lexsort((energy, np.where(meets, time, np.inf)))[: meets.sum()].tolist():
        if not front or energy[i] < energy[front[-1]]:
            front.append(i)
    return front
