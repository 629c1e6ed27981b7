"""The pairs of tiles along one axis as a tree of ranges, `LEVELS` deep.

Groups of L3 tiles; tiles alike: the same number of L3 blocks, and of about a size; of these, the pairs with about as
many L2 blocks; those with as many; of these, those with one L3 tile; one pair.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.explore.optimal.axis_counts import MOST, AxisCounts, ceil_div, count_axis
from kpu_jax.explore.optimal.problem import Problem
from kpu_jax.mapping.input_rows import count_rows

Array = np.ndarray
LEVELS = 5
ALIKE = 1.125  # ratio of L3 tiles
GROUPS_PER_OCTAVE = 2  # of L3 block counts, from `APART` on
APART = 4


class Ranges(NamedTuple):
    """Ranges of one level of the tree, [range]."""

    l3: Array  # tile; where there are several: one of them, with
    low: Array  # its L2 tiles
    high: Array
    table: Array  # [column, range]: `AxisCounts`, then what depends on the L3 tile alone; the least of all tiles
    parts: Any = None  # `Ranges` of the next level, where they are known already,
    starts: Any = None  # and where those of each range start and end
    ends: Any = None

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
        first = np.r_[True, trips[1:] != trips[:-1]][: len(tiles)]
        largest = np.maximum.accumulate(np.where(first, np.arange(len(tiles)), 0))
        alike = np.floor(np.log(tiles[largest] / tiles) / np.log(ALIKE))
        self._of_class = np.cumsum(_changes(trips, alike)) - 1  # [tile]
        self.root = _least(_least(self._single, _changes(trips, alike)), _changes(_group(trips[_changes(trips, alike)])))

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

    def children(self, level: int, ranges: Ranges, at: Array) -> tuple[Ranges, Array, Array]:
        """(the ranges of the next level below `ranges[at]` of `level`; where each one's start, and end, in them)."""
        if level in (0, 2, 3):
            return ranges.parts, ranges.starts[at], ranges.ends[at]
        if level == 1:
            return self._by_block_count(at)
        low, high = ranges.low[at], ranges.high[at]
        sizes = (high - low + 1).astype(int)
        starts = np.cumsum(sizes) - sizes
        tiles = np.repeat(low, sizes) + np.arange(sizes.sum()) - np.repeat(starts, sizes)
        return self._ranges(np.repeat(ranges.l3[at], sizes), tiles, tiles), starts, starts + sizes

    def _by_block_count(self, classes: Array) -> tuple[Ranges, Array, Array]:
        """`children` of classes of L3 tiles that are alike: pairs with the same number of L2 blocks."""
        of_class = np.full(self._of_class.max(initial=-1) + 1, -1)
        of_class[classes] = np.arange(len(classes))
        tiles = np.flatnonzero(of_class[self._of_class] >= 0)
        parts = [_by_block_count(int(s)) if a < s else (np.array([a]), np.array([s])) for a, s in zip(*self._single[1:3], strict=True)]
        parts = [parts[i] for i in tiles]
        sizes = [len(low) for low, _ in parts]
        low, high = (np.concatenate([part[i] for part in parts]).astype(np.float64) for i in range(2))
        l3, of_class = np.repeat(self._single.l3[tiles], sizes), np.repeat(of_class[self._of_class[tiles]], sizes)
        blocks = ceil_div(ceil_div(l3, self._parts), high)
        order = np.lexsort((-l3, blocks, of_class))
        finer = self._ranges(l3[order], low[order], high[order])
        same = _changes(of_class[order], blocks[order])
        blocks, of_class = blocks[order][same], of_class[order][same]
        octave = _changes(_group(blocks), of_class)
        coarser, of_class = _least(_least(finer, same), octave), of_class[octave]
        places = np.arange(len(classes))
        return coarser, np.searchsorted(of_class, places), np.searchsorted(of_class, places, side="right")

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


def _group(counts: Array) -> Array:
    """The group of each block count."""
    octave = np.floor(GROUPS_PER_OCTAVE * np.log2(np.maximum(counts, APART) / APART))
    return np.where(counts < APART, counts, APART + octave)


def _changes(*keys: Array) -> Array:
    """[item] bool: is any key not that of the item before?"""
    first = np.zeros(len(keys[0]), bool)
    for key in keys:
        first |= np.r_[True, key[1:] != key[:-1]][: len(key)]
    return first


def _least(parts: Ranges, first: Array) -> Ranges:
    """Runs of ranges, each beginning with a `first` one, as one range each."""
    starts = np.flatnonzero(first)
    ends = np.r_[starts[1:], len(first)][: len(starts)]
    if not len(starts):
        return parts._replace(parts=parts, starts=starts, ends=ends)
    table = np.minimum.reduceat(parts.table, starts, axis=1)
    table[: len(MOST)][MOST] = np.maximum.reduceat(parts.table[: len(MOST)][MOST], starts, axis=1)
    l3, low, high = (v[ends - 1] for v in parts[:3])
    return Ranges(l3, low, high, table, parts, starts, ends)


def _by_block_count(share: int) -> tuple[Array, Array]:
    """(smallest, largest) L2 tiles that cut a share into the same number of blocks, from one block on."""
    root = np.arange(1, min(int(np.sqrt(share)) + 1, share) + 1)
    counts = np.union1d(root, -(-share // root))
    low = np.unique(-(-share // counts))[::-1]  # the smallest tile of every count
    return low, np.r_[share, low[:-1] - 1]
