"""Where a schedule stands: loop indices, and the sizes of the blocks there. Exact integers in floats."""

from __future__ import annotations

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
LOOPS = 9  # batch, three L3 loops, three L2 loops, two pass loops; outermost first


class Span(NamedTuple):
    """[axis] at one step: the sizes of the blocks and the compute tiles that share them."""

    l3_trips: Scalar
    l2_trips: Scalar
    l1_trips: Scalar
    l3_size: Scalar
    l2_size: Scalar  # of the first compute tile
    l1_size: Scalar
    l2_total: Scalar  # of all compute tiles along the axis
    l1_total: Scalar
    l2_active: Scalar  # compute tiles with a part
    l1_active: Scalar
    l3_same: Scalar  # up to this L3 index all blocks are like the present one
    l2_same: Scalar
    l1_same: Scalar


class Plan(NamedTuple):
    """The constants of a walk; [axis] stands for (m, n, k)."""

    size: Scalar  # [axis] elements
    unit: Scalar  # [axis] L3 blocks do not cross multiples of this
    tile3: Scalar  # [axis]
    tile2: Scalar  # [axis]
    parts: Scalar  # [axis] compute tiles
    extent: Scalar  # [axis] elements per pass
    place3: Scalar  # [loop, axis] one-hot: which axis each L3 loop walks
    place2: Scalar
    place1: Scalar  # [pass loop, axis]
    batch: Scalar
    batch_steps: Scalar
    clean_from: Scalar  # [axis] L3 indices (within a unit) whose blocks touch no padding
    clean_to: Scalar


def _one_hot(names: tuple[str, ...]) -> np.ndarray:
    return np.array([[[float(letter == a) for a in AXES] for letter in name] for name in names])


_PLACE = _one_hot(ORDERS)
_PLACE_PASS = _one_hot(PASS_ORDERS)


def plan(op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar) -> Plan:
    """Prepare to walk the schedule of `op` under `mapping`."""
    image = op.out_h * op.out_w
    conv = op.kind == 1
    dtype = jnp.result_type(float)

    def axes(*values: Any) -> Scalar:
        return jnp.stack([jnp.asarray(v, dtype) for v in values])

    unit = axes(jnp.where(conv & (mapping.l3_m < image), image, op.m), op.n, op.k)
    tile3 = jnp.minimum(axes(*mapping.l3_tile), unit)

    def pick(table: np.ndarray, code: Scalar) -> Scalar:
        chosen = (jnp.arange(len(table)) == code).astype(dtype)
        return jnp.sum(chosen[:, None, None] * jnp.asarray(table, dtype), axis=0)

    block = jnp.maximum(jnp.round(tile3[0] / jnp.maximum(op.out_w, 1)) * op.stride_h, 1)
    window = (op.kernel_h - 1) * op.dilation_h + 1
    clean_from = jnp.where(conv, ceil_div(op.pad_top, block), 0.0)
    clean_to = jnp.where(conv, floor_div(op.stride_h - window + op.pad_top + op.in_h, block) - 1, FAR)
    return Plan(
        size=axes(op.m, op.n, op.k),
        unit=unit,
        tile3=tile3,
        tile2=axes(*mapping.l2_tile),
        parts=axes(*mapping.partition[1:]),
        extent=axes(*pass_sizes(op, mapping, rows, cols, rate)),
        place3=pick(_PLACE, mapping.l3_order),
        place2=pick(_PLACE, mapping.l2_order),
        place1=pick(_PLACE_PASS, mapping.pass_order),
        batch=op.batch,
        batch_steps=ceil_div(op.batch, mapping.partition_b),
        clean_from=axes(clean_from, 0.0, 0.0),
        clean_to=axes(clean_to, FAR, FAR),
    )


class Position(NamedTuple):
    """Loop indices: the batch step, and the L3 block, L2 block and pass along [axis]."""

    batch: Scalar
    l3: Scalar
    l2: Scalar
    l1: Scalar


