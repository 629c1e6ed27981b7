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
LOOPS = 9  # batch, three L3 loops, three L2 loops, two pass loops; outermost first


class Span(NamedTuple):
    """One axis at one step: the sizes of its blocks and the compute tiles that share them."""

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
    """The constants of a walk."""

    size: tuple[Scalar, Scalar, Scalar]
    unit: tuple[Scalar, Scalar, Scalar]
    tile3: tuple[Scalar, Scalar, Scalar]
    tile2: tuple[Scalar, Scalar, Scalar]
    parts: tuple[Scalar, Scalar, Scalar]
    extent: tuple[Scalar, Scalar, Scalar]  # elements per pass
    place3: Scalar  # [loop, axis] one-hot: which axis each L3 loop walks
    place2: Scalar
    place1: Scalar  # [pass loop, axis]
    batch: Scalar
    batch_steps: Scalar
    l3_clean: tuple[Scalar, Scalar]  # first and last L3 index along M (in its image) untouched by padding


def _one_hot(names: tuple[str, ...]) -> np.ndarray:
    return np.array([[[float(letter == a) for a in AXES] for letter in name] for name in names])


_PLACE = _one_hot(ORDERS)
_PLACE_PASS = _one_hot(PASS_ORDERS)


def plan(op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar) -> Plan:
    """Prepare to walk the schedule of `op` under `mapping`."""
    image = op.out_h * op.out_w
    unit_m = jnp.where((op.kind == 1) & (mapping.l3_m < image), image, op.m)
    unit = (unit_m, op.n, op.k)
    tile3 = tuple(jnp.minimum(getattr(mapping, f"l3_{a}"), u) for a, u in zip(AXES, unit, strict=True))
    dtype = jnp.result_type(float)

    def pick(table: np.ndarray, code: Scalar) -> Scalar:
        chosen = (jnp.arange(len(table)) == code).astype(dtype)
        return jnp.tensordot(chosen, jnp.asarray(table, dtype), axes=1, precision=jax.lax.Precision.HIGHEST)

    batch_steps = ceil_div(op.batch, mapping.partition_b)
    block = jnp.maximum(jnp.round(tile3[0] / jnp.maximum(op.out_w, 1)), 1) * op.stride_h
    window = (op.kernel_h - 1) * op.dilation_h + 1
    clean_from = jnp.where(op.kind == 1, ceil_div(op.pad_top, jnp.maximum(block, 1)), 0.0)
    clean_to = floor_div(op.stride_h - window + op.pad_top + op.in_h, jnp.maximum(block, 1)) - 1
    return Plan(
        size=(op.m, op.n, op.k),
        unit=unit,
        tile3=tile3,
        tile2=mapping.l2_tile,
        parts=mapping.partition[1:],
        extent=pass_sizes(op, mapping, rows, cols, rate),
        place3=pick(_PLACE, mapping.l3_order),
        place2=pick(_PLACE, mapping.l2_order),
        place1=pick(_PLACE_PASS, mapping.pass_order),
        batch=op.batch,
        batch_steps=batch_steps,
        l3_clean=(clean_from, jnp.where(op.kind == 1, clean_to, 1e15)),
    )


class Position(NamedTuple):
    """Loop indices: the batch step, and the L3 block, L2 block and pass along (m, n, k)."""

    batch: Scalar
    l3: tuple[Scalar, Scalar, Scalar]
    l2: tuple[Scalar, Scalar, Scalar]
    l1: tuple[Scalar, Scalar, Scalar]


def position(p: Plan, index: Scalar) -> Position:
    """The position of loop indices [LOOPS], outermost first."""

    def axes(place: Scalar, part: Scalar) -> tuple[Scalar, Scalar, Scalar]:
        along = jnp.sum(place * part[:, None], axis=0)
        return along[0], along[1], along[2]

    return Position(index[0], axes(p.place3, index[1:4]), axes(p.place2, index[4:7]), axes(p.place1, index[7:9]))


def spans(p: Plan, at: Position) -> tuple[Span, Span, Span]:
    """Block sizes along M, N and K at a position."""
    return tuple(_span(p, at, i) for i in range(3))  # type: ignore[return-value]


def _span(p: Plan, at: Position, i: int) -> Span:
    tile3, tile2, extent = p.tile3[i], p.tile2[i], p.extent[i]
    i3, i2, i1 = at.l3[i], at.l2[i], at.l1[i]
    per_unit = ceil_div(p.unit[i], tile3)
    within = i3 - per_unit * floor_div(i3, per_unit)
    size3 = jnp.minimum(tile3, p.unit[i] - within * tile3)
    share = ceil_div(size3, p.parts[i])
    whole = floor_div(size3, share)
    rest = size3 - whole * share
    trips2 = ceil_div(share, tile2)
    size2 = jnp.minimum(tile2, share - i2 * tile2)
    rest2 = jnp.clip(rest - i2 * tile2, 0, tile2)
    trips1 = ceil_div(size2, extent)
    size1 = jnp.minimum(extent, size2 - i1 * extent)
    rest1 = jnp.clip(rest2 - i1 * extent, 0, extent)
    same3 = i3 + jnp.maximum(per_unit - 2 - within, 0.0)
    if i == 0:
        clean = (within >= p.l3_clean[0]) & (within <= p.l3_clean[1])
        same3 = jnp.where(clean, jnp.minimum(same3, i3 - within + p.l3_clean[1]), i3)
    return Span(
        l3_trips=jnp.round(p.size[i] / p.unit[i]) * per_unit,
        l2_trips=trips2,
        l1_trips=trips1,
        l3_size=size3,
        l2_size=size2,
        l1_size=size1,
        l2_total=whole * size2 + rest2,
        l1_total=whole * size1 + rest1,
        l2_active=whole + (rest2 > 0),
        l1_active=whole + (rest1 > 0),
        l3_same=same3,
        l2_same=_same(i2, rest, tile2, trips2),
        l1_same=_same(i1, rest2, extent, trips1),
    )


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


def loop_ends(p: Plan, at: Position, s: tuple[Span, Span, Span]) -> tuple[Scalar, Scalar]:
    """([LOOPS] trips of every loop here, [LOOPS] index up to which its iterations are alike)."""

    def loops(place: Scalar, name: str) -> Scalar:
        return jnp.sum(place * jnp.stack([getattr(axis, name) for axis in s])[None, :], axis=1)

    rest = p.batch - (ceil_div(p.batch, p.batch_steps) - 1) * p.batch_steps
    batch_same = jnp.where(at.batch < rest, rest, p.batch_steps) - 1
    trips = [p.batch_steps[None], *(loops(pl, f"l{d}_trips") for d, pl in ((3, p.place3), (2, p.place2), (1, p.place1)))]
    same = [batch_same[None], *(loops(pl, f"l{d}_same") for d, pl in ((3, p.place3), (2, p.place2), (1, p.place1)))]
    return jnp.concatenate(trips), jnp.concatenate(same)
