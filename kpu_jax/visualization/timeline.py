"""A program's run as a Gantt chart: when each engine works, and what it waits for when it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from kpu_jax.analysis.run_analysis import check_run
from kpu_jax.base.errors import KPUError
from kpu_jax.base.units import unit_for
from kpu_jax.program import Engine, Timeline, Wait
from kpu_jax.visualization.style import INK, Look, check_drawable, legend_of, look, new_axes, titled

MOST_INTERVALS = 1500  # beyond, bars would be thinner than a pixel
BINS = 240
WORKING = Look("#4D4D4D", "", "s", "-")
WAITS = {
    Wait.OPERAND: ("waits for data", look(1)),
    Wait.BUFFER: ("waits for room", look(2)),
    Wait.ENGINE: ("waits for another engine", look(3)),
    Wait.BANDWIDTH: ("waits for memory bandwidth", look(5)),
    Wait.FINISHED: ("has nothing left to do", Look("#FFFFFF", "", "", "-")),
    Wait.NONE: ("waits for its start", look(7)),
}


def plot_timeline(timeline: Timeline, ax: Axes | None = None, *, start: float = 0.0, end: float | None = None) -> Axes:
    """Gantt chart of a `Timeline` (of `kpu.program.execute`) between `start` and `end` [fabric cycles].

    One lane per engine class: dark while it works, else filled by what it waits for. Of more than 1,500 intervals in the
    window each lane shows the shares of its time in 240 equal parts of the window instead. Returns the Axes.
    Raises `KPUError` for anything but a concrete timeline of one run, for one without instructions, and an empty window.
    """
    check_run("plot_timeline", timeline)
    makespan = float(timeline.makespan)
    low = check_drawable("start", start, "fabric cycles")
    high = makespan if end is None else check_drawable("end", end, "fabric cycles")
    if not makespan > low:
        raise KPUError(f"plot_timeline: the run ends at {makespan:g} [fabric cycles], so nothing happens after start = {low:g}")
    if not high > low:
        raise KPUError(f"plot_timeline: end must be after start, {low:g} [fabric cycles], got {high:g}")
    parts = _intervals(timeline)
    parts = {key: _cut(spans, low, min(high, makespan)) for key, spans in parts.items()}
    engines = sorted({engine for engine, _ in parts})
    count = sum(len(spans) for spans in parts.values())
    unit = unit_for([high], "cycles")
    ax = new_axes(ax, 10, 1.3 + 0.55 * len(engines))
    binned = count > MOST_INTERVALS
    for lane, engine in enumerate(engines):
        own = {cause: spans for (e, cause), spans in parts.items() if e == engine and len(spans)}
        (_draw_shares if binned else _draw_bars)(ax, lane, own, low, min(high, makespan), unit.factor)
    shares = [f"{100 * _total(parts, engine, None) / (min(high, makespan) - low):.0f} %" for engine in engines]
    names = [Engine(engine).name.lower().replace("_", " ") for engine in engines]
    ax.set_yticks(np.arange(len(engines)), [f"{name}\n{share} busy" for name, share in zip(names, shares, strict=True)], fontsize=8)
    ax.set_ylim(len(engines) - 0.5, -0.5)
    ax.set_xlim(low * unit.factor, high * unit.factor)
    ax.set_xlabel(f"time [{'fabric cycles' if unit.name == 'cycles' else unit.name + ' of the fabric'}]")
    width = (min(high, makespan) - low) / BINS
    note = f"{count:,} intervals, shown as shares of time in {BINS} parts of {width:,.4g} cycles" if binned else ""
    titled(ax, f"{len(timeline.start):,} instructions in {makespan:,.10g} fabric cycles", note)
    causes = [c for c in WAITS if any(len(spans) for (_, cause), spans in parts.items() if cause == c)]
    legend_of(ax, {"works": WORKING} | {WAITS[c][0]: WAITS[c][1] for c in causes})
    return ax


def _intervals(timeline: Timeline) -> dict[tuple[int, Any], np.ndarray]:
    """(engine, `Wait` or None for work) -> [interval, (begin, end)] in ascending order, touching ones joined."""
    found: dict[tuple[int, Any], np.ndarray] = {}
    for engine in sorted(set(timeline.engine.tolist()) - {Engine.CONTROL.value}):
        own = timeline.engine == engine
        found[engine, None] = _joined(timeline.start[own], (timeline.end - timeline.stall)[own])
    idle = timeline.idle()
    for engine, reason in sorted(set(zip(idle.engine.tolist(), idle.reason.tolist(), strict=True))):
        own = (idle.engine == engine) & (idle.reason == reason)
        found[engine, Wait(reason)] = _joined(idle.start[own], (idle.start + idle.length)[own])
    if not found:
        raise KPUError("plot_timeline: no engine has anything to do in this program: there is nothing to plot")
    return found


def _joined(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    order = np.argsort(begin, kind="stable")
    begin, end = begin[order], end[order]
    real = end > begin
    begin, end = begin[real], end[real]
    new = np.ones(len(begin), bool)
    new[1:] = begin[1:] > end[:-1] * (1 + 1e-12)
    last = np.ones(len(begin), bool)
    last[:-1] = new[1:]
    return np.stack([begin[new], end[last]], axis=1)


def _cut(spans: np.ndarray, low: float, high: float) -> np.ndarray:
    clipped = np.clip(spans, low, high)
    return clipped[clipped[:, 1] > clipped[:, 0]]


def _total(parts: dict[tuple[int, Any], np.ndarray], engine: int, cause: Any) -> float:
    spans = parts.get((engine, cause), np.zeros((0, 2)))
    return float((spans[:, 1] - spans[:, 0]).sum())


def _look_of(cause: Any) -> Look:
    return WORKING if cause is None else WAITS[cause][1]


def _draw_bars(ax: Axes, lane: int, own: dict[Any, np.ndarray], low: float, high: float, factor: float) -> None:
    for cause, spans in own.items():
        height = 0.7 if cause is None else 0.5
        pairs = [(b * factor, (e - b) * factor) for b, e in spans]
        style = _look_of(cause).bar | {"linewidth": 0.3 if len(spans) < 300 else 0.0}
        ax.broken_barh(pairs, (lane - height / 2, height), **style)


def _draw_shares(ax: Axes, lane: int, own: dict[Any, np.ndarray], low: float, high: float, factor: float) -> None:
    edges = np.linspace(low, high, BINS + 1)
    bottom = np.full(BINS, lane + 0.4)
    for cause in [None, *WAITS]:
        if cause not in own:
            continue
        share = np.diff(_covered(own[cause], edges)) / np.diff(edges)
        ax.fill_between(
            edges * factor, np.append(bottom, bottom[-1]), np.append(bottom - 0.8 * share, (bottom - 0.8 * share)[-1]), step="post",
            facecolor=_look_of(cause).colour, hatch=_look_of(cause).hatch, edgecolor=INK, linewidth=0.0,
        )  # fmt: skip
        bottom = bottom - 0.8 * share


def _covered(spans: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """[edge] how much of the spans, which do not overlap, lies before each edge."""
    total = np.concatenate([[0.0], np.cumsum(spans[:, 1] - spans[:, 0])])
    before = np.searchsorted(spans[:, 0], edges, side="right")
    inside = np.where(before > 0, np.minimum(edges, spans[before - 1, 1]) - spans[before - 1, 0], 0.0)
    return total[np.maximum(before - 1, 0)] + inside
