"""Which moves one step of a schedule makes, and how long each holds its engines."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.numerics import ceil_div
from kpu_jax.engines.rates import Gang, Rates
from kpu_jax.model.step import LEVELS, C, Fixed, Moves, Outs
from kpu_jax.model.transfers import Blocks, Widths, transfers, widths
from kpu_jax.model.walk import Plan, Position, Span, groups_at, plan

Scalar = jax.Array
_SO_FAR = np.tril(np.ones((LEVELS, LEVELS), bool))  # [level, this level and those above it]
_IS_L2 = np.array([False, True, False])
_IS_L1 = np.array([False, False, True])


class Stay(NamedTuple):
    """How C's present stays in L2 and L1 began, and how many compute tiles along K take part."""

    began: Scalar  # [2]: index along K of the L3 and the L2 block
    parts: Scalar  # [L2 and L1]: compute tiles


class Context(NamedTuple):
    """What a walk through a schedule needs to know; constant during the walk."""

    op: Any
    plan: Plan
    rates: Rates
    gangs: Gang  # [level, 1]: the engines that fill each level
    fixed: Fixed
    widths: Widths
    carried: Scalar  # [level, operand] bool: blocks come from above and C goes there (not if it stays in L3)
    hosted: Scalar  # [operand] bool: lies in host memory
    streams: Scalar  # [axis] one-hot: the axis that streams through the array
    stream_cost: Scalar  # cycles per element, or per row of as many elements as there are lanes
    speeds: Scalar  # [1 + level]: elements side by side as they stream, and in the vector engine (its lanes)


def context(op: Any, mapping: Any, rates: Rates, rows: Scalar, cols: Scalar, rate: Scalar, burst: Scalar) -> Context:
    """Prepare to time `op` under `mapping` on arrays of rows x cols PEs at `rate` MACs per cycle, bursts of `burst` byte."""
    dtype = jnp.result_type(float)
    gangs = jax.tree.map(
        lambda *v: jnp.stack([jnp.asarray(x, dtype) for x in v])[:, None], rates.dma, rates.block_mover, rates.streamer
    )
    doubles = jnp.stack([mapping.double_l3 > 0, mapping.double_l2 > 0, mapping.double_l1 > 0])
    location = jnp.stack([op.loc_a, op.loc_b, op.loc_c])
    carried = (location < 2) | np.array([[False], [True], [True]])
    fabric, flow = op.kind < 2, mapping.dataflow
    walked = plan(op, mapping, rows, cols, rate)
    return Context(
        op=op,
        plan=walked,
        rates=rates,
        gangs=gangs,
        fixed=Fixed(latency=gangs.latency, doubles=doubles[:, None], stores=carried[:, C:]),
        widths=widths(op, mapping, walked, burst),
        carried=carried,
        hosted=location == 0,
        streams=(jnp.where(fabric, (flow + 2) - 3 * (flow > 0), 0.0) == np.arange(3.0)).astype(dtype),
        stream_cost=jnp.where(fabric, rates.stream, rates.element),
        speeds=jnp.stack([jnp.where(fabric, jnp.where(flow == 0, rate, 1.0), cols), *[jnp.asarray(cols, dtype)] * LEVELS]),
    )


def _so_far(flags: Scalar) -> Scalar:
    """[level]: whether the flag is set at this level or at one above."""
    return jnp.any(flags & _SO_FAR, axis=1)


