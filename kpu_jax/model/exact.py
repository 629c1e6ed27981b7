"""The exact makespan of a schedule: step through its passes, leap where iterations repeat, recall those walked before.

Exact, not a bound. A *key* (`alike.key_of`) holds all that decides how a walk goes on from where an iteration of a loop
has begun: the classes of its blocks, how C leaves and stays, and the times x, relative to the fabric's, that the
operations from there on read.
Recall. Two iterations of a loop whose inner loops begin at equal keys make the same operations of the same durations.
Those are linear over (max, +), A (lambda + x) = lambda + A x: what they write differs by just the time between their
beginnings. So the second ends where the first did, that time later, except for what they leave alone (`left_alone`):
that stays as it is. A time that an operation reads counts in the key as no earlier than when its engine is free, for
engines serve in order: an earlier one decides nothing, now or later, also if it passes on to the place that takes
turns with its own.
Leap. If an iteration of the running loop begins at the same key as the one before, and the blocks are alike up to
some index, the same argument holds from beginning to beginning: every iteration up to there begins at that key, one
period later. What none of them writes has fallen behind by a period without a change of the key, so it counts no
more than its readers' engines do, and will not when it is older still. Two places per block make two iterations
take turns, a short and a long one: then pairs of iterations repeat.
Which loops move blocks of L3 or of L2 is known beforehand: for those that do not, only a part of the key is read.

Slopes in the rates are carried along the same walk, every maximum following one of its arguments; with the
times periodic, each component's slope follows from a fixed other one's an iteration before, so growth that repeats
once repeats for ever, and leaps wait for that too; such a walk recalls nothing. At ties one of the critical paths is
followed. Slopes that have not settled after `repeats.PATIENCE` iterations (seen at ties only) go on by their growth
over the last two: the slopes by all engine classes still add up to the time, but a single one is then an estimate.

Agreement with the expanded program: exact for durations that are integers or dyadic, else to
(instructions x 2^-52) relative in float64. Times are kept relative to the fabric's, with a compensated
origin, so that float32 keeps its precision over long schedules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.engines.rates import Rates
from kpu_jax.model.alike import Place, moved_on
from kpu_jax.model.moves import Context, Stay, moves_at, timed_at
from kpu_jax.model.repeats import Iterations, Memory, no_iterations, repeat
from kpu_jax.model.step import FABRIC, LEVELS, STATE, Outs, advance, begin, finish
from kpu_jax.model.walk import PLACES, loop_same, loop_trips, spans

Scalar = jax.Array


class Slopes(NamedTuple):
    """Which derivatives a walk carries along."""

    rates_at: Callable[[Scalar], Rates]  # rates at the parameters
    at: Scalar  # [direction]: parameters


class Arrival(NamedTuple):
    """All that the makespan depends on once the last pass is made."""

    x: Scalar  # [STATE]
    origin: Scalar  # [2]: the time that x is relative to, as high + low part
    outs: Outs
    slopes: Any  # [direction, STATE + 4]: of the absolute times and of the holds of C's way out; None: not carried


class Walk(NamedTuple):
    now: Arrival
    # [place] (hides tuple.index, which nobody calls)
    index: Scalar  # type: ignore[assignment]
    fresh: Scalar  # [place] bool: the index is not that of the step before
    stay: Stay
    loop: Scalar  # rank of the loop that went on to this step; -1 at first
    seen: Iterations | None  # None: walk every pass
    memory: Memory | None
    steps: Scalar
    done: Scalar


def exact_cycles(c: Context, *, leap: bool = True) -> tuple[Scalar, Scalar]:
    """(makespan [fabric cycles], steps walked) of the schedule that `c` describes.

    `leap=False` walks every pass: the same time. Traceable; for many schedules at once use `model.batch`.
    The number of steps walked depends on how deep the loops nest, hardly on how long they are. Sizes or rates
    that are not positive numbers end the walk at once, with an infinite makespan.
    """
    walk = jax.lax.while_loop(lambda w: ~w.done, lambda w: step_walk(c, w), begin_walk(c, leap=leap))
    return end_walk(c, walk.now)[0], walk.steps


def exact_slopes(c: Context, along: Slopes, *, leap: bool = True) -> tuple[Scalar, Scalar]:
    """(makespan, its derivatives [direction]) of the schedule that `c` describes, with the rates `along` gives."""
    walk = jax.lax.while_loop(lambda w: ~w.done, lambda w: step_walk(c, w, along), begin_walk(c, along, leap=leap))
    return end_walk(c, walk.now, along)


def end_walk(c: Context, a: Arrival, along: Slopes | None = None) -> tuple[Scalar, Any]:
    """(makespan [fabric cycles], its slopes or None) of a walk that has arrived: C leaves the chip after the last pass."""

    def last(t: Context, x: Scalar, outs: Outs) -> Scalar:
        return finish(x, outs, t.fixed, t.rates.host.latency, t.hosted[-1])

    end, slopes = last(c, a.x, a.outs), None
    if along is not None:
        (end, _), slopes = _pushed(c, along, a, lambda t, x, outs: (last(t, x, outs), None))
    cycles = a.origin[0] + (a.origin[1] + end)
    return jnp.where(c.plan.valid & (cycles < jnp.inf), cycles, jnp.inf), slopes


def begin_walk(c: Context, along: Slopes | None = None, *, leap: bool = True) -> Walk:
    """At the first pass, everything free."""
    # Everything inherits the batch shape and dtype of the context.
    zero = jnp.zeros((), jnp.result_type(float)) + 0 * (c.rates.dma.engines + c.plan.tile3[0])
    zeros = jnp.stack([zero] * PLACES)
    nothing = zeros[:LEVELS]
    slopes = None if along is None else jnp.zeros((len(along.at), STATE + LEVELS + 1, *zero.shape), zero.dtype)
    now = Arrival(begin(zero), zeros[:2], Outs(nothing, zero, zero > 0), slopes)
    seen, memory = no_iterations(now.x, slopes) if leap else (None, None)
    return Walk(
        now=now,
        index=zeros,
        fresh=zeros == 0,
        stay=Stay(zeros[:2], zeros[:2]),
        loop=zero - 1,
        seen=seen,
        memory=memory,
        steps=zero,
        done=~c.plan.valid,
    )


def step_walk(c: Context, w: Walk, along: Slopes | None = None) -> Walk:
    """One pass further, and on to the end of a loop whose iterations repeat."""
    span = spans(c.plan, w.index)

    def step(t: Context, x: Scalar, outs: Outs) -> Any:
        moves, next_outs, stay = moves_at(t, w.index, span, w.fresh, w.stay)
        return advance(x, moves, outs, t.fixed, w.steps == 0), (next_outs, stay)

    if along is None:
        x, (outs, stay) = step(c, w.now.x, w.now.outs)
        slopes = None
    else:
        (x, (outs, stay)), slopes = _pushed(c, along, w.now, step)
    shift = x[FABRIC]
    now = Arrival(x - shift, moved_on(w.now.origin, shift), outs, slopes)

    rank, trips, index = c.plan.rank, loop_trips(c.plan, span), w.index
    seen, memory, over = w.seen, w.memory, jnp.zeros_like(w.fresh)
    if seen is not None and memory is not None:
        same = jnp.sum(jnp.where(rank == w.loop, loop_same(c.plan, index, span), 0.0), axis=0)
        before, place = _place(w.now, w.stay, w.fresh), _place(now, stay, jnp.zeros_like(w.fresh))
        seen, memory, on = repeat(c, seen, memory, before, place, slopes, span, index, trips, w.loop, same)
        over = rank > on.recalled
        index = jnp.where(over, on.place.turned, index + jnp.where(rank == w.loop, on.leapt, 0.0))
        *holds, host = on.place.outs
        now = Arrival(on.place.x, on.place.origin, Outs(jnp.stack(holds[:-1]), holds[-1], host > 0), on.slopes)
        stay = on.place.stay
    goes_on = (index < trips - 1) & (index + 1 > index) & ~over  # float32 counts to 2^24
    loop = jnp.max(jnp.where(goes_on, rank, -1.0), axis=0)  # the loop that goes on; those inside it start again
    following = jnp.where(rank > loop, 0.0, index + (goes_on & (rank == loop)))
    return Walk(
        now=now,
        index=following,
        fresh=following != index,
        stay=stay,
        loop=loop,
        seen=seen,
        memory=memory,
        steps=w.steps + 1,
        # A time that is no number would keep the walk from repeating, for ever as it were.
        done=w.done | (loop < 0) | ~(shift < jnp.inf),
    )


def _place(now: Arrival, stay: Stay, turned: Scalar) -> Place:
    holds = [*now.outs.hold, now.outs.host_hold, now.outs.host]
    return Place(now.x, now.origin, jnp.stack([jnp.asarray(v, now.x.dtype) for v in holds]), stay, jnp.asarray(turned, now.x.dtype))


def _pushed(c: Context, along: Slopes, a: Arrival, step: Callable[[Context, Scalar, Outs], Any]) -> tuple[Any, Scalar]:
    """((times, rest) of `step`, slopes of both the times and, if the rest has them, the holds of C's way out)."""

    def at(parameters: Scalar, x: Scalar, hold: Scalar, host_hold: Scalar) -> Any:
        times, rest = step(timed_at(c, along.rates_at(parameters)), x, Outs(hold, host_hold, a.outs.host))
        holds = () if rest is None else (rest[0].hold, rest[0].host_hold)
        return (times, *holds), rest

    def push(direction: Scalar, slopes: Scalar) -> Any:
        moving = (direction, slopes[:STATE], slopes[STATE:-1], slopes[-1])
        (times, *_), (slope, *holds), rest = jax.jvp(at, (along.at, a.x, a.outs.hold, a.outs.host_hold), moving, has_aux=True)
        if holds:
            slope = jnp.concatenate([slope, holds[0], holds[1][None]])
        return (times, rest), slope

    n = len(along.at)
    directions = jnp.eye(n, dtype=along.at.dtype).reshape((n, n) + (1,) * (along.at.ndim - 1)) + jnp.zeros_like(along.at)
    return jax.vmap(push, out_axes=(None, 0))(directions, a.slopes)

