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

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.model.moves import Context, Stay, moves_at, outs_at
from kpu_jax.model.step import Out, Times, advance, begin, finish
from kpu_jax.model.walk import LOOPS, Position, along, loop_ends, position, spans

Scalar = jax.Array
ALIKE = 4  # iterations of one kind before a leap: the first may still carry another kind's write-back
ALIKE_PAIRS = 5  # ... and before a leap of pairs
FABRIC = Times._fields.index("fabric")  # in the flattened state; written in every step


class _History(NamedTuple):
    """The state after the last iteration of each loop, and how far that iteration had moved it."""

    state: Scalar  # [LOOPS, state], relative to:
    origin: Scalar  # [LOOPS, 2]
    moved: Scalar  # [LOOPS, state]
    moved_before: Scalar  # [LOOPS, state]: by the iteration before that
    alike: Scalar  # [LOOPS]: successive iterations of one kind
    kind: Scalar  # [LOOPS]: up to which index they are of that kind


class Walk(NamedTuple):
    x: Times
    origin: Scalar  # [2]: the time that x is relative to, as high + low part
    # [LOOPS] (hides tuple.index, which nobody calls)
    index: Scalar  # type: ignore[assignment]
    before: Position
    outs: tuple[Out, Out, Out]
    stay: Stay
    history: _History
    steps: Scalar
    done: Scalar


def exact_cycles(c: Context, *, leap: bool = True) -> tuple[Scalar, Scalar]:
    """(makespan [fabric cycles], steps walked) of the schedule that `c` describes.

    `leap=False` walks every pass: the same time, and tangents that are exact along the whole path.

    Traceable and vmappable. The number of steps walked depends on how deep the loops nest, hardly on how
    long they are.
    """
    walk = jax.lax.while_loop(lambda w: ~w.done, lambda w: step_walk(c, w, leap), begin_walk(c))
    return end_walk(c, arrival(walk)), walk.steps


class Arrival(NamedTuple):
    """All that the makespan depends on once the last pass is made."""

    x: Times
    origin: Scalar
    outs: tuple[Out, Out, Out]


def arrival(walk: Walk) -> Arrival:
    """Where a walk stands; meaningful when it is done."""
    return Arrival(walk.x, walk.origin, walk.outs)


def end_walk(c: Context, a: Arrival) -> Scalar:
    """The makespan [fabric cycles] of a walk that has arrived: C leaves the chip after the last pass."""
    end = finish(a.x, a.outs, c.delays, c.op.loc_c == 0)
    return a.origin[0] + (a.origin[1] + end)


def begin_walk(c: Context) -> Walk:
    """At the first pass, everything free."""
    # Everything inherits the batch shape and dtype of the context, so that vmap finds a steady carry.
    zero = jnp.zeros((), jnp.result_type(float)) + 0 * (c.rates.dma.engines + c.op.m + c.mapping.l3_m)
    zeros = jnp.zeros(3) + zero
    x = begin(zero)
    size = len(jax.tree_util.tree_leaves(x))
    out = Out(zero, zero > 0, zero, zero > 0)
    return Walk(
        x=x,
        origin=jnp.zeros(2) + zero,
        index=jnp.zeros(LOOPS) + zero,
        before=Position(zero, zeros, zeros, zeros),
        outs=(out, out, out),
        stay=Stay(zero, zero, zero, zero),
        history=_History(
            state=jnp.zeros((LOOPS, size)) + zero,
            origin=jnp.zeros((LOOPS, 2)) + zero,
            moved=jnp.zeros((LOOPS, size)) + zero,
            moved_before=jnp.zeros((LOOPS, size)) + zero,
            alike=jnp.zeros(LOOPS) + zero,
            kind=zero - jnp.ones(LOOPS),
        ),
        steps=zero,
        done=zero > 0,
    )


