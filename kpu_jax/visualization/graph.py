"""The operations of a workload and what each reads, as a graph."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from kpu_jax.base.errors import KPUError
from kpu_jax.visualization.style import INK, Look, look, new_axes, short, titled
from kpu_jax.workload import Workload
from kpu_jax.workload.op import KINDS

MOST_NAMED = 60  # operations; beyond, chains of them are joined
MOST_BOXES = 150  # beyond, nodes are dots without names
COLUMN = 20  # layers below each other, before the drawing goes on in another column
LOOKS: dict[str, Look] = {kind: look((0, 1, 2)[i]) for i, kind in enumerate(KINDS)}


def plot_graph(workload: Workload, ax: Axes | None = None) -> Axes:
    """The operations of a `Workload` in layers, each below all that it reads; fill and marker: its kind.

    A step down is a step along the longest chain of operations; every 20 layers the drawing goes on in the next column. Of
    more than 60 operations, chains without branches are joined into one node ("n operations"); of more than 150 nodes then,
    nodes are dots without names. Host only. Returns the Axes. Raises `KPUError` for anything but a workload.
    """
    if not isinstance(workload, Workload):
        raise KPUError(f"plot_graph needs a Workload such as kpu.networks.resnet50() or kpu.trace(f, x), got {type(workload).__name__}")
    count = len(workload)
    kinds = [KINDS[int(k)] for k in np.asarray(workload.ops.kind)[list(workload.row_of)]]
    sources = [[int(p) for p in row if p >= 0] for row in np.asarray(workload.predecessors)]
    groups = _chains(sources, kinds) if count > MOST_NAMED else [[i] for i in range(count)]
    of = {i: g for g, members in enumerate(groups) for i in members}
    reads = [sorted({of[p] for p in sources[members[0]]} - {g}) for g, members in enumerate(groups)]
    layer = _layers(reads)
    x, y, columns, deepest = _places(layer)
    named = len(groups) <= MOST_BOXES
    ax = new_axes(ax, min(max(4, 1.3 * (x.max() + 1.4)), 24), min(max(3.2, 0.42 * (deepest + 2)), 16))
    for within in (True, False):
        pairs = [(p, g) for g, before in enumerate(reads) for p in before if (layer[p] // COLUMN == layer[g] // COLUMN) == within]
        lines = [[(x[p], y[p]), (x[g], y[g])] for p, g in pairs]
        style = {"linewidths": 1.1} if within else {"linewidths": 0.7, "linestyles": "dotted"}
        ax.add_collection(LineCollection(lines, colors="#888888", zorder=1, **style))
    for kind, each in LOOKS.items():
        own = [g for g, members in enumerate(groups) if kinds[members[0]] == kind]
        if not own:
            continue
        ax.plot(x[own], y[own], each.marker, color=each.colour, markeredgecolor=INK, markeredgewidth=0.4, label=kind, zorder=2,
                markersize=7 if named else 3.5)  # fmt: skip
        for g in own if named else []:
            members = groups[g]
            text = short(workload.names[members[0]], 17) + (f" +{len(members) - 1}" if len(members) > 1 else "")
            ax.annotate(text, (x[g], y[g]), (5, 0), textcoords="offset points", fontsize=6.5, va="center", zorder=3,
                        bbox={"boxstyle": "square,pad=0.05", "fc": "white", "ec": "none", "alpha": 0.7})  # fmt: skip
    ax.set_ylim(deepest + 0.7, -0.7)
    ax.set_xlim(-0.4, x.max() + 1.1)
    ax.set_xticks([])
    ax.set_yticks(np.arange(0, deepest + 1, max(1, (deepest + 1) // 10)) if columns == 1 else [])
    ax.set_ylabel("layer [operations below the first]" if columns == 1 else "layers, down and then right", fontsize=8)
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, frameon=False)
    joined = f"chains joined: {len(groups):,} nodes" if len(groups) < count else ""
    unnamed = "" if named else "too many to name"
    column = f"columns of {COLUMN} layers, dotted from one to another" if columns > 1 else ""
    titled(ax, f"{count:,} operations, {max(layer) + 1:,} layers", joined, unnamed, column)
    return ax


def _chains(sources: list[list[int]], kinds: list[str]) -> list[list[int]]:
    """Operations in groups: each but the first reads only the one before, whose only reader it is, and is of its kind."""
    readers = np.zeros(len(sources), int)
    for before in sources:
        for p in set(before):
            readers[p] += 1
    groups: list[list[int]] = []
    of: dict[int, int] = {}
    for i, before in enumerate(sources):
        unique = set(before)
        p = next(iter(unique), -1)
        if len(unique) == 1 and readers[p] == 1 and kinds[p] == kinds[i]:
            of[i] = of[p]
            groups[of[p]].append(i)
        else:
            of[i] = len(groups)
            groups.append([i])
    return groups


def _layers(reads: list[list[int]]) -> list[int]:
    layer: list[int] = []
    for before in reads:
        layer.append(1 + max((layer[p] for p in before), default=-1))
    return layer


def _places(layer: list[int]) -> tuple[np.ndarray, np.ndarray, int, int]:
    """(x, y) of every node, columns, layers of the fullest column."""
    seen: dict[int, int] = {}
    slot = []
    for depth in layer:
        slot.append(seen.get(depth, 0))
        seen[depth] = slot[-1] + 1
    columns = max(layer) // COLUMN + 1
    width = [max((seen[d] for d in range(c * COLUMN, (c + 1) * COLUMN) if d in seen), default=1) for c in range(columns)]
    left = np.concatenate([[0], np.cumsum(np.array(width) + 0.15)])
    x = np.array([left[depth // COLUMN] + s for depth, s in zip(layer, slot, strict=True)], float)
    y = np.array([depth % COLUMN for depth in layer], float)
    return x, y, columns, min(max(layer), COLUMN - 1)
