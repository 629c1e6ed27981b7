"""The pairs of tiles along one axis as a tree of ranges: groups of L3 tiles; one L3 tile; one L2 block count; one pair."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.explore.optimal.axis_counts import MOST, AxisCounts, ceil_div, count_axis
from kpu_jax.explore.optimal.problem import Problem
from kpu_jax.mapping.input_rows import count_rows

Array = np.ndarray
GROUPS_PER_OCTAVE = 2  # of L3 block counts, from `APART` on
APART = 4


class Ranges(NamedTuple):
    """Ranges of one level of the tree, [range]."""

    l3: Array  # tile; of a group the largest
    low: Array  # L2 tiles
    high: Array
    table: Array  # [column, range]: `AxisCounts`, then what depends on the L3 tile alone

    def counts(self, at: Array) -> tuple[AxisCounts, Array]:
        """(counts, the further columns) of the ranges `at`."""
        picked = self.table[:, at]
        return AxisCounts(*picked[: len(MOST)]), picked[len(MOST) :]


class AxisTree:
    """All pairs of tiles along axis 0, 1 or 2 (m, n, k) that keep the pins, for one partition and one extent of a pass."""

    def __init__(self, p: Problem, op: Any, axis: int, parts: float, extent: float, pins: tuple[float | None, float | None]) -> None:
        """`pins`: the L3 and the L2 tile, where they are given."""
        self._p, self._axis, self._parts, self._extent = p, axis, parts, extent
        self._size, self._pinned_l3, self._pinned_l2 = p.sizes[axis], *pins
        tiles = self._l3_tiles()
        self._columns = self._by_tile(op, tiles)
        self._tiles = tiles
        one = np.ones_like(tiles)
        share = ceil_div(tiles, parts)
        if self._pinned_l2 is not None:
            one = share = np.minimum(self._pinned_l2, share)
        self._single = self._ranges(tiles, one, share)
        trips = self._single.table[AxisCounts._fields.index("l3_trips")]
        octave = np.floor(GROUPS_PER_OCTAVE * np.log2(np.maximum(trips, APART) / APART))
        group = np.where(trips < APART, trips, APART + octave)
        self._starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]]) if len(tiles) else np.zeros(0, int)
        self.root = self._grouped()

    def _l3_tiles(self) -> Array:
        """Legal L3 tiles, largest first."""
        p, size = self._p, self._size
        if p.conv and self._axis == 0:
            rows = np.arange(1, p.out_h + 1) * p.out_w
            tiles = np.concatenate([rows, np.arange(2, p.images + 1) * p.out_h * p.out_w])
        elif p.conv and self._axis == 2:
            tiles = np.arange(1, p.channels + 1) * p.kernel
        else:
            tiles = np.arange(1, size + 1)
        if self._pinned_l3 is not None:
            tiles = tiles[tiles == min(self._pinned_l3, size)]
        return tiles[::-1].astype(np.float64)

    def _by_tile(self, op: Any, tiles: Array) -> Array:
        """[column, tile]: what depends on the L3 tile alone (`traffic_bound.Axes`)."""
        p, (ea, eb, ec, acc) = self._p, self._p.widths
        if self._axis == 1:
            return np.stack([self._padding(p.sizes[1], tiles, width) for width in (eb, ec, acc)])
        if self._axis == 2:
            total, cut = (p.channels, tiles / p.kernel) if p.conv else (p.sizes[2], tiles)
            return self._padding(total, cut, ea)[None]
        if not p.conv:
            return np.zeros((3, len(tiles)))
        with jax.enable_x64(True):
            rows = count_rows(jax.tree.map(np.float64, op), jnp.asarray(tiles), jnp.asarray(np.minimum(tiles, p.sizes[0])))
        return np.stack([np.asarray(v) for v in (rows.moved, rows.first, rows.reserved)])

    def _padding(self, size: float, tiles: Array, width: float) -> Array:
        """Burst padding of one row of all blocks [byte]; none where a block is a whole row, for its rows are contiguous."""
        trips = ceil_div(size, tiles)

        def of(block: Array) -> Array:
            return ceil_div(block * width, self._p.burst) * self._p.burst - block * width

        return np.where(trips > 1, (trips - 1) * of(tiles) + of(size - (trips - 1) * tiles), 0.0)

    def _ranges(self, l3: Array, low: Array, high: Array) -> Ranges:
        p, unit = self._p, np.full_like(l3, self._size)
        if p.conv and self._axis == 0:
            image = p.out_h * p.out_w
            unit = np.where(l3 < image, image, unit)
        counts = count_axis(self._size, unit, l3, low, high, self._parts, self._extent, p.together[self._axis])
        at = np.searchsorted(-self._tiles, -l3)
        return Ranges(l3, low, high, np.concatenate([np.stack(counts), self._columns[:, at]]))

    def _grouped(self) -> Ranges:
        if not len(self._starts):
            return self._single
        table = np.minimum.reduceat(self._single.table, self._starts, axis=1)
        table[: len(MOST)][MOST] = np.maximum.reduceat(self._single.table[: len(MOST)][MOST], self._starts, axis=1)
        l3, low, high = (v[self._starts] for v in self._single[:3])
        return Ranges(l3, low, high, table)

    def children(self, level: int, ranges: Ranges, at: Array) -> tuple[Ranges, Array, Array]:
        """(the ranges of the next level below `ranges[at]` of `level` 0, 1, 2; where each one's start, and end, in them)."""
        if level == 0:
            ends = np.r_[self._starts[1:], len(self._tiles)]
            return self._single, self._starts[at], ends[at]
        low, high = ranges.low[at], ranges.high[at]
        if level == 1:
            parts = [_by_block_count(int(s)) if a < s else (np.array([a]), np.array([s])) for a, s in zip(low, high, strict=True)]
            sizes = np.array([len(first) for first, _ in parts])
            low, high = (np.concatenate([part[i] for part in parts]).astype(np.float64) for i in range(2))
        else:
            sizes = (high - low + 1).astype(int)
            starts = np.cumsum(sizes) - sizes
            low = high = np.repeat(low, sizes) + np.arange(sizes.sum()) - np.repeat(starts, sizes)
        ends = np.cumsum(sizes)
        return self._ranges(np.repeat(ranges.l3[at], sizes), low, high), ends - sizes, ends

    def pairs(self, l3: Array, l2: Array) -> Ranges:
        """Single pairs of tiles."""
        return self._ranges(l3, l2, l2)

    def as_pinned(self, l3: Array, l2: Array) -> tuple[Array, Array]:
        """The tiles as they were pinned, if they were: a pinned tile may go beyond what there is to tile."""
        pins = (self._pinned_l3, self._pinned_l2)
        return tuple(v if pin is None else np.full_like(v, pin) for v, pin in zip((l3, l2), pins, strict=True))  # type: ignore[return-value]

    def likely(self, ranges: Ranges, at: Array) -> Array:
        """An L2 tile of each range that promises much: the smallest that fills whole passes, else the smallest."""
        low, high = ranges.low[at], ranges.high[at]
        step = self._extent if self._extent < 1e15 else self._p.together[self._axis]
        even = ceil_div(low, step) * step
        return np.where(even <= high, even, low)


def _by_block_count(share: int) -> tuple[Array, Array]:
    """(smallest, largest) L2 tiles that cut a share into the same number of blocks, from one block on."""
    root = np.arange(1, min(int(np.sqrt(share)) + 1, share) + 1)
    counts = np.union1d(root, -(-share // root))
    low = np.unique(-(-share // counts))[::-1]  # the smallest tile of every count
    return low, np.r_[share, low[:-1] - 1]