def position(p: Plan, index: Scalar) -> Position:
    """The position of loop indices [LOOPS], outermost first."""

    def axes(place: Scalar, part: Scalar) -> Scalar:
        return jnp.sum(place * part[:, None], axis=0)

    return Position(index[0], axes(p.place3, index[1:4]), axes(p.place2, index[4:7]), axes(p.place1, index[7:9]))


def spans(p: Plan, at: Position) -> Span:
    """Block sizes along [axis] at a position."""
    per_unit = ceil_div(p.unit, p.tile3)
    within = at.l3 - per_unit * floor_div(at.l3, per_unit)
    size3 = jnp.minimum(p.tile3, p.unit - within * p.tile3)
    share = ceil_div(size3, p.parts)
    whole = floor_div(size3, share)
    rest = size3 - whole * share
    trips2 = ceil_div(share, p.tile2)
    start2, start1 = at.l2 * p.tile2, at.l1 * p.extent
    size2 = jnp.minimum(p.tile2, share - start2)
    rest2 = jnp.clip(rest - start2, 0, p.tile2)
    size1 = jnp.minimum(p.extent, size2 - start1)
    rest1 = jnp.clip(rest2 - start1, 0, p.extent)
    trips1 = ceil_div(size2, p.extent)
    same3 = jnp.minimum(at.l3 + jnp.maximum(per_unit - 2 - within, 0.0), at.l3 - within + p.clean_to)
    clean = (within >= p.clean_from) & (within <= p.clean_to)
    return Span(
        l3_trips=jnp.round(p.size / p.unit) * per_unit,
        l2_trips=trips2,
        l1_trips=trips1,
        l3_size=size3,
        l2_size=size2,
        l1_size=size1,
        l2_total=whole * size2 + rest2,
        l1_total=whole * size1 + rest1,
        l2_active=whole + (rest2 > 0),
        l1_active=whole + (rest1 > 0),
        l3_same=jnp.where(clean, same3, at.l3),
        l2_same=_same(at.l2, rest, p.tile2, trips2),
        l1_same=_same(at.l1, rest2, p.extent, trips1),
    )


def along(s: Span) -> tuple[Span, Span, Span]:
    """The spans of M, N and K, one by one."""
    return tuple(Span(*(v[i] for v in s)) for i in range(3))  # type: ignore[return-value]


def _same(index: Scalar, rest: Scalar, tile: Scalar, trips: Scalar) -> Scalar:
    """Up to which index the remainder tile's blocks stay like the present one (the last block is its own class)."""
    full = floor_div(rest, tile)
    end = jnp.where(index < full, full - 1, jnp.where((index == full) & (rest > full * tile), full, trips - 2))
    return jnp.maximum(jnp.minimum(end, trips - 2), index)


def groups_at(p: Plan, step: Scalar) -> Scalar:
    """Compute-tile groups with a batch element at this step of the batch loop."""
    groups = ceil_div(p.batch, p.batch_steps)
    rest = p.batch - (groups - 1) * p.batch_steps
    return jnp.where(step < rest, groups, groups - 1)


def loop_ends(p: Plan, at: Position, s: Span) -> tuple[Scalar, Scalar]:
    """([LOOPS] trips of every loop here, [LOOPS] index up to which its iterations are alike)."""
    rest = p.batch - (ceil_div(p.batch, p.batch_steps) - 1) * p.batch_steps
    alike = jnp.where(at.batch < rest, rest, p.batch_steps) - 1
    batch_same = jnp.maximum(jnp.minimum(alike, p.batch_steps - 2), at.batch)  # never leap past the last one
    places = ((p.place3, s.l3_trips, s.l3_same), (p.place2, s.l2_trips, s.l2_same), (p.place1, s.l1_trips, s.l1_same))
    trips = [jnp.sum(place * t[None, :], axis=1) for place, t, _ in places]
    same = [jnp.sum(place * e[None, :], axis=1) for place, _, e in places]
    return jnp.concatenate([p.batch_steps[None], *trips]), jnp.concatenate([batch_same[None], *same])
