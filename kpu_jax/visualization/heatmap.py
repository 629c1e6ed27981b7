"""Memories and PEs as heat maps: bytes by memory, over time, and what the PE grid does, also as an animation."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from kpu_jax.analysis.occupancy import movement, occupancy
from kpu_jax.analysis.run_analysis import check_run
from kpu_jax.base.errors import KPUError, check_choice, check_number, is_number, shown
from kpu_jax.base.units import unit_for
from kpu_jax.machine import Activity, Run
from kpu_jax.model.report import Report, check_report
from kpu_jax.model.traffic import LEVELS, OPERANDS
from kpu_jax.program import Program, Timeline
from kpu_jax.visualization.style import SEQUENTIAL, new_axes, plain_log_ticks, titled

WHAT = "plot_memory_heatmap"
SHOWS = ("occupancy", "movement")
MOST_FRAMES = 2000


def plot_memory_heatmap(
    data: Report | Program, timeline: Timeline | None = None, ax: Axes | None = None, *, show: str = "occupancy", bins: int = 200
) -> Axes:
    """Bytes of the memories as a heat map.

    Of a report: bytes read and written, memory level x operand, with the numbers in the cells. Of a program and its
    `timeline` (`kpu.program.execute`): over time, by `show`: "occupancy", the mean bytes that each place of an operand in
    L3, L2 and L1 holds (double buffers are two places, all banks and compute tiles together); or "movement", the
    mean bytes per fabric cycle on each path between memories. Time is cut into `bins` equal parts. Returns the Axes.
    Raises `KPUError` for other data, infeasible reports and timelines of another program.
    """
    check_choice("show", show, SHOWS)
    if isinstance(data, Report):
        return _levels(check_report(WHAT, data), ax)
    if not isinstance(data, Program) or timeline is None:
        raise KPUError(f"{WHAT} needs a report, or a program and its timeline (kpu.program.execute), got {type(data).__name__}")
    check_run(WHAT, timeline)
    grid = (occupancy if show == "occupancy" else movement)(data, timeline, bins)
    if not grid.rows:
        raise KPUError(f"{WHAT}: this program moves no block: there is nothing to show")
    most = grid.values.max(axis=1)
    shares = 100 * grid.values / np.where(most > 0, most, 1.0)[:, None]
    ax = new_axes(ax, 9, 1.6 + 0.27 * len(grid.rows))
    image = ax.pcolormesh(grid.edges, np.arange(len(grid.rows) + 1) - 0.5, shares, cmap=SEQUENTIAL, vmin=0, vmax=100)
    image.set_rasterized(True)
    per = "/cycle" if show == "movement" else ""
    ax.set_yticks(np.arange(len(grid.rows)), [f"{row}: {_size(size)}{per}" for row, size in zip(grid.rows, most, strict=True)], fontsize=8)
    ax.set_ylim(len(grid.rows) - 0.5, -0.5)
    for row in range(1, len(grid.rows)):
        if _group(grid.rows[row], show) != _group(grid.rows[row - 1], show):
            ax.axhline(row - 0.5, color="white", linewidth=1.5)
    ax.set_xlabel("time [fabric cycles]")
    ax.get_figure().colorbar(image, ax=ax, label="share of the row's most [%]", pad=0.02)  # type: ignore[union-attr]
    width = (grid.edges[1] - grid.edges[0]).item()
    title = "What the memories hold" if show == "occupancy" else "What moves between memories"
    titled(ax, title, f"means over {width:,.4g} cycles; at each row its most")
    return ax


def _size(size: float) -> str:
    unit = unit_for([size], "B")
    return f"{size * unit.factor:,.3g} {unit.name}"


def _group(row: str, show: str) -> str:
    """Rows of one memory, or of one path, stand together."""
    return row.split()[0] if show == "occupancy" else row.split(",")[0]


def _levels(report: Report, ax: Axes | None) -> Axes:
    table = np.array([[float(report.traffic[level][x]) for x in OPERANDS] for level in LEVELS])
    if not table.any():
        raise KPUError(f"{WHAT}: this report has no traffic")
    ax = new_axes(ax, 6, 4)
    unit = unit_for(table, "B")
    shown = np.where(table > 0, table, np.nan) * unit.factor
    low, high = np.nanmin(shown), np.nanmax(shown)
    norm = LogNorm(low, high if high > low else low * 10)
    image = ax.imshow(shown, cmap=SEQUENTIAL, norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(shown):
        dark = np.isfinite(value) and norm(value) < 0.55
        text = f"{value:,.3g}" if np.isfinite(value) else "0"
        ax.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    ax.set_xticks(np.arange(len(OPERANDS)), OPERANDS)
    ax.set_yticks(np.arange(len(LEVELS)), [level.upper() for level in LEVELS])
    ax.set(xlabel="operand", ylabel="memory level")
    bar = ax.get_figure().colorbar(image, ax=ax, label=f"read and written [{unit.name}]")  # type: ignore[union-attr]
    if high > 3 * low:
        plain_log_ticks(bar.ax.yaxis, low, high)
    titled(ax, f"Traffic: {table.sum() * unit.factor:,.4g} {unit.name} in all")
    return ax


def plot_pe_activity(data: Run | Activity | Any, ax: Axes | None = None) -> Axes:
    """Multiply-adds of every PE over a run, as a heat map [rows, cols] of the grid.

    `data`: a `machine.Run`, an `Activity` (`machine.wave`, summed over its cycles) or an array [rows, cols].
    Returns the Axes. Raises `KPUError` for anything else.
    """
    fired = _fired(data)
    grid = fired.sum(0) if fired.ndim == 3 else fired
    ax = new_axes(ax, 5.2, 4.4)
    image = ax.imshow(grid, cmap=SEQUENTIAL, vmin=0, vmax=max(float(grid.max()), 1.0), origin="upper")
    _label_grid(ax, grid.shape)
    ax.get_figure().colorbar(image, ax=ax, label="multiply-adds")  # type: ignore[union-attr]
    idle = float((grid == 0).mean())
    titled(ax, f"{grid.sum():,.0f} multiply-adds", f"{100 * idle:.0f} % of the PEs never fire" if idle else "")
    return ax


def animate_wave(activity: Activity | Any, ax: Axes | None = None, *, interval_ms: float = 80.0) -> FuncAnimation:
    """The wave of one pass through the PE grid, a frame per cycle: `activity` of `machine.wave`, or [cycle, rows, cols].

    Returns a matplotlib `FuncAnimation`: `HTML(animation.to_jshtml())` in a notebook, `animation.save("wave.gif")` in a
    file. Of more than 2,000 cycles every n-th is a frame. Keep the animation in a variable while it runs.
    Raises `KPUError` for arrays of another shape.
    """
    fired = _fired(activity)
    if fired.ndim != 3:
        raise KPUError(f"animate_wave needs activity over time [cycle, rows, cols], got shape {fired.shape}: kpu.machine.wave gives it")
    pause = check_number("interval_ms", interval_ms, "ms per frame", low=1, high=1e6)
    every = -(-len(fired) // MOST_FRAMES)
    ax = new_axes(ax, 4.6, 4.6)
    image = ax.imshow(fired[0], cmap=SEQUENTIAL, vmin=0, vmax=max(float(fired.max()), 1.0), origin="upper")
    _label_grid(ax, fired.shape[1:])
    total = fired.sum((1, 2)).cumsum()
    peak = fired.max() * fired[0].size

    def draw(frame: int) -> Any:
        cycle = frame * every
        image.set_data(fired[cycle])
        busy = 100 * fired[cycle].sum() / max(peak, 1)
        done = f"{busy:.0f} % of the array fires, {total[cycle]:,.10g} multiply-adds so far"
        ax.set_title(f"cycle {cycle + 1} of {len(fired)}: {done}", fontsize=8)
        return (image,)

    draw(0)
    frames = len(range(0, len(fired), every))
    return FuncAnimation(ax.get_figure(), draw, frames=frames, interval=pause, blit=False)  # type: ignore[arg-type]


def _fired(data: Any) -> np.ndarray:
    found = data.fired if isinstance(data, (Run, Activity)) else data
    if not is_number(found) or np.ndim(found) not in (2, 3) or not np.size(found):
        raise KPUError(
            f"the activity of PEs is a kpu.machine.Run, what kpu.machine.wave gives, or an array [rows, cols] or [cycle, rows, cols] "
            f"of multiply-adds; got {type(data).__name__} {shown(data)}"
        )
    fired = np.asarray(found)
    if not (np.isfinite(fired).all() and fired.min() >= 0):
        raise KPUError("the activity of PEs must be finite and at least 0 [multiply-adds] everywhere")
    return fired


def _label_grid(ax: Axes, shape: tuple[int, ...]) -> None:
    ax.set(xlabel="column of the array [PE]", ylabel="row of the array [PE]")
    for axis, size in ((ax.yaxis, shape[0]), (ax.xaxis, shape[1])):
        axis.set_ticks(np.arange(0, size, -(-size // 8)))
        axis.set_ticks(np.arange(1, size) - 0.5, minor=True)
    ax.tick_params(which="minor", length=0)
    if max(shape) <= 64:
        ax.grid(which="minor", color="#777777", linewidth=0.4)
