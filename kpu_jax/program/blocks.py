"""Sizes of the blocks of a schedule, by walking the compute tiles one by one in plain Python."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from kpu_jax.mapping import ORDERS, PASS_ORDERS
from kpu_jax.workload.footprint import element_bytes

AXES = "mnk"
OPERAND_AXES = {"A": ("m", "k"), "B": ("k", "n"), "C": ("m", "n")}  # rows and columns as stored, row-major
IRRELEVANT_AXIS = {"A": "n", "B": "m", "C": "k"}
UNBOUNDED = 1 << 62  # pass size of an axis that streams through the array


@dataclass(frozen=True, slots=True)
class Step:
    """One fabric pass: the indices of its batch step, L3 block, L2 block and pass along each axis."""

    batch: int
    l3: dict[str, int]
    l2: dict[str, int]
    l1: dict[str, int]

    def indices(self) -> tuple[int, ...]:
        """Batch step, then the indices along (M, N, K) of the L3 block, the L2 block and the pass."""
        return self.batch, *(index[a] for index in (self.l3, self.l2, self.l1) for a in AXES)


class Block(NamedTuple):
    """One operand's block at one level."""

    tile: tuple[int, ...]  # indices along (M, N, K) in L3, in L2, of the pass; -1 where it has none
    height: int  # of the first compute tile's part, of all of it in L3 [elements]
    width: int
    elements: int  # that the compute tiles of one batch group hold together, each part once


