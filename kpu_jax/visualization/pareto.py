"""The Pareto front of a sweep."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from kpu_jax.base.errors import KPUError
from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.explore.sweep import SweepResult

MARKS = dict(zip(OBJECTIVES, "<v*", strict=True))


def plot_pareto(result: SweepResult, ax: Axes | None = None) -> Axes:
    """Latency against energy of the chips of a sweep; colour is area.

    Small dots: chips on the front by the lower bound. Large ones: chips timed exactly that meet the
    constraints, joined along the exact (latency, energy) front; marks for the best chip per objective.
    """
    if not isinstance(result, SweepResult):
        raise KPUError(f"plot_pareto needs the result of kpu.sweep, got {type(result).__name__}")
    ax = plt.subplots(figsize=(7.5, 5))[1] if ax is None else ax
    r, points = result.retimed, result.summary.front_points
    meets = r.meets
    areas = np.concatenate([points[:, 2], r.area_mm2[meets]])
    colours = {"cmap": "viridis", "vmin": areas.min(), "vmax": areas.max()}
    dots = ax.scatter(points[:, 0] * 1e3, points[:, 1] * 1e-9, 8, points[:, 2], alpha=0.5, linewidths=0, **colours)
    ax.scatter(
        r.seconds[meets] * 1e3, r.energy_pj[meets] * 1e-9, 55, r.area_mm2[meets], edgecolors="black", linewidths=0.6, zorder=3, **colours
    )
    order = np.argsort(np.where(meets, r.seconds, np.inf), kind="stable")[: meets.sum()]
    front = [i for n, i in enumerate(order) if n == 0 or r.energy_pj[i] < r.energy_pj[order[:n]].min()]
    ax.plot(r.seconds[front] * 1e3, r.energy_pj[front] * 1e-9, color="black", linewidth=1, zorder=2, label="exact front (latency, energy)")
    for name in OBJECTIVES:
        i, _ = r.best(name)
        ax.plot(
            r.seconds[i] * 1e3, r.energy_pj[i] * 1e-9, MARKS[name], color="crimson", markersize=13, markeredgecolor="white", zorder=4,
            label=f"best {name}: chip {r.ids[i]}", linestyle="none",
        )  # fmt: skip
    ax.set(xscale="log", xlabel="latency [ms]", ylabel="energy [mJ]")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title(f"{result.summary.chips:,} chips: dots by lower bound, circles by exact time")
    ax.get_figure().colorbar(dots, ax=ax, label="area [mm$^2$]")  # type: ignore[union-attr]
    ax.grid(alpha=0.3, which="both")
    ax.legend(fontsize=8)
    return ax
