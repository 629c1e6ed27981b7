"""One axis (M, N or K) of a schedule, counted: blocks, passes, shares, for full and for edge blocks.

At each level an axis is cut into equal blocks and one last block, which may be smaller. So every quantity
of a schedule is a sum over two classes of L3 block ("body", "last") and two classes of L2 block in each.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div, floor_div

UNBOUNDED = 1e15  # pass size of an axis that streams through the array (a quotient by it rounds up to 1)

Scalar = jax.Array


class L3Class(NamedTuple):
    """The L3 blocks of one size along an axis, seen through the compute tiles' shares."""

    # L3 blocks of this class (hides tuple.count, which nobody calls)
    count: Scalar  # type: ignore[assignment]
    size: Scalar  # elements along the axis
    active: Scalar  # compute tiles with a share
    l2_trips: Scalar  # L2 blocks of the first compute tile's share
    body_l2: Scalar  # size of its L2 blocks but the last [elements]
    last_l2: Scalar  # size of its last L2 block [elements]
    body_rows: Scalar  # elements of all compute tiles in all L2 blocks but the last
    last_rows: Scalar  # elements of all compute tiles in the last L2 block
    last_active: Scalar  # compute tiles that have a part of the last L2 block
    body_passes: Scalar  # passes over an L2 block but the last
    last_passes: Scalar  # passes over the last L2 block
    l2_pairs: Scalar  # (compute tile, L2 block) pairs
    pass_pairs: Scalar  # (compute tile, pass) pairs


class Axis(NamedTuple):
    """All L3 blocks of an axis: `body` and `last`, and sums over both."""

    body: L3Class
    last: L3Class
    l3_trips: Scalar
    l2_blocks: Scalar  # of the first compute tile, over all L3 blocks
    passes: Scalar  # of the first compute tile, over all L3 blocks
    tiles: Scalar  # compute tiles that ever have a share
    l3_pairs: Scalar  # (compute tile, L3 block) pairs
    l2_pairs: Scalar
    pass_pairs: Scalar


def _l3_class(count: Scalar, size: Scalar, parts: Scalar, l2_tile: Scalar, pass_size: Scalar) -> L3Class:
    share = ceil_div(size, parts)
    whole = floor_div(size, share)
    rest = size - whole * share
    trips = ceil_div(share, l2_tile)
    last_start = (trips - 1) * l2_tile
    body_l2 = jnp.minimum(l2_tile, share)
    last_l2 = share - last_start
    rest_last = jnp.clip(rest - last_start, 0, l2_tile)
    last_rows = whole * last_l2 + rest_last
    body_passes = ceil_div(body_l2, pass_size)
    last_passes = ceil_div(last_l2, pass_size)
    rest_blocks = floor_div(rest, l2_tile)
    rest_passes = rest_blocks * body_passes + ceil_div(rest - rest_blocks * l2_tile, pass_size)
    return L3Class(
        count=count,
        size=size,
        active=whole + (rest > 0),
        l2_trips=trips,
        body_l2=body_l2,
        last_l2=last_l2,
        body_rows=size - last_rows,
        last_rows=last_rows,
        last_active=whole + (rest_last > 0),
        body_passes=body_passes,
        last_passes=last_passes,
        l2_pairs=whole * trips + ceil_div(rest, l2_tile),
        pass_pairs=whole * ((trips - 1) * body_passes + last_passes) + rest_passes,
    )


def count_axis(size: Scalar, unit: Scalar, l3_tile: Scalar, l2_tile: Scalar, parts: Scalar, pass_size: Scalar) -> Axis:
    """Count an axis of `size` elements; L3 blocks do not cross multiples of `unit` (an image; else = size)."""
    l3_tile = jnp.minimum(l3_tile, unit)
    repeats = jnp.round(size / unit)
    per_unit = ceil_div(unit, l3_tile)
    body = _l3_class(repeats * (per_unit - 1), l3_tile, parts, l2_tile, pass_size)
    last = _l3_class(repeats, unit - (per_unit - 1) * l3_tile, parts, l2_tile, pass_size)

    def both(name: str) -> Scalar:
        return body.count * getattr(body, name) + last.count * getattr(last, name)

    def passes(c: L3Class) -> Scalar:
        return (c.l2_trips - 1) * c.body_passes + c.last_passes

    return Axis(
        body=body,
        last=last,
        l3_trips=repeats * per_unit,
        l2_blocks=both("l2_trips"),
        passes=body.count * passes(body) + last.count * passes(last),
        tiles=jnp.where(body.count > 0, jnp.maximum(body.active, last.active), last.active),
        l3_pairs=both("active"),
        l2_pairs=both("l2_pairs"),
        pass_pairs=both("pass_pairs"),
    )
