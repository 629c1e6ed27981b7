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
PLACES = 10  # what loops walk: the batch, and three axes at three levels


class Span(NamedTuple):
    """Blocks at one step: [level, axis], levels L3, L2, L1."""

    trips: Scalar  # blocks of this level in the present one of the level above (L3: in the operation)
    size: Scalar  # of the first compute tile (L3: of all) [element]
    total: Scalar  # of all compute tiles along the axis [element]
    active: Scalar  # [L2 and L1, axis]: compute tiles with a part
    same: Scalar  # up to this index all blocks are like the present one
    within: Scalar  # [axis]: L3 index within the unit


class Plan(NamedTuple):
    """The constants of a walk; [axis] stands for (m, n, k), [place] for the batch and then [level, axis] flattened."""

    unit: Scalar  # [axis] L3 blocks do not cross multiples of this
    per_unit: Scalar  # [axis] L3 blocks in a unit
    trips3: Scalar  # [axis] L3 blocks
    tile3: Scalar  # [axis]
    inner: Scalar  # [L2 and L1, axis] elements per L2 block of a compute tile, and per pass
    parts: Scalar  # [axis] compute tiles
    place: Scalar  # [LOOPS, place] one-hot: the place that each loop walks
    touches: Scalar  # [LOOPS, level, operand] bool: another index of this loop means another block of the operand
    batch_steps: Scalar
    groups: Scalar  # compute-tile groups, each with its own batch elements
    full_steps: Scalar  # batch steps in which every group has one
    clean_from: Scalar  # [axis] L3 indices (within a unit) whose blocks touch no padding
    clean_to: Scalar

    @property
    def valid(self) -> Scalar:
        """Whether all sizes are positive numbers, so that every loop has an end."""
        sizes = jnp.concatenate([self.unit, self.tile3, self.inner.ravel(), self.parts, self.trips3, self.batch_steps[None]])
        return jnp.all((sizes > 0) & (sizes < jnp.inf))


def _one_hot(names: tuple[str, ...]) -> np.ndarray:
    return np.array([[[float(letter == a) for a in AXES] for letter in name] for name in names])


_PLACE = _one_hot(ORDERS)
_PLACE_PASS = _one_hot(PASS_ORDERS)
_OPERANDS = ("mk", "kn", "mn")
# [place, level, operand]: a new block at this place is a new block of the operands that have the axis, here and below.
_REACH = np.array(
    [[[1.0] * 3] * 3] + [[[float(at <= below and a in x) for x in _OPERANDS] for below in range(3)] for at in range(3) for a in AXES]
)


def plan(op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar) -> Plan:
    """Prepare to walk the schedule of `op` under `mapping`."""
    image = op.out_h * op.out_w
    conv = op.kind == 1
    dtype = jnp.result_type(float)

    def axes(*values: Any) -> Scalar:
        return jnp.stack([jnp.asarray(v, dtype) for v in values])

    size = axes(op.m, op.n, op.k)
    unit = axes(jnp.where(conv & (mapping.l3_m < image), image, op.m), op.n, op.k)
    tile3 = jnp.minimum(axes(*mapping.l3_tile), unit)
    per_unit = ceil_div(unit, tile3)

    def pick(table: np.ndarray, code: Scalar, level: int) -> Scalar:
        chosen = (jnp.arange(len(table)) == code).astype(dtype)
        place = jnp.sum(chosen[:, None, None] * jnp.asarray(table, dtype), axis=0)
        return jnp.pad(place, ((0, 0), (1 + 3 * level, 6 - 3 * level)))

    loops = ((_PLACE, mapping.l3_order), (_PLACE, mapping.l2_order), (_PLACE_PASS, mapping.pass_order))
    place = jnp.concatenate([np.eye(1, PLACES), *(pick(table, code, level) for level, (table, code) in enumerate(loops))])

    batch_steps = ceil_div(op.batch, mapping.partition_b)
    groups = ceil_div(op.batch, batch_steps)
    block = jnp.maximum(jnp.round(tile3[0] / jnp.maximum(op.out_w, 1)) * op.stride_h, 1)
    window = (op.kernel_h - 1) * op.dilation_h + 1
    clean_from = jnp.where(conv, ceil_div(op.pad_top, block), 0.0)
    clean_to = jnp.where(conv, floor_div(op.stride_h - window + op.pad_top + op.in_h, block) - 1, FAR)
    return Plan(
        unit=unit,
        per_unit=per_unit,
        trips3=jnp.round(size / unit) * per_unit,
        tile3=tile3,
        inner=jnp.stack([axes(*mapping.l2_tile), axes(*pass_sizes(op, mapping, rows, cols, rate))]),
        parts=axes(*mapping.partition[1:]),
        place=place,
        touches=jnp.sum(place[:, :, None, None] * _REACH, axis=1) > 0,
        batch_steps=batch_steps,
        groups=groups,
        full_steps=op.batch - (groups - 1) * batch_steps,
        clean_from=axes(clean_from, 0.0, 0.0),
        clean_to=axes(clean_to, FAR, FAR),
    )


