"""The space of mappings of one operation on one chip: how many there are, and the branches that hold them all.

All integer tiles at both levels with the L2 tile no larger than the L3 tile, loop orders, dataflows, bufferings and
partitions. Tiles beyond the dimension are clipped and so coincide with others: they are left out.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from kpu_jax.explore.optimal.branch import Branch, root_of
from kpu_jax.explore.optimal.objective import Objective
from kpu_jax.explore.optimal.problem import Problem
from kpu_jax.explore.optimal.ranges import AxisTree
from kpu_jax.explore.optimal.traffic_bound import Partition
from kpu_jax.mapping import DATAFLOWS, ORDERS, PASS_ORDERS

CODES = {"l3_order": len(ORDERS), "l2_order": len(ORDERS), "double_l3": 2, "double_l2": 2, "double_l1": 2}
PARTITIONS = tuple(f"partition_{axis}" for axis in "bmnk")


def space_size(p: Problem, pins: dict[str, float]) -> int:
    """Mappings in the space that keep `pins` (leaf -> number), legal or not."""
    codes = [1 if leaf in pins else count for leaf, count in CODES.items()]
    passes = 1 if "pass_order" in pins else len(PASS_ORDERS) // len(DATAFLOWS) if "dataflow" in pins and p.fabric else len(PASS_ORDERS)
    pairs = [_pair_count(int(size), pins.get(f"l3_{axis}"), pins.get(f"l2_{axis}")) for axis, size in zip("mnk", p.sizes, strict=True)]
    return math.prod([*codes, passes, *pairs, len(_partitions(p.tiles, pins))])


def _pair_count(size: int, l3: float | None, l2: float | None) -> int:
    if l2 is not None:
        return 1 if l3 is not None else size
    return size * (size + 1) // 2 if l3 is None else min(int(l3), size)


def _partitions(tiles: int, pins: dict[str, float]) -> list[tuple[int, ...]]:
    """(b, m, n, k) with at most `tiles` compute tiles."""
    found: list[tuple[int, ...]] = [()]
    for leaf in PARTITIONS:
        choices = [int(pins[leaf])] if leaf in pins else range(1, tiles + 1)
        found = [(*parts, c) for parts in found for c in choices if math.prod(parts) * c <= tiles]
    return found


def branches_of(p: Problem, op: Any, goal: Objective, pins: dict[str, float]) -> list[Branch]:
    """All mappings that keep the pins, by dataflow and partition.

    Left out are partitions over more than there is to divide, and over the batch where fewer compute tiles take as
    many steps: another partition has the same schedule, and needs no more of any memory.
    """
    flows = [int(pins["dataflow"])] if "dataflow" in pins else range(len(DATAFLOWS))
    axis_pins = [(pins.get(f"l3_{axis}"), pins.get(f"l2_{axis}")) for axis in "mnk"]

    @functools.cache
    def tree(axis: int, parts: int, extent: float) -> AxisTree:
        return AxisTree(p, op, axis, float(parts), extent, axis_pins[axis])

    def useless(leaf: str, parts: int, size: float) -> bool:
        steps = math.ceil(size / parts)
        fewer = math.ceil(size / steps) if leaf == "partition_b" else min(parts, size)
        return leaf not in pins and fewer < parts

    branches = []
    for parts in _partitions(p.tiles, pins):
        if any(useless(leaf, c, size) for leaf, c, size in zip(PARTITIONS, parts, (p.batch, *p.sizes), strict=True)):
            continue
        steps = math.ceil(p.batch / parts[0])
        b, m, n, k = (float(c) for c in parts)
        partition = Partition(b, m, n, k, float(steps), float(math.ceil(p.batch / steps)))
        for flow in flows:
            trees = tuple(tree(axis, parts[1 + axis], extent) for axis, extent in enumerate(p.extents(flow)))
            branches.append(root_of(p, goal, flow, partition, trees, pins))
    return branches
