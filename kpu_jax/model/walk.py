"""Where a schedule stands: loop indices, and the sizes of the blocks there. Exact integers in floats.

Arrays have their structure (level, axis, operand, loop) on leading axes and the schedules of a batch, if there
are several, on the last: every operation then runs along schedules that lie side by side in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.numerics import ceil_div, floor_div
from kpu_jax.mapping.mapping import ORDERS, PASS_ORDERS
from kpu_jax.mapping.visits import pass_sizes

Scalar = jax.Array
AXES = "mnk"
FAR = 1e15  # no limit to a loop index
PLACES = 10  # what loops walk: the batch, and three axes at three levels
LOOPS = 9  # the batch, three over L3 blocks, three over L2 blocks, two over passes
NO_LOOP = 9.0  # rank of the axis that streams through the array: it has one pass


class Plan(NamedTuple):
    """The constants of a walk; [axis] stands for (m, n, k), [place] for the batch and then (level, axis)."""

    unit: Scalar  # [axis] L3 blocks do not cross multiples of this
    per_unit: Scalar  # [axis] L3 blocks in a unit
    trips3: Scalar  # [axis] L3 blocks
    tile3: Scalar  # [axis]
    inner: Scalar  # [L2 and L1, axis] elements per L2 block of a compute tile, and per pass
    parts: Scalar  # [axis] compute tiles
    rank: Scalar  # [place]: depth of the loop that walks it, 0 outermost
    batch_steps: Scalar
    groups: Scalar  # compute-tile groups, each with its own batch elements
    full_steps: Scalar  # batch steps in which every group has one
    clean_from: Scalar  # L3 indices along M (within a unit) whose blocks touch no padding
    clean_to: Scalar

    @property
    def valid(self) -> Scalar:
        """Whether all sizes are positive numbers, so that every loop has an end."""
        groups = (self.unit, self.tile3, *self.inner, self.parts, self.trips3, self.batch_steps[None])
        return jnp.all(jnp.stack([jnp.all((sizes > 0) & (sizes < jnp.inf), axis=0) for sizes in groups]), axis=0)


class Span(NamedTuple):
    """Blocks at one step: [level, axis], levels L3, L2, L1."""

    trips: Scalar  # blocks of this level in the present one of the level above (L3: in the operation)
    size: Scalar  # of the first compute tile (L3: of all) [element]
    total: Scalar  # of all compute tiles along the axis [element]
    active: Scalar  # [L2 and L1, axis]: compute tiles with a part
    same: Scalar  # up to this index all blocks are like the present one
    within: Scalar  # L3 index along M within the unit
    kind: Scalar  # a number for the sizes of all blocks: which are whole, in part or none
    window: Scalar  # 0, or how the input rows of a convolution's block lie, if not as those of its neighbours


def stacked(values: Sequence[Any]) -> Scalar:
    """Numbers, one for each schedule, on a new leading axis."""
    return jnp.stack(jnp.broadcast_arrays(*(jnp.asarray(v, jnp.result_type(float)) for v in values)))


def column(table: Any, like: Any) -> np.ndarray:
    """A constant table with an axis of length 1 for each axis of `like`, the shape of one number per schedule."""
    table = np.asarray(table)
    return table.reshape(table.shape + (1,) * np.ndim(like))


def _ranks(code: Scalar, orders: tuple[str, ...], first: int) -> Scalar:
    """[axis]: depth of the loop over each axis under the order of this code."""
    ranks = [[first + order.index(a) if a in order else NO_LOOP for a in AXES] for order in orders]
    return sum(jnp.where(code == i, column(row, code), 0.0) for i, row in enumerate(ranks))  # type: ignore[return-value]


def plan(op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar) -> Plan:
    """Prepare to walk the schedule of `op` under `mapping`."""
    image = op.out_h * op.out_w
    conv = op.kind == 1
    size = stacked([op.m, op.n, op.k])
    unit = stacked([jnp.where(conv & (mapping.l3_m < image), image, op.m), op.n, op.k])
    tile3 = jnp.minimum(stacked(mapping.l3_tile), unit)
    per_unit = ceil_div(unit, tile3)
    batch_steps = ceil_div(op.batch, mapping.partition_b)
    groups = ceil_div(op.batch, batch_steps)
    block = jnp.maximum(jnp.round(tile3[0] / jnp.maximum(op.out_w, 1)) * op.stride_h, 1)
    window = (op.kernel_h - 1) * op.dilation_h + 1
    order3, order2, order1 = mapping.l3_order, mapping.l2_order, mapping.pass_order
    ranks = (jnp.zeros_like(tile3[:1]), _ranks(order3, ORDERS, 1), _ranks(order2, ORDERS, 4), _ranks(order1, PASS_ORDERS, 7))
    return Plan(
        unit=unit,
        per_unit=per_unit,
        trips3=jnp.round(size / unit) * per_unit,
        tile3=tile3,
        inner=jnp.stack([stacked(v) for v in (mapping.l2_tile, pass_sizes(op, mapping, rows, cols, rate))]),
        parts=stacked(mapping.partition[1:]),
        rank=jnp.concatenate([jnp.broadcast_to(r, r.shape[:1] + tile3.shape[1:]) for r in ranks]),
        batch_steps=batch_steps,
        groups=groups,
        full_steps=op.batch - (groups - 1) * batch_steps,
        clean_from=jnp.where(conv, ceil_div(op.pad_top, block), 0.0),
        clean_to=jnp.where(conv, floor_div(op.stride_h - window + op.pad_top + op.in_h, block) - 1, FAR),
    )


def blocks_at(index: Scalar) -> Scalar:
    """[level, axis] block indices of the indices of all places."""
    return index[1:].reshape((3, 3) + index.shape[1:])


def spans(p: Plan, index: Scalar) -> Span:
    """Block sizes at the indices [place]."""
    at = blocks_at(index)
    tile2, extent = p.inner
    within = at[0] - p.per_unit * floor_div(at[0], p.per_unit)
    size3 = jnp.minimum(p.tile3, p.unit - within * p.tile3)
    share = ceil_div(size3, p.parts)
    whole = floor_div(size3, share)
    cut = jnp.stack([share, size3 - whole * share])  # [first compute tile and the one with the remainder, axis]
    cut2 = jnp.maximum(jnp.minimum(cut - at[1] * tile2, tile2), 0.0)
    cut1 = jnp.maximum(jnp.minimum(cut2 - at[2] * extent, extent), 0.0)
    first, rest = (jnp.stack([cut[i], cut2[i], cut1[i]]) for i in range(2))  # [level, axis], L3: of its share
    trips = ceil_div(first[:2], p.inner)
    clean_to = jnp.minimum(jnp.maximum(p.per_unit[0] - 2 - within[0], 0.0), p.clean_to - within[0])
    clean = (within[0] >= p.clean_from) & (within[0] <= p.clean_to)
    alike_m = jnp.where(clean, at[0, 0] + clean_to, at[0, 0])
    alike = at[0, 1:] + jnp.maximum(p.per_unit[1:] - 2 - within[1:], 0.0)
    # Blocks of the first compute tile, and of the one with the remainder: whole, in part or none.
    partial = [jnp.stack([cut2[i], cut1[i]]) < p.inner for i in range(2)]
    kinds = jnp.where(rest[1:] > 0, 1 + 1.0 * partial[1], 0.0) + 3 * partial[0]
    kinds = jnp.concatenate([kinds.reshape((6, *within.shape[1:])), size3 < p.tile3])
    conv = jnp.isfinite(p.clean_to) & (p.clean_to < FAR)
    return Span(
        trips=jnp.concatenate([p.trips3[None], trips]),
        size=jnp.concatenate([size3[None], first[1:]]),
        total=jnp.concatenate([size3[None], whole * first[1:] + rest[1:]]),
        active=whole + (rest[1:] > 0),
        same=jnp.concatenate([jnp.concatenate([alike_m[None], alike])[None], _same(at[1:], rest[:2], p.inner, trips)]),
        within=within[0],
        kind=jnp.sum(kinds * column([*6.0 ** np.arange(6), *6.0**6 * 2.0 ** np.arange(3)], within[0]), axis=0),
        window=jnp.where(conv & ~(clean & (within[0] > 0)), within[0] + 1, 0.0),
    )


def _same(index: Scalar, rest: Scalar, tile: Scalar, trips: Scalar) -> Scalar:
    """Up to which index the remainder tile's blocks stay like the present one (the last block is its own class)."""
    full = floor_div(rest, tile)
    end = jnp.where(index < full, full - 1, jnp.where((index == full) & (rest > full * tile), full, trips - 2))
    return jnp.maximum(jnp.minimum(end, trips - 2), index)


