"""Which moves one step of a schedule makes, and how long each holds its engines."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.numerics import ceil_div
from kpu_jax.engines.rates import Gang, Rates
from kpu_jax.model.step import LEVELS, C, Fixed, Moves, Outs, later
from kpu_jax.model.transfers import Blocks, Widths, transfers, widths
from kpu_jax.model.walk import LOOPS, PLACES, Plan, Span, blocks_at, column, groups_at, most_trips, plan, stacked

Scalar = jax.Array


class Stay(NamedTuple):
    """How far K went on during C's present stays in L2 and L1, and how many compute tiles along K take part."""

    advanced: Scalar  # [2] 0 or 1: since it began in L2, K went on to another L3 block, to another L3 or L2 block
    parts: Scalar  # [L2 and L1]: compute tiles


class Context(NamedTuple):
    """What a walk through a schedule needs to know; constant during the walk."""

    op: Any
    plan: Plan
    rates: Rates
    gangs: Gang  # [level]: the engines that fill each level
    fixed: Fixed
    widths: Widths
    carried: Scalar  # [level, operand] bool: blocks come from above and C goes there (not if it stays in L3)
    hosted: Scalar  # [operand] bool: lies in host memory
    streams: Scalar  # [axis] one-hot: the axis that streams through the array
    levels: Scalar  # [LOOPS + 1]: the outermost level whose engines work in the loops from this rank on, 0 to 2
    lanes: Scalar  # elements side by side in the vector engine
    speed: Scalar  # elements side by side as they stream


def context(op: Any, mapping: Any, rates: Rates, rows: Scalar, cols: Scalar, rate: Scalar, burst: Scalar) -> Context:
    """Prepare to time `op` under `mapping` on arrays of rows x cols PEs at `rate` MACs per cycle, bursts of `burst` byte."""
    gangs = _gangs(rates)
    location = stacked([op.loc_a, op.loc_b, op.loc_c])
    external = location < 2
    inside = jnp.ones_like(external)
    carried = jnp.stack([external, inside, inside])
    fabric, flow = op.kind < 2, mapping.dataflow
    walked = plan(op, mapping, rows, cols, rate)
    streams = jnp.where(fabric, (flow + 2) - 3 * (flow > 0), 0.0)
    return Context(
        op=op,
        plan=walked,
        rates=rates,
        gangs=gangs,
        fixed=Fixed(
            latency=gangs.latency,
            doubles=stacked([mapping.double_l3, mapping.double_l2, mapping.double_l1]) > 0,
            stores=carried[:, C],
        ),
        widths=widths(op, mapping, walked, burst),
        carried=carried,
        hosted=location == 0,
        streams=streams == column(range(3), streams),
        levels=_levels(walked, carried | ((op.has_bias > 0) & column([False, False, True], op.has_bias))),
        lanes=cols,
        speed=jnp.where(fabric, jnp.where(flow == 0, rate, 1.0), cols),
    )


def _levels(p: Plan, moves: Scalar) -> Scalar:
    """See `Context.levels`; `moves` [level, operand] bool: bytes move for new blocks."""
    moved = column(_TOUCHES, p.rank[0]) & (most_trips(p) > 1) & moves[:, :, None]
    l3, l2, _ = jnp.max(jnp.where(moved, p.rank, -1.0), axis=(1, 2))  # the innermost loop that moves blocks of a level
    ranks = column(range(LOOPS + 1), l3)
    return jnp.where(l3 >= ranks, 0.0, jnp.where(l2 >= ranks, 1.0, 2.0))


def _gangs(rates: Rates) -> Gang:
    return Gang(*(stacked(v) for v in zip(rates.dma, rates.block_mover, rates.streamer, strict=True)))


def timed_at(c: Context, rates: Rates) -> Context:
    """The same schedule at other rates."""
    gangs = _gangs(rates)
    return c._replace(rates=rates, gangs=gangs, fixed=c.fixed._replace(latency=gangs.latency))


_AXES = ((0, 2), (2, 1), (0, 1))  # of A: m, k; of B: k, n; of C: m, n
_HAS_AXIS = np.array([[axis in axes for axis in range(3)] for axes in _AXES])
# Of every [level, operand] the places with a loop that brings it a new block: its axes at this level and above, the batch.
_TOUCHES = np.zeros((LEVELS, 3, PLACES), bool)
_TOUCHES[..., 0] = True
for _level in range(LEVELS):
    _TOUCHES[_level:, :, 1 + 3 * _level : 4 + 3 * _level] = _HAS_AXIS


def changed_blocks(fresh: Scalar) -> Scalar:
    """[level, operand]: does any loop with a `fresh` index [place] bring a new block?"""
    along = _so_far(blocks_at(fresh)) | fresh[0]
    return jnp.any(along[:, None] & column(_HAS_AXIS, fresh[0]), axis=2)


def _so_far(flags: Scalar) -> Scalar:
    """[level, ...]: whether the flag is set at this level or at one above."""
    return jnp.stack([flags[0], flags[0] | flags[1], flags[0] | flags[1] | flags[2]])