class Blocks:
    """The geometry of one schedule: who holds which part of which block. Everything is a Python int."""

    def __init__(self, op: Any, mapping: Any, *, rows: int, cols: int, macs_per_pe: int) -> None:
        self.size = {a: int(getattr(op, a)) for a in AXES}
        self.batch = int(op.batch)
        self.kind = int(op.kind)
        self.tile3 = {a: min(int(getattr(mapping, f"l3_{a}")), self.size[a]) for a in AXES}
        self.tile2 = {a: int(getattr(mapping, f"l2_{a}")) for a in AXES}
        self.parts = {a: int(getattr(mapping, f"partition_{a}")) for a in "bmnk"}
        self.dataflow = int(mapping.dataflow)
        self.orders = (ORDERS[int(mapping.l3_order)], ORDERS[int(mapping.l2_order)], PASS_ORDERS[int(mapping.pass_order)])
        self.rows, self.cols, self.rate = rows, cols, macs_per_pe
        self.pass_size = dict.fromkeys(AXES, UNBOUNDED)
        if self.kind != 2:
            axis_of_rows, axis_of_cols = ("mn", "kn", "km")[self.dataflow]
            self.pass_size[axis_of_rows] = rows * (macs_per_pe if axis_of_rows == "k" else 1)
            self.pass_size[axis_of_cols] = cols
        self.bytes = dict(zip("ABC", element_bytes(op)[:3], strict=True))
        self.acc_bytes = element_bytes(op)[3]
        # Convolution: L3 blocks hold whole output rows of one image, or whole images.
        self.unit = dict(self.size)
        if self.kind == 1 and self.tile3["m"] < int(op.out_h) * int(op.out_w):
            self.unit["m"] = int(op.out_h) * int(op.out_w)
        self._extents: dict[tuple, list[int]] = {}
        self._groups: dict[int, int] = {}
        self._known: dict[tuple, Block] = {}

    def l3_trips(self, a: str) -> int:
        """Number of L3 blocks along an axis."""
        return (self.size[a] // self.unit[a]) * -(-self.unit[a] // self.tile3[a])

    def l3_size(self, a: str, i: int) -> int:
        """Elements of L3 block i along an axis, clipped."""
        per_unit = -(-self.unit[a] // self.tile3[a])
        return min(self.tile3[a], self.unit[a] - (i % per_unit) * self.tile3[a])

    def share(self, a: str, i: int, tile: int) -> int:
        """Elements of L3 block i that compute tile `tile` along this axis owns."""
        whole = self.l3_size(a, i)
        part = -(-whole // self.parts[a])
        return max(0, min(part, whole - tile * part))

    def l2_trips(self, a: str, i: int) -> int:
        """Number of L2 blocks of the first compute tile's share (the gang runs in lockstep)."""
        return -(-self.share(a, i, 0) // self.tile2[a])

    def l2_size(self, a: str, i: int, j: int, tile: int) -> int:
        """Elements of L2 block j of L3 block i on a compute tile."""
        return max(0, min(self.tile2[a], self.share(a, i, tile) - j * self.tile2[a]))

    def pass_trips(self, a: str, i: int, j: int) -> int:
        """Number of passes over L2 block j along an axis."""
        return -(-self.l2_size(a, i, j, 0) // self.pass_size[a])

    def pass_extent(self, a: str, step: Step, tile: int) -> int:
        """Elements that one pass covers along an axis on a compute tile."""
        return max(0, min(self.pass_size[a], self.l2_size(a, step.l3[a], step.l2[a], tile) - step.l1[a] * self.pass_size[a]))

    def batch_steps(self) -> int:
        """Length of the batch loop: each group of compute tiles takes a contiguous part."""
        return -(-self.batch // self.parts["b"])

    def groups(self, step: int) -> int:
        """Groups of compute tiles that have a batch element at this step of the batch loop."""
        if step not in self._groups:
            length = self.batch_steps()
            starts = range(0, self.parts["b"] * length, length)
            self._groups[step] = sum(1 for first in starts if first + step < min(first + length, self.batch))
        return self._groups[step]

    def passes(self) -> int:
        """Number of passes, by counting along one axis after the other."""
        count = self.batch_steps()
        for a in AXES:
            blocks = [(i, j) for i in range(self.l3_trips(a)) for j in range(self.l2_trips(a, i))]
            count *= sum(self.pass_trips(a, i, j) for i, j in blocks)
        return count

    def steps(self) -> Iterator[Step]:
        """All passes in program order."""
        order3, order2, order1 = self.orders
        known: dict[tuple, dict[str, int]] = {}  # steps share their indices

        def named(order: str, index: tuple[int, ...]) -> dict[str, int]:
            if (order, index) not in known:
                known[order, index] = {**dict.fromkeys(AXES, 0), **dict(zip(order, index, strict=True))}
            return known[order, index]

        for b in range(self.batch_steps()):
            for i in itertools.product(*(range(self.l3_trips(a)) for a in order3)):
                l3 = named(order3, i)
                for j in itertools.product(*(range(self.l2_trips(a, l3[a])) for a in order2)):
                    l2 = named(order2, j)
                    for p in itertools.product(*(range(self.pass_trips(a, l3[a], l2[a])) for a in order1)):
                        yield Step(b, l3, l2, named(order1, p))

    def tiles(self) -> Iterator[dict[str, int]]:
        """Compute tiles of one batch group, by their place along M, N and K."""
        for i in itertools.product(*(range(self.parts[a]) for a in AXES)):
            yield dict(zip(AXES, i, strict=True))

    def extents(self, level: int, a: str, step: Step) -> list[int]:
        """[compute tile along the axis]: elements along the axis of its block at a level (2: L2 block, 1: pass)."""
        key = level, a, step.l3[a], step.l2[a], step.l1[a] if level == 1 else 0
        if key not in self._extents:
            tiles = range(self.parts[a])
            if level == 2:
                self._extents[key] = [self.l2_size(a, step.l3[a], step.l2[a], t) for t in tiles]
            else:
                self._extents[key] = [self.pass_extent(a, step, t) for t in tiles]
        return self._extents[key]

    def extent(self, level: int, a: str, step: Step, tile: int) -> int:
        """The same of one compute tile."""
        return self.extents(level, a, step)[tile]

    def total(self, level: int, a: str, step: Step) -> int:
        """Elements along an axis that the compute tiles together have at a level."""
        return sum(self.extents(level, a, step))

    def active(self, level: int, a: str, step: Step) -> int:
        """Compute tiles along an axis that have work in this step at a level."""
        return sum(extent > 0 for extent in self.extents(level, a, step))

    def block(self, level: int, operand: str, step: Step) -> Block:
        """The operand's block at a level in this step."""
        x, y = OPERAND_AXES[operand]
        key: tuple = level, operand, step.l3[x], step.l3[y]
        if level < 3:
            key += step.l2[x], step.l2[y]
        if level < 2:
            key += step.l1[x], step.l1[y]
        if key not in self._known:
            self._known[key] = self._block(level, operand, step)
        return self._known[key]

    def _block(self, level: int, operand: str, step: Step) -> Block:
        tile = [-1] * 9
        for depth, index in enumerate((step.l3, step.l2, step.l1)[: 4 - level]):
            for a in OPERAND_AXES[operand]:
                tile[3 * depth + AXES.index(a)] = index[a]
        rows, cols = OPERAND_AXES[operand]
        if level == 3:
            height, width = (self.l3_size(a, step.l3[a]) for a in (rows, cols))
            return Block(tuple(tile), height, width, height * width)
        elements = self.total(level, rows, step) * self.total(level, cols, step)
        return Block(tuple(tile), self.extent(level, rows, step, 0), self.extent(level, cols, step, 0), elements)


def input_rows(op: Any, first: int, count: int) -> set[int]:
    """The in-bounds input rows that `count` output rows of one image need, starting at output row `first`.

    The window of output row p spans input rows p stride - pad ... + (R - 1) dilation. Overlapping windows
    move their union, windows further apart than they are tall move each on its own.
    """
    stride, pad, height = int(op.stride_h), int(op.pad_top), int(op.in_h)
    window = (int(op.kernel_h) - 1) * int(op.dilation_h) + 1
    rows: set[int] = set()
    for p in range(first, first + count):
        rows.update(range(max(0, p * stride - pad), min(height, p * stride - pad + window)))
    return rows