def groups_at(p: Plan, step: Scalar) -> Scalar:
    """Compute-tile groups with a batch element at this step of the batch loop."""
    return jnp.where(step < p.full_steps, p.groups, p.groups - 1)


def loop_trips(p: Plan, s: Span) -> Scalar:
    """[place] trips of every loop here."""
    return _by_place(p.batch_steps, s.trips)


def most_trips(p: Plan) -> Scalar:
    """[place] trips of every loop in the first blocks, which are the largest."""
    share = ceil_div(p.tile3, p.parts)
    blocks = jnp.stack([share, jnp.minimum(share, p.inner[0])])
    return _by_place(p.batch_steps, jnp.concatenate([p.trips3[None], ceil_div(blocks, p.inner)]))


def loop_same(p: Plan, index: Scalar, s: Span) -> Scalar:
    """[place] index up to which the iterations of every loop are alike."""
    batch = index[0]
    alike = jnp.where(batch < p.full_steps, p.full_steps, p.batch_steps) - 1
    return _by_place(jnp.maximum(jnp.minimum(alike, p.batch_steps - 2), batch), s.same)  # never leap past the last one


def _by_place(batch: Scalar, blocks: Scalar) -> Scalar:
    rows = blocks.reshape((PLACES - 1,) + blocks.shape[2:])
    return jnp.concatenate([jnp.broadcast_to(batch, rows.shape[1:])[None], rows])