def moves_at(c: Context, index: Scalar, span: Span, fresh: Scalar, stay: Stay) -> tuple[Moves, Outs, Stay]:
    """What the step at `index` [place] does: (its moves, how C leaves after it, C's stays from then on).

    `fresh` [place] bool: the indices that are not those of the step before.
    """
    changed = changed_blocks(fresh)
    new_c = changed[:, C]
    along_k, trips_k, active_k = blocks_at(index)[:, 2], span.trips[:, 2], span.active[:, 2]
    visited, unfinished = _so_far(along_k > 0), _so_far(along_k < trips_k - 1)
    along_l3, along_l2 = fresh[3], fresh[6]  # another block along K
    advanced = jnp.stack([along_l3, along_l3 | along_l2])
    stay = Stay(
        advanced=jnp.where(new_c[1], 0.0, jnp.where(advanced, 1.0, stay.advanced)),
        parts=jnp.where(new_c[1:], active_k, jnp.maximum(stay.parts, active_k)),
    )
    parts_l2, parts_l1 = stay.parts
    alone = parts_l2 <= 1  # no other compute tile's sums to add
    complete = ~unfinished & jnp.stack([jnp.ones_like(alone), jnp.ones_like(alone), alone])  # else L1 gives partial sums
    blocks = Blocks(span, groups_at(c.plan, index[0]), along_k, visited, complete, stay.advanced > 0, parts_l1)
    size = transfers(c.op, c.plan, c.widths, blocks)

    gangs = Gang(*(v[:, None] for v in c.gangs))
    hold = gangs.hold(size.moves)
    outs = Outs(
        hold=_outs_hold(c, span, hold[:, 3], size.sums, alone, parts_l2, unfinished),
        host_hold=size.fresh[3] / c.rates.host.limit,
        host=complete[0] & c.hosted[C],
    )

    needed_c = jnp.where(visited, c.carried[:, C], c.op.has_bias > 0)
    moved = changed & jnp.concatenate([c.carried[:, :C] & (size.moves[:, :C] > 0), needed_c[:, None]], axis=1)
    # The host sends each block of A and B once: when the loop of the axis that it lacks begins.
    from_host = c.hosted[:C] & (blocks_at(index)[0, 1::-1] == 0)
    lead = jnp.where(from_host, size.fresh[:C] / c.rates.host.limit + c.rates.host.latency, 0.0)
    overlap = c.rates.overlap > 0
    moves = Moves(
        changed=changed,
        moved=moved,
        hold=hold[:, :3],
        lead=jnp.concatenate([lead, jnp.zeros_like(lead[:1])]),
        returns=visited & moved[:, C],
        early=_early(changed, c.fixed.doubles),
        pass_hold=_stream(c, span) + c.rates.unload + jnp.where(overlap, 0.0, c.rates.fill_drain),
        pass_delay=jnp.where(overlap, c.rates.fill_drain, 0.0),
    )
    return moves, outs, stay


def _early(changed: Scalar, doubles: Scalar) -> Scalar:
    """[level]: moves in precede moves out where there are two places, unless the level above changes and has but one."""
    alike_l3, alike_l2 = ~jnp.any(changed[0], axis=0), ~jnp.any(changed[1], axis=0)
    l3, l2, l1 = doubles
    l2 &= alike_l3 | l3
    return jnp.stack([l3, l2, l1 & (alike_l2 | l2)])


def _stream(c: Context, span: Span) -> Scalar:
    """T of the pass: the elements that stream through the array, or the vector engine's cycles."""
    streaming = jnp.sum(jnp.where(c.streams, span.size[2], 0.0), axis=0)
    return ceil_div(streaming, c.speed) * jnp.where(c.op.kind < 2, c.rates.stream, c.rates.element)


def _outs_hold(
    c: Context, span: Span, hold: Scalar, sums: Scalar, alone: Scalar, parts_l2: Scalar, unfinished: Scalar
) -> Scalar:
    """[level]: how long C's way out holds the engines."""
    # Side by side with the bytes, the vector engine adds the bias as C leaves L1, and applies the activation there, or
    # where parts of K meet.
    lanes = ceil_div(span.size[1:, 0] * span.size[1:, 1], c.lanes)
    bias = jnp.where(unfinished[2], 0.0, c.rates.bias)
    at_l1 = bias + jnp.where(~unfinished[2] & alone, c.rates.activation, 0.0)
    at_l2 = jnp.where(unfinished[1] | alone, 0.0, c.rates.activation)
    # Parts of K meet on the way to L3: written there, then read, added and written once for each further part.
    mover = Gang(*(v[1] for v in c.gangs))
    full, two, last = mover.hold(sums)
    added = full + (parts_l2 - 2) * (mover.latency + two) + mover.latency + later(last, lanes[0] * at_l2)
    return jnp.stack([hold[0], jnp.where(alone, hold[1], added), later(hold[2], lanes[1] * at_l1)])
