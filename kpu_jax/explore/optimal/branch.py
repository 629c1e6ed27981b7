"""Sets of mappings, split until each is a single one, and dropped where their bound says that none can win.

A node is a set of mappings: along each axis a range of tiles (`ranges`), and loop orders and bufferings, chosen or not.
Its bound holds for all its mappings. A branch holds the nodes of one dataflow and one partition; one step splits all
of them in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kpu_jax.base.pytree import build
from kpu_jax.explore.optimal.axis_counts import AxisCounts
from kpu_jax.explore.optimal.objective import Objective
from kpu_jax.explore.optimal.orders import FREE, Choices, distinct_orders
from kpu_jax.explore.optimal.problem import Problem
from kpu_jax.explore.optimal.ranges import LEVELS, AxisTree, Ranges
from kpu_jax.explore.optimal.time_bound import bound_cycles
from kpu_jax.explore.optimal.traffic_bound import Axes, Partition, bound_traffic, may_fit
from kpu_jax.mapping import ORDERS, PASS_ORDERS, Mapping

Array = np.ndarray
CHUNK = 1 << 14  # nodes bounded at once: their counts stay in the caches
ROUNDING = 1e-9  # relative: bounds are lowered by it, as they round otherwise than exact values
AXES = 3  # the first rows of nodes: ranges of m, n, k; then one row for each of `Choices`
# Splits down to numbers of blocks and choices, by the name of a choice or the number of an axis; then to single mappings.
TO_BLOCKS = ("l3_order", 0, 1, 2, "double_l3", 0, 1, 2, "l2_order", "pass_order", "double_l2", 0, 1, 2, "double_l1")
TO_PAIRS = (1, 2, 0, 1, 2, 0)


class Branch(NamedTuple):
    """The nodes of a dataflow and a partition."""

    p: Problem
    goal: Objective
    flow: int
    parts: Partition
    trees: tuple[AxisTree, ...]  # [axis]
    pins: dict[str, float]
    level: tuple[int, ...]  # [axis]: of its ranges
    ranges: tuple[Ranges, ...]  # [axis]
    nodes: Array  # int [row, node]
    bounds: Array  # [node]: on the objective, at least

    def where(self, keep: Array) -> Branch:
        return self._replace(nodes=self.nodes[:, keep], bounds=self.bounds[keep])

    @property
    def single(self) -> bool:
        """Is every node one mapping?"""
        return self.level == (LEVELS,) * AXES


class Step(NamedTuple):
    branch: Branch
    bounded: int  # nodes that were bounded


def root_of(p: Problem, goal: Objective, flow: int, parts: Partition, trees: tuple[AxisTree, ...], pins: dict[str, float]) -> Branch:
    """All mappings of a dataflow and a partition that keep the pins: groups of L3 tiles, nothing else chosen."""
    ranges = tuple(tree.root for tree in trees)
    groups = np.indices([len(r.l3) for r in ranges]).reshape(AXES, -1)
    nodes = np.concatenate([groups, np.full((len(Choices._fields), groups.shape[1]), FREE)])
    root = Branch(p, goal, flow, parts, trees, pins, (0,) * AXES, ranges, nodes, np.zeros(groups.shape[1]))
    return root._replace(bounds=bounds_of(root, nodes))


def bounds_of(branch: Branch, nodes: Array) -> Array:
    """The least objective of all mappings of these nodes that fit; infinite if none can."""
    counts, columns = zip(*(r.counts(at) for r, at in zip(branch.ranges, nodes, strict=False)), strict=True)
    axes, choices = Axes(*counts, *columns), Choices(*nodes[AXES:])
    p, flow, parts = branch.p, branch.flow, branch.parts
    moved, pj = bound_traffic(p, flow, parts, axes, choices, branch.single)
    cycles = bound_cycles(p, flow, parts, axes, choices, moved, branch.single)
    value = branch.goal.at(cycles * p.seconds_per_cycle, pj + p.pj_per_cycle * cycles) * (1 - ROUNDING)
    return np.where(may_fit(p, flow, parts, axes, choices, moved), value, np.inf)


def _fitting(branch: Branch, nodes: Array) -> Array:
    counts, columns = zip(*(r.counts(at) for r, at in zip(branch.ranges, nodes, strict=False)), strict=True)
    return may_fit(branch.p, branch.flow, branch.parts, Axes(*counts, *columns), Choices(*nodes[AXES:]))


def bounded(branch: Branch, parts: Iterator[Array], below: float) -> Step:
    """The nodes of all parts with a bound below `below`."""
    kept, bounds, count = [branch.nodes[:, :0]], [np.zeros(0)], 0
    for nodes in parts:
        for start in range(0, nodes.shape[1], CHUNK):
            part = nodes[:, start : start + CHUNK]
            value = bounds_of(branch, part)
            count += len(value)
            wins = value < below
            kept.append(part[:, wins])
            bounds.append(value[wins])
    return Step(branch._replace(nodes=np.concatenate(kept, axis=1), bounds=np.concatenate(bounds)), count)


def split(branch: Branch, by: str | int, below: float) -> Step:
    """Split every node by a choice (its name) or along an axis (its number), and drop what is not below `below`."""
    if isinstance(by, int):
        return _split_ranges(branch, by, below)
    row = AXES + Choices._fields.index(by)

    def parts() -> Iterator[Array]:
        options = _options(branch, by)
        for start in range(0, branch.nodes.shape[1], CHUNK):
            nodes, allowed = branch.nodes[:, start : start + CHUNK], options[:, start : start + CHUNK]
            for code in range(len(allowed)):
                chosen = nodes[:, allowed[code]]
                chosen[row] = code
                yield chosen

    return bounded(branch, parts(), below)


def _split_ranges(branch: Branch, axis: int, below: float) -> Step:
    at, inverse = np.unique(branch.nodes[axis], return_inverse=True)
    if not len(at):
        return Step(branch, 0)
    level = branch.level[axis]
    ranges, starts, ends = branch.trees[axis].children(level, branch.ranges[axis], at)
    split_branch = branch._replace(
        ranges=_with(branch.ranges, axis, ranges),
        level=_with(branch.level, axis, level + 1),
    )
    sizes = (ends - starts)[inverse]

    def parts() -> Iterator[Array]:
        stops = np.searchsorted(np.cumsum(sizes), np.arange(CHUNK, sizes.sum() + CHUNK, CHUNK))
        first = 0
        for stop in np.unique(np.minimum(stops + 1, len(sizes))):
            size = sizes[first:stop]
            nodes = np.repeat(branch.nodes[:, first:stop], size, axis=1)
            offset = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
            nodes[axis] = np.repeat(starts[inverse[first:stop]], size) + offset
            first = stop
            yield nodes

    return bounded(split_branch, parts(), below)


def _with(values: tuple, at: int, value: Any) -> tuple:
    return (*values[:at], value, *values[at + 1 :])


def _options(branch: Branch, choice: str) -> Array:
    """[code, node] bool: the codes that make a difference, by what is chosen already."""
    nodes = branch.nodes
    trips = [r.table[0][at] for r, at in zip(branch.ranges, nodes, strict=False)]  # over L3 blocks
    if choice in branch.pins:
        code = int(branch.pins[choice])
        return np.broadcast_to(np.arange(code + 1)[:, None] == code, (code + 1, nodes.shape[1]))
    blocks = [r.low[at] < np.ceil(r.l3[at] / part) for r, at, part in zip(branch.ranges, nodes, branch.parts[1:4], strict=False)]
    column = AxisCounts._fields.index("most_passes")
    passes = [r.table[column][at] > 1 for r, at in zip(branch.ranges, nodes, strict=False)]
    one_l3 = (trips[0] * trips[1] * trips[2] <= 1) & (branch.parts.batch_steps <= 1)
    if choice == "double_l3":
        return np.stack([np.ones_like(one_l3), ~one_l3])
    if choice == "double_l2":
        return np.stack([np.ones_like(one_l3), ~one_l3 | blocks[0] | blocks[1] | blocks[2]])
    if choice == "double_l1":
        return np.ones((2, nodes.shape[1]), bool)
    if choice == "pass_order":
        # Vector operations have one pass per block; for them any order does.
        across = ["mnk".index(axis) for axis in PASS_ORDERS[2 * branch.flow]]
        allowed = np.zeros((len(PASS_ORDERS), nodes.shape[1]), bool)
        allowed[2 * branch.flow] = True
        allowed[2 * branch.flow + 1] = passes[across[0]] & passes[across[1]]
        return allowed
    iterates = [t > 1 for t in trips] if choice == "l3_order" else blocks
    mask = iterates[0] + 2 * iterates[1] + 4 * iterates[2]
    allowed = np.zeros((len(ORDERS), nodes.shape[1]), bool)
    for present in np.unique(mask):
        allowed[np.ix_(np.array(distinct_orders(ORDERS, int(present))), np.flatnonzero(mask == present))] = True
    return allowed


def likely(branch: Branch) -> Branch:
    """One promising mapping of every node, as nodes of single mappings, with their bounds (infinite: none that fits)."""
    tiles = [tree.likely(r, at) for tree, r, at in zip(branch.trees, branch.ranges, branch.nodes, strict=False)]
    ranges = tuple(
        tree.pairs(r.l3[at], t) for tree, r, at, t in zip(branch.trees, branch.ranges, branch.nodes, tiles, strict=False)
    )
    nodes = branch.nodes.copy()
    nodes[:AXES] = np.arange(nodes.shape[1])
    return bounded(branch._replace(ranges=ranges, level=(LEVELS,) * AXES), iter([nodes]), np.inf).branch


def mappings_of(branch: Branch, at: Array) -> Mapping:
    """The mappings of nodes that are single ones, as leaves [node]."""
    nodes = branch.nodes[:, at]
    leaves: dict[str, Any] = {"dataflow": np.full(nodes.shape[1], branch.flow)}
    for axis, r, ids, tree in zip("mnk", branch.ranges, nodes, branch.trees, strict=False):
        leaves[f"l3_{axis}"], leaves[f"l2_{axis}"] = tree.as_pinned(r.l3[ids], r.low[ids])
    leaves.update(zip(Choices._fields, nodes[AXES:], strict=True))
    leaves.update({f"partition_{axis}": np.full(nodes.shape[1], v) for axis, v in zip("bmnk", branch.parts, strict=False)})
    return build(Mapping, **{name: np.asarray(leaves[name], np.float64) for name in Mapping.__dataclass_fields__})
