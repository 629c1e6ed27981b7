"""The exact makespan of a schedule: step through its passes, and leap where the pattern repeats.

Exact, not a bound: wherever the iterations of a loop are alike and the state has advanced by the same
amount twice, max-plus linearity proves that it will go on so, and the walk leaps to the loop's end.
Proof: let x' = A x be an iteration. Components that no operation of the loop writes stay constant (v), the
others (u) follow u' = A u + B v. If u grew by the same lambda > 0 in two successive iterations, then no term
of B v decided the second one (it would have been decided by the same constant before, without growth), so
u' = A u from here on, and A (lambda + u) = lambda + A u. Every component that is written grows, since it is
the end of an operation on an in-order engine; so a component that did not grow was not written.
Two places per block make two iterations take turns, a short and a long one: the same holds over pairs of
iterations (u grew by lambda since the iteration before the last, twice in succession), which leap in pairs.

Agreement with the expanded program: exact for durations that are integers or dyadic, else to
(instructions x 2^-52) relative in float64. Times are kept relative to the fabric's, with a compensated
origin, so that float32 keeps its precision over long schedules.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.model.leaps import History, leap_after, no_history
from kpu_jax.model.moves import Context, Stay, moves_at
from kpu_jax.model.step import FABRIC, LEVELS, Outs, advance, begin, finish
from kpu_jax.model.walk import LOOPS, loop_same, loop_trips, position, spans

Scalar = jax.Array


class Walk(NamedTuple):
    x: Scalar  # [STATE]
    origin: Scalar  # [2]: the time that x is relative to, as high + low part
    # [LOOPS] (hides tuple.index, which nobody calls)
    index: Scalar  # type: ignore[assignment]
    before: Scalar  # [LOOPS]: the index of the step before, -1 before the first
    outs: Outs
    stay: Stay
    history: History | None  # None: never leap
    steps: Scalar
    done: Scalar


def exact_cycles(c: Context, *, leap: bool = True) -> tuple[Scalar, Scalar]:
    """(makespan [fabric cycles], steps walked) of the schedule that `c` describes.

    `leap=False` walks every pass: the same time, and tangents that are exact along the whole path.

    Traceable and vmappable. The number of steps walked depends on how deep the loops nest, hardly on how
    long they are. Sizes or rates that are not positive numbers end the walk at once, with an infinite makespan.
    """
    walk = jax.lax.while_loop(lambda w: ~w.done, lambda w: step_walk(c, w), begin_walk(c, leap=leap))
    return end_walk(c, arrival(walk)), walk.steps


class Arrival(NamedTuple):
    """All that the makespan depends on once the last pass is made."""

    x: Scalar
    origin: Scalar
    outs: Outs


def arrival(walk: Walk) -> Arrival:
    """Where a walk stands; meaningful when it is done."""
    return Arrival(walk.x, walk.origin, walk.outs)


def end_walk(c: Context, a: Arrival) -> Scalar:
    """The makespan [fabric cycles] of a walk that has arrived: C leaves the chip after the last pass."""
    end = finish(a.x, a.outs, c.fixed, c.rates.host.latency, c.op.loc_c == 0)
    cycles = a.origin[0] + (a.origin[1] + end)
    return jnp.where(c.plan.valid & (cycles < jnp.inf), cycles, jnp.inf)


def begin_walk(c: Context, *, leap: bool = True) -> Walk:
    """At the first pass, everything free."""
    # Everything inherits the batch shape and dtype of the context, so that vmap finds a steady carry.
    zero = jnp.zeros((), jnp.result_type(float)) + 0 * (c.rates.dma.engines + c.op.m + c.plan.tile3[0])
    zeros = jnp.zeros(LOOPS) + zero
    two = jnp.zeros(2) + zero
    return Walk(
        x=begin(zero),
        origin=two,
        index=zeros,
        before=zeros - 1,
        outs=Outs(jnp.zeros((LEVELS, 1)) + zero, zero[None], zero[None] > 0),
        stay=Stay(two, two),
        history=no_history(zero) if leap else None,
        steps=zero,
        done=~c.plan.valid,
    )


def step_walk(c: Context, w: Walk) -> Walk:
    """One pass further, and on to the end of a loop whose iterations repeat."""
    at = position(c.plan, w.index)
    span = spans(c.plan, at)
    moves, outs, stay = moves_at(c, at, span, w.index != w.before, w.stay)
    x = advance(w.x, moves, w.outs, c.fixed, w.before[0] < 0)
    shift = x[FABRIC]
    x, origin = x - shift, _add(w.origin, shift)

    goes_on = w.index < loop_trips(c.plan, span) - 1
    here = jnp.arange(LOOPS)
    loop = jnp.max(jnp.where(goes_on, here, -1))  # the loop that goes on; those inside it start again
    this = here == loop
    index, history = w.index, w.history
    if history is not None:
        history, leap = leap_after(history, x, origin, loop, loop_same(c.plan, at, span), index)
        x, origin, index = x - leap.lag, _add(origin, leap.cycles), index + jnp.where(this, leap.iterations, 0.0)
    return Walk(
        x=x,
        origin=origin,
        index=jnp.where(here > loop, 0.0, index + this),
        before=index,
        outs=outs,
        stay=stay,
        history=history,
        steps=w.steps + 1,
        # A time that is no number would keep the walk from leaping, for ever as it were.
        done=w.done | (loop < 0) | ~(shift < jnp.inf),
    )


def _add(origin: Scalar, step: Any) -> Scalar:
    """origin + step as a (high, low) pair, without losing the low part (two-sum)."""
    high, low = jnp.unstack(origin)
    low += step
    total = high + low
    return jnp.stack([total, low - (total - high)])
