"""One axis (M, N or K) of a schedule, counted: blocks, passes, shares, for full and for edge blocks.

At each level an axis is cut into equal blocks and one last block, which may be smaller. So every quantity
of a schedule is a sum over two classes of L3 block ("body", "last") and two classes of L2 block in each.

Scalars, one by one, and not arrays over axes and classes: XLA compiles the same few scalar kernels once for the
whole program, but every operation on an array of another shape anew (20 ms each, fifty scalar operations).
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
    share: Scalar  # elements of the first compute tile, which has the most
    active: Scalar  # compute tiles with a share
    l2_trips: Scalar  # L2 blocks of the first compute tile's share
    body_l2: Scalar  # size of its first L2 block, and of all but the last [elements]
    last_l2: Scalar  # size of its last L2 block [elements]
    body_rows: Scalar  # elements of all compute tiles in all L2 blocks but the last
    last_rows: Scalar  # elements of all compute tiles in the last L2 block
    last_active: Scalar  # compute tiles that have a part of the last L2 block
    body_passes: Scalar  # passes over its first L2 block, and over all but the last
    last_passes: Scalar  # passes over the last L2 block
    passes: Scalar  # passes of the first compute tile
    l2_pairs: Scalar  # (compute tile, L2 block) pairs
    pass_pairs: Scalar  # (compute tile, pass) pairs


class Axis(NamedTuple):
    """All L3 blocks of an axis: `body` and `last`, and sums over both.

    An axis of one L3 block has no body (its count is 0), whose sizes are those of the last. So the body's sizes are
    always those of the first L3 block, and the largest; and the last's are the smallest.
    """

    body: L3Class
    last: L3Class
    extent: Scalar  # elements of a whole pass
    l3_trips: Scalar
    l2_blocks: Scalar  # of the first compute tile, over all L3 blocks
    passes: Scalar  # of the first compute tile, over all L3 blocks
    shares: Scalar  # elements of the first compute tile, over all L3 blocks
    tiles: Scalar  # compute tiles that ever have a share
    l3_pairs: Scalar  # (compute tile, L3 block) pairs
    l2_pairs: Scalar
    pass_pairs: Scalar

    def total(self, body: Scalar, last: Scalar) -> Scalar:
        """Sum over all L3 blocks of what each of the body and the last have."""
        return self.body.count * body + self.last.count * last


def _l3_class(count: Scalar, size: Scalar, parts: Scalar, l2_tile: Scalar, extent: Scalar) -> L3Class:
    share = ceil_div(size, parts)
    whole = floor_div(size, share)
    rest = size - whole * share
    trips = ceil_div(share, l2_tile)
    last_start = (trips - 1) * l2_tile
    body_l2 = jnp.minimum(l2_tile, share)
    last_l2 = share - last_start
    rest_last = jnp.maximum(rest - last_start, 0)  # at most an L2 block, for it is less than a share
    last_rows = whole * last_l2 + rest_last
    body_passes = ceil_div(body_l2, extent)
    last_passes = ceil_div(last_l2, extent)
    passes = (trips - 1) * body_passes + last_passes
    rest_blocks = floor_div(rest, l2_tile)
    beyond = rest - rest_blocks * l2_tile
    return L3Class(
        count=count,
        size=size,
        share=share,
        active=whole + (rest > 0),
        l2_trips=trips,
        body_l2=body_l2,
        last_l2=last_l2,
        body_rows=size - last_rows,
        last_rows=last_rows,
        last_active=whole + (rest_last > 0),
        body_passes=body_passes,
        last_passes=last_passes,
        passes=passes,
        l2_pairs=whole * trips + rest_blocks + (beyond > 0),
        pass_pairs=whole * passes + rest_blocks * body_passes + ceil_div(beyond, extent),
    )


def count_axis(size: Scalar, unit: Scalar, l3_tile: Scalar, l2_tile: Scalar, parts: Scalar, extent: Scalar) -> Axis:
    """Count an axis of `size` elements; L3 blocks do not cross multiples of `unit` (an image; else = size)."""
    l3_tile = jnp.minimum(l3_tile, unit)
    repeats = jnp.round(size / unit)
    per_unit = ceil_div(unit, l3_tile)
    full = per_unit - 1
    body = _l3_class(repeats * full, l3_tile, parts, l2_tile, extent)
    last = _l3_class(repeats, unit - full * l3_tile, parts, l2_tile, extent)

    def both(name: str) -> Scalar:
        return body.count * getattr(body, name) + last.count * getattr(last, name)

    return Axis(
        body=body,
        last=last,
        extent=extent,
        l3_trips=repeats * per_unit,
        l2_blocks=both("l2_trips"),
        passes=both("passes"),
        shares=both("share"),
        tiles=jnp.maximum(body.active, last.active),
        l3_pairs=both("active"),
        l2_pairs=both("l2_pairs"),
        pass_pairs=both("pass_pairs"),
    )