class Position(NamedTuple):
    """Loop indices by what they walk."""

    batch: Scalar
    block: Scalar  # [level, axis]: the L3 block, L2 block and pass


def position(p: Plan, index: Scalar) -> Position:
    """The position of loop indices [LOOPS], outermost first."""
    places = jnp.sum(p.place * index[:, None], axis=0)
    return Position(places[0], places[1:].reshape(3, 3))


def spans(p: Plan, at: Position) -> Span:
    """Block sizes at a position."""
    at3, at2, at1 = jnp.unstack(at.block)
    tile2, extent = jnp.unstack(p.inner)
    within = at3 - p.per_unit * floor_div(at3, p.per_unit)
    size3 = jnp.minimum(p.tile3, p.unit - within * p.tile3)
    share = ceil_div(size3, p.parts)
    whole = floor_div(size3, share)
    # [first compute tile and the one with the remainder, axis]
    cut = jnp.stack([share, size3 - whole * share])
    cut2 = jnp.maximum(jnp.minimum(cut - at2 * tile2, tile2), 0.0)
    cut1 = jnp.maximum(jnp.minimum(cut2 - at1 * extent, extent), 0.0)
    first, rest = jnp.unstack(jnp.stack([cut, cut2, cut1]), axis=1)  # [level, axis], L3: of its share
    trips = ceil_div(first[:2], p.inner)
    total = whole * first[1:] + rest[1:]
    same3 = at3 + jnp.minimum(jnp.maximum(p.per_unit - 2 - within, 0.0), p.clean_to - within)
    clean = (within >= p.clean_from) & (within <= p.clean_to)
    same = _same(at.block[1:], rest[:2], p.inner, trips)
    return Span(
        trips=jnp.concatenate([p.trips3[None], trips]),
        size=jnp.concatenate([size3[None], first[1:]]),
        total=jnp.concatenate([size3[None], total]),
        active=whole + (rest[1:] > 0),
        same=jnp.concatenate([jnp.where(clean, same3, at3)[None], same]),
        within=within,
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
    """[LOOPS] trips of every loop here."""
    return _by_loop(p, p.batch_steps, s.trips)


def loop_same(p: Plan, at: Position, s: Span) -> Scalar:
    """[LOOPS] index up to which the iterations of every loop are alike."""
    alike = jnp.where(at.batch < p.full_steps, p.full_steps, p.batch_steps) - 1
    batch = jnp.maximum(jnp.minimum(alike, p.batch_steps - 2), at.batch)  # never leap past the last one
    return _by_loop(p, batch, s.same)


def _by_loop(p: Plan, batch: Scalar, blocks: Scalar) -> Scalar:
    return jnp.sum(p.place * jnp.concatenate([batch[None], blocks.ravel()]), axis=1)