def step_walk(c: Context, w: Walk, may_leap: bool = True) -> Walk:
    """One pass further, and on to the end of a loop whose iterations repeat."""
    at = position(c.plan, w.index)
    span = spans(c.plan, at)
    axes = along(span)
    first = w.steps < 1
    moves, stay = moves_at(c, at, axes, w.before, first, w.stay)
    x = advance(w.x, moves, w.outs, c.doubles, c.delays, first)
    shift = x.fabric
    x = jax.tree.map(lambda t: t - shift, x)
    origin = _add(w.origin, shift)

    trips, same = loop_ends(c.plan, at, span)
    at_end = w.index >= trips - 1
    here = jnp.arange(LOOPS)
    loop = jnp.max(jnp.where(at_end, -1, here))  # the loop that goes on; those inside it start again
    this = here == loop
    flat = jnp.stack(jax.tree_util.tree_leaves(x))
    left = jnp.sum(jnp.where(this, same - w.index, 0.0))
    history, leap, moved, periods = _record(w.history, flat, origin, loop, same, left)
    leap, periods = jnp.where(may_leap, leap, 0.0), jnp.where(may_leap, periods, 0.0)
    # What grows moves on with the origin; what stays falls behind it.
    cycles = moved[FABRIC]
    lag = jnp.where(moved > cycles / 2, 0.0, periods * cycles)
    x = jax.tree.unflatten(jax.tree.structure(x), list(flat - lag))
    origin = _add(origin, periods * cycles)
    index = w.index + jnp.where(this, leap, 0.0)
    return Walk(
        x=x,
        origin=origin,
        index=jnp.where(here > loop, 0.0, index + this),
        before=position(c.plan, index),
        outs=outs_at(c, at, axes, stay),
        stay=stay,
        history=history,
        steps=w.steps + 1,
        done=w.done | jnp.all(at_end),
    )


def _record(
    h: _History, flat: Scalar, origin: Scalar, loop: Scalar, same: Scalar, left: Scalar
) -> tuple[_History, Scalar, Scalar, Scalar]:
    """Note that an iteration of `loop` ended; `left`: how many of its kind follow.

    Returns (history, iterations to leap, how far one period moves x, periods to leap).
    """
    here = jnp.arange(LOOPS)
    inner = here > loop
    row = jnp.maximum(loop, 0)  # after the last step no loop goes on, and nothing reads the history

    def of_loop(table: Scalar) -> Scalar:
        return jax.lax.dynamic_index_in_dim(table, row, keepdims=False)

    def put(table: Scalar, value: Scalar) -> Scalar:
        return jax.lax.dynamic_update_index_in_dim(table, value, row, 0)

    origin_then = of_loop(h.origin)
    moved = flat - of_loop(h.state) + ((origin[0] - origin_then[0]) + (origin[1] - origin_then[1]))
    moved_then, moved_before = of_loop(h.moved), of_loop(h.moved_before)
    alike = jnp.where(of_loop(h.kind) == of_loop(same), of_loop(h.alike) + 1, 1.0)
    by_two = moved + moved_then
    single = (alike >= ALIKE) & _steady(flat, moved, moved_then)
    pair = (alike >= ALIKE_PAIRS) & _steady(flat, by_two, moved_then + moved_before) & ~single
    pairs = jnp.floor(left / 2)
    history = _History(
        state=put(h.state, flat),
        origin=put(h.origin, origin),
        moved=put(h.moved, moved),
        moved_before=put(h.moved_before, moved_then),
        alike=jnp.where(inner, 0.0, put(h.alike, alike)),
        kind=jnp.where(inner, -1.0, put(h.kind, of_loop(same))),
    )
    leap = jnp.where(single, left, jnp.where(pair, 2 * pairs, 0.0))
    return history, leap, jnp.where(pair, by_two, moved), jnp.where(single, left, jnp.where(pair, pairs, 0.0))


def _steady(flat: Scalar, moved: Scalar, moved_then: Scalar) -> Scalar:
    """Did two successive periods move every component by one and the same time, or not at all?"""
    cycles = moved[FABRIC]
    grows, grew = moved > cycles / 2, moved_then > cycles / 2
    # Rounding of the differences; the components that grow are near the origin, so this is tight.
    slack = 16 * jnp.finfo(flat.dtype).eps * (jnp.abs(flat) + cycles)
    steady = (jnp.abs(moved - jnp.where(grows, cycles, 0.0)) <= slack) & (grows == grew)
    steady &= jnp.abs(moved_then - jnp.where(grows, cycles, 0.0)) <= slack
    return (cycles > 0) & jnp.all(steady)


def _add(origin: Scalar, step: Scalar) -> Scalar:
    """origin + step as a (high, low) pair, without losing the low part (two-sum)."""
    high, low = origin[0], origin[1] + step
    total = high + low
    return jnp.stack([total, low - (total - high)])
