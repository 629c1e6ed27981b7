"""The roofline of a chip: one roof per memory level, and where operations lie under it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from kpu_jax.analysis.roofline import Roofline
from kpu_jax.base.errors import KPUError
from kpu_jax.base.units import unit_for
from kpu_jax.visualization.style import INK, look, new_axes, plain_log_ticks, short, titled

NAMES = {"host": "host link", "dram": "external memory", "l3": "L3 (block movers)", "l2": "L2 (streamers)"}
MOST_NAMED = 6
MOST_SOLID = 60  # operations; beyond, points are drawn faint


def plot_roofline(roofline: Roofline, ax: Axes | None = None) -> Axes:
    """Achieved operations per second over operations per byte, on logarithmic axes, from `kpu.analysis.roofline`.

    One sloped roof per memory level that carries bytes, and a flat one per peak (number format). Every operation has a
    point per level, at its intensity there, with the level's colour and marker; a point's distance to the roof of its own
    colour is what that level has left. The six that do most are named. Vector operations, which do no multiply-adds, are
    left out. Returns the Axes. Raises `KPUError` for other data, and where no operation multiplies.
    """
    if not isinstance(roofline, Roofline):
        raise KPUError(f"plot_roofline needs what kpu.analysis.roofline(chip, workload, report) gives, got {type(roofline).__name__}")
    for name in ("bandwidth", "peak", "performance"):
        if not np.isfinite(getattr(roofline, name)).all():
            raise KPUError(f"plot_roofline: {name} must be finite everywhere: give what kpu.analysis.roofline gave")
    if np.isnan(roofline.intensity).any():
        raise KPUError("plot_roofline: intensity is nan somewhere: give what kpu.analysis.roofline gave")
    shown = np.flatnonzero(roofline.performance > 0)
    if not len(shown):
        raise KPUError("plot_roofline: no operation multiplies and adds: there is no point to plot")
    levels = [i for i in range(len(roofline.levels)) if np.isfinite(roofline.intensity[i, shown]).any()]
    if not levels:
        raise KPUError("plot_roofline: no level carries any bytes: there is no intensity to plot")
    peaks = np.unique(roofline.peak[shown])
    unit = unit_for(peaks, "op/s")
    everything = roofline.intensity[levels][:, shown]
    finite = everything[np.isfinite(everything)]
    ridges = [peaks.max() / roofline.bandwidth[i] for i in levels]
    low, high = min(finite.min(), *ridges) / 3, max(finite.max(), *ridges) * 3
    ax = new_axes(ax, 7.8, 4.8)
    x = np.geomspace(low, high, 200)
    for place, i in enumerate(levels):
        each = look(place)
        roof = np.minimum(peaks.max(), roofline.bandwidth[i] * x) * unit.factor
        rate = unit_for([roofline.bandwidth[i]], "B/s")
        name = f"{NAMES.get(roofline.levels[i], roofline.levels[i])}: {roofline.bandwidth[i] * rate.factor:,.4g} {rate.name}"
        ax.plot(x, roof, color=each.colour, linestyle=each.line, linewidth=1.6, zorder=2)
        ax.plot(roofline.intensity[i, shown], roofline.performance[shown] * unit.factor, each.marker, color=each.colour,
                markeredgecolor=INK, markeredgewidth=0.4, markersize=7 if len(shown) <= MOST_SOLID else 4,
                alpha=1.0 if len(shown) <= MOST_SOLID else 0.4, zorder=3)  # fmt: skip
        ax.plot([], [], color=each.colour, linestyle=each.line, marker=each.marker, markersize=6, label=name)
    for peak in peaks:
        ax.axhline(peak * unit.factor, color=INK, linewidth=0.8, zorder=1)
        text = f"peak {peak * unit.factor:,.4g} {unit.name}"
        ax.annotate(text, (low, peak * unit.factor), (4, 3), textcoords="offset points", fontsize=8)
    _name_points(ax, roofline, shown, levels[0], unit.factor)
    ax.set(xscale="log", yscale="log", xlim=(low, high), xlabel="intensity [op per byte carried at the level]")
    least = roofline.performance[shown].min()
    ax.set_ylim(min(least / 3, peaks.max() / 30) * unit.factor, peaks.max() * 2.2 * unit.factor)
    plain_log_ticks(ax.xaxis, low, high)
    plain_log_ticks(ax.yaxis, *ax.get_ylim())
    ax.set_ylabel(f"achieved [{unit.name}]")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, loc="lower right")
    some = f"{min(MOST_NAMED, len(shown))} of {len(shown):,} operations named" if len(shown) > MOST_NAMED else ""
    titled(ax, "Roofline: a point per operation and level, under the roof of its colour", some)
    return ax


def _name_points(ax: Axes, roofline: Roofline, shown: np.ndarray, level: int, factor: float) -> None:
    """Names at the outermost level's points, of the operations that perform most; none on top of another."""
    taken: list[float] = []
    for i in shown[np.argsort(-roofline.performance[shown], kind="stable")]:
        height = np.log10(roofline.performance[i])
        if len(taken) == MOST_NAMED or not np.isfinite(roofline.intensity[level, i]):
            continue
        if all(abs(height - other) > 0.08 for other in taken):
            taken.append(height)
            ax.annotate(short(roofline.names[i], 18), (roofline.intensity[level, i], roofline.performance[i] * factor), (0, -11),
                        textcoords="offset points", fontsize=7, ha="center")  # fmt: skip
