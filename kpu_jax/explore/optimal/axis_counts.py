"""One axis of many schedules, counted for ranges of tiles: what every pair of tiles in a range needs at least.

A range is one L3 tile with all L2 tiles from `low` to `high`. Every count is a lower bound for the whole range (an
upper bound where its name begins with `most`), and exact where the range is a single tile. Schedules only become
dearer when a count or a size grows, so a cost at these counts bounds the cost of every pair.
The counts are those of `mapping.axes`, in NumPy; the tests compare the two.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Array = np.ndarray
UNBOUNDED = 1e15  # extent of a pass along the axis that streams


class AxisCounts(NamedTuple):
    """Counts along an axis [range]; sizes in elements. L2 blocks and passes: of the first compute tile."""

    l3_trips: Array
    l2_blocks: Array
    passes: Array
    shares: Array  # elements of the first compute tile
    stream: Array  # cycles in which its elements pass the array, block by block
    tiles: Array  # compute tiles that ever have a share
    l3_pairs: Array  # (compute tile, L3 block) pairs
    l2_pairs: Array
    pass_pairs: Array
    l3_size: Array  # of the largest L3 block
    l2_size: Array  # of the largest L2 block
    first_l2: Array  # of the first L2 block, of all compute tiles
    least_first_l2: Array  # the same of whichever L3 block
    first_pass: Array  # of the first pass
    active: Array  # compute tiles with a share of the first L3 block
    last_l3: Array  # of the last L3 block
    last_l2: Array  # of the last L2 block, of all compute tiles
    last_pass: Array
    l2_moves: Array  # elements that a loop over L2 blocks changes
    not_whole: Array  # elements that are not alone in their L3 block and in one pass
    many_passes: Array  # elements in L2 blocks of several passes
    turning: Array  # L2 blocks in L3 blocks of several
    not_alone: Array  # passes that are not the only one of their L3 block
    in_many: Array  # passes of L2 blocks of several
    fewest: Array  # passes of an L2 block
    most_l2: Array  # L2 blocks, at most
    most_passes: Array  # of an L2 block, at most
    most_stream: Array  # cycles of an L2 block, at most
    most_visits: Array  # (compute tile, pass) pairs at most; where the axis streams, (compute tile, L2 block) pairs


class _Class(NamedTuple):
    """The same for one L3 block; names as in `AxisCounts`."""

    shares: Array
    l3_pairs: Array
    l2_blocks: Array
    l2_size: Array
    last_l2: Array
    last_pass: Array
    first_l2: Array
    passes: Array
    stream: Array
    l2_pairs: Array
    pass_pairs: Array
    l2_moves: Array
    not_whole: Array
    many_passes: Array
    turning: Array
    not_alone: Array
    in_many: Array
    fewest: Array
    most_l2: Array
    most_visits: Array


def ceil_div(a: Array | float, b: Array | float) -> Array:
    """ceil(a / b) of whole numbers; exact, for a quotient of whole numbers below 2^53 never rounds up to a whole one."""
    return np.ceil(a / b)


def _count_block(size: Array, parts: float, low: Array, high: Array, extent: float, together: float) -> _Class:
    """An L3 block of `size` elements."""
    share = ceil_div(size, parts)
    whole = np.floor(size / share)  # compute tiles with a full share; the rest falls to one more
    rest = size - whole * share
    low, high = np.minimum(low, share), np.minimum(high, share)
    one = low == high
    trips, most_trips = ceil_div(share, high), ceil_div(share, low)
    low_passes = ceil_div(low, extent)
    last = np.where(most_trips == trips, share - (trips - 1) * high, 1.0)  # the smallest last L2 block
    last_passes = ceil_div(last, extent)
    last_rows = np.where(one, whole * last + np.maximum(rest - (trips - 1) * low, 0), last)
    rest_blocks = np.floor(rest / low)
    beyond = rest - rest_blocks * low
    in_turn = (trips - 1) * low_passes + last_passes
    passes = np.where(one, in_turn, np.maximum(ceil_div(share, extent), in_turn))
    rest_passes = np.where(one, rest_blocks * low_passes + ceil_div(beyond, extent), ceil_div(rest, extent))
    body_rows = size - last_rows
    in_one_pass = np.where(low_passes <= 1, body_rows, 0.0) + np.where(last_passes <= 1, last_rows, 0.0)
    surely_many = np.where(low > extent, whole * ((trips - 1) * low + np.where(last > extent, last, 0.0)), 0.0)
    pieces = (trips - 1) * ceil_div(low, together)
    active = whole + (rest > 0)
    return _Class(
        shares=share,
        l3_pairs=active,
        l2_blocks=trips,
        l2_size=low,
        last_l2=last_rows,
        last_pass=np.where(one, last - (last_passes - 1) * extent, 1.0),
        first_l2=np.where(trips > 1, np.where(one, body_rows / np.maximum(trips - 1, 1), whole * low), np.where(one, size, low)),
        passes=passes,
        stream=np.where(one, pieces + ceil_div(last, together), np.maximum(ceil_div(share, together), pieces + 1)),
        l2_pairs=whole * trips + np.where(one, rest_blocks + (beyond > 0), ceil_div(rest, high)),
        pass_pairs=whole * passes + rest_passes,
        l2_moves=np.where(trips > 1, size, 0.0),
        not_whole=np.where((trips > 1) | (share > extent), size, 0.0),
        many_passes=np.where(one, size - in_one_pass, surely_many),
        turning=np.where(trips > 1, trips, 0.0),
        not_alone=np.where((trips > 1) | (share > extent), passes, 0.0),
        in_many=(trips - 1) * np.where(low_passes > 1, low_passes, 0.0) + np.where(last_passes > 1, last_passes, 0.0),
        fewest=np.where(trips > 1, np.minimum(low_passes, last_passes), last_passes),
        most_l2=most_trips,
        most_visits=np.where(one, whole * passes + rest_passes, active * most_trips * ceil_div(high, extent)),
    )


def count_axis(
    size: float, unit: Array, l3: Array, low: Array, high: Array, parts: float, extent: float, together: float
) -> AxisCounts:
    """Count an axis of `size` elements with L3 tiles `l3`, at most `unit`, and L2 tiles from `low` to `high` [range].

    L3 blocks do not cross multiples of `unit`; `parts`: compute tiles along the axis; `extent`: elements of a pass;
    `together`: elements side by side as they stream.
    """
    repeats = np.round(size / unit)
    full = ceil_div(unit, l3) - 1
    last_size = unit - full * l3
    body = _count_block(l3, parts, low, high, extent, together)
    last = _count_block(last_size, parts, low, high, extent, together)
    sums = {name: repeats * (full * b + e) for name, b, e in zip(_Class._fields, body, last, strict=True)}
    first = {name: np.where(full > 0, b, e) for name, b, e in zip(_Class._fields, body, last, strict=True)}
    return AxisCounts(
        l3_trips=repeats * (full + 1),
        tiles=np.maximum(first["l3_pairs"], last.l3_pairs),
        l3_size=np.where(full > 0, l3, last_size),
        l2_size=first["l2_size"],
        fewest=np.where(full > 0, np.minimum(body.fewest, last.fewest), last.fewest),
        first_l2=first["first_l2"],
        least_first_l2=np.minimum(first["first_l2"], last.first_l2),
        first_pass=np.minimum(first["l2_size"], extent),
        active=first["l3_pairs"],
        most_passes=ceil_div(high, extent),
        most_stream=ceil_div(high, together),
        last_l3=last_size,
        last_l2=last.last_l2,
        last_pass=last.last_pass,
        **{name: sums[name] for name in AxisCounts._fields if name in sums and name not in _OF_ONE},
    )


_OF_ONE = {"l2_size", "first_l2", "last_l2", "last_pass", "fewest"}  # of a single block, no sums
MOST = np.array([name.startswith("most") for name in AxisCounts._fields])