def moves_at(c: Context, at: Position, span: Span, changed_loops: Scalar, stay: Stay) -> tuple[Moves, Outs, Stay]:
    """What the step at position `at` does: (its moves, how C leaves after it, C's stays from then on).

    `changed_loops` [LOOPS] bool: the loops whose index is not that of the step before.
    """
    changed = jnp.any(c.plan.touches & changed_loops[:, None, None], axis=0)
    new_c = changed[:, C]
    along_k, trips_k, active_k = at.block[:, 2], span.trips[:, 2], span.active[:, 2]
    visited, unfinished = _so_far(along_k > 0), _so_far(along_k < trips_k - 1)
    stay = Stay(
        began=jnp.where(new_c[1], along_k[:2], stay.began),
        parts=jnp.where(new_c[1:], active_k, jnp.maximum(stay.parts, active_k)),
    )
    parts_l2, parts_l1 = jnp.unstack(stay.parts)
    alone = parts_l2 <= 1  # no other compute tile's sums to add
    complete = ~unfinished & (alone | ~_IS_L1)  # else L1 gives partial sums
    blocks = Blocks(at, span, groups_at(c.plan, at.batch), along_k, visited, complete, stay.began, parts_l1)
    size = transfers(c.op, c.plan, c.widths, blocks)

    hold_in, hold_out, hold_full, hold_two, hold_last = jax.lax.split(c.gangs.hold(size.columns), (3, 1, 1, 1, 1), axis=1)
    stream, lanes = _compute(c, span)
    bias = jnp.where(~unfinished & _IS_L1, c.rates.bias, 0.0)
    # With the last addition of parts in L2, or without one as C leaves L1.
    activation = jnp.where(complete & (_IS_L2 & ~alone | _IS_L1), c.rates.activation, 0.0)
    on_vector = lanes * (bias + activation)[:, None]
    # Parts of K meet on the way to L3: written there, then read, added and written once for each further part.
    added = hold_full + (parts_l2 - 2) * (c.gangs.latency + hold_two)
    added += c.gangs.latency + jnp.maximum(hold_last, on_vector)
    outs = Outs(
        hold=jnp.where(_IS_L2[:, None] & ~alone, added, jnp.maximum(hold_out, on_vector)),
        host_hold=size.fresh[3:] / c.rates.host.limit,
        host=complete[:1] & c.hosted[C:],
    )

    needed = jnp.concatenate(
        [c.carried[:, :C] & (size.columns[:, :C] > 0), jnp.where(visited, c.carried[:, C], c.op.has_bias > 0)[:, None]], axis=1
    )
    moved = changed & needed
    # The host sends each block of A and B once: when the loop of the axis that it lacks begins.
    from_host = c.hosted[:C] & (at.block[0, 1::-1] == 0)
    lead = jnp.where(from_host, size.fresh[:C] / c.rates.host.limit + c.rates.host.latency, 0.0)
    overlap = c.rates.overlap > 0
    moves = Moves(
        changed=changed,
        moved=moved,
        hold=hold_in,
        lead=jnp.pad(lead[None], ((0, LEVELS - 1), (0, 1))),
        returns=visited & moved[:, C],
        early=_early(changed, c.fixed.doubles[:, 0]),
        pass_hold=stream + jnp.where(overlap, 0.0, c.rates.fill_drain),
        pass_delay=jnp.where(overlap, c.rates.fill_drain, 0.0),
    )
    return moves, outs, stay


def _early(changed: Scalar, doubles: Scalar) -> Scalar:
    """[level]: moves in precede moves out where there are two places, unless the level above changes and has but one."""
    alike_l3, alike_l2, _ = jnp.unstack(~jnp.any(changed, axis=1))
    l3, l2, l1 = jnp.unstack(doubles)
    l2 &= alike_l3 | l3
    return jnp.stack([l3, l2, l1 & (alike_l2 | l2)])


def _compute(c: Context, span: Span) -> tuple[Scalar, Scalar]:
    """(T of the pass: the elements that stream through the array, or the vector engine's cycles;

    [level, 1]: elements per lane when the vector engine goes over the block of C).
    """
    streaming = jnp.sum(c.streams * span.size[2], keepdims=True)
    counts = ceil_div(jnp.concatenate([streaming, span.size[:, 0] * span.size[:, 1]]), c.speeds)
    return counts[0] * c.stream_cost, counts[1:, None]
