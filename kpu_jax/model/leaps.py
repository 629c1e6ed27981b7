"""When the iterations of a loop repeat, and how far the walk may leap. The proof stands in `model.exact`."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.model.step import LEVELS, OTHER, PER_LEVEL, STATE, USED
from kpu_jax.model.walk import LOOPS, column

Scalar = jax.Array
# Iterations of one kind before a leap: the first may still carry another kind's way out and wait for what was there
# before the loop, the second waits for nothing old any more, and the third shows that the pattern repeats. The second
# shows it already if all that was there before the loop is older than anything that it could have waited for.
ALIKE = 3
DRIFT = 4096  # roundings that a component far behind may have gathered
FAR_BEHIND = 1024  # periods: an operation of the last iterations ended a few periods ago at most
PATIENCE = 24  # iterations of one kind until a leap no longer waits for slopes that settle slowly


class End(NamedTuple):
    """Where an iteration ended."""

    # [component]: the state x relative to the origin, [STATE]; the origin, high and low part; and what decides how C
    # leaves in the next step: its holds, the compute tiles along K. One array, to be kept or not as one.
    place: Scalar
    slopes: Any  # [direction, component] of the absolute times and of the holds, or None


class History(NamedTuple):
    """The end of the last iteration of an even number of each loop; [loop] on the first axis."""

    end: End
    grown: Any  # [loop, direction, component] by how much the slopes had grown over the two iterations before, or None
    alike: Scalar  # [loop]: successive iterations of one kind
    kind: Scalar  # [loop]: up to which index they are of that kind


class Leap(NamedTuple):
    iterations: Scalar
    cycles: Scalar  # by which the leap moves all that grows [fabric cycles]
    lag: Scalar  # [STATE]: by which what does not grow falls behind
    slopes: Any  # by which the slopes grow, or None


def no_history(end: End) -> History:
    """Nothing walked; of the type and batch of `end`."""
    blank = jax.tree.map(lambda v: jnp.zeros_like(v, shape=(LOOPS, *v.shape)), end)
    loops = jnp.zeros_like(blank.place[:, 0])
    return History(blank, blank.slopes, loops, loops - 1)


def leap_after(h: History, end: End, loop: Scalar, same: Scalar, index: Scalar, swaps: Scalar) -> tuple[History, Leap]:
    """Note that the iteration `index` of the loop of rank `loop` ended, and leap if it will repeat.

    `same`: index up to which iterations are alike; `swaps` [level, operand] bool: its blocks take turns in two places
    in this loop. After the last step no loop goes on (`loop` is -1). Iterations of odd number are compared with
    the one before, iterations of even number with the one before that (the second with the first), so that one end
    per loop is enough.
    """
    ranks = column(range(LOOPS), loop)
    this, inner = ranks == loop, ranks > loop

    def at_this(like: Any, chosen: Scalar = this) -> Any:
        return chosen.reshape(this.shape[:1] + (1,) * (like.ndim - this.ndim) + this.shape[1:])

    def recalled(tree: Any) -> Any:
        return jax.tree.map(lambda v: functools.reduce(lambda row, r: jnp.where(loop == r, v[r], row), range(1, LOOPS), v[0]), tree)

    # Loops inside this one start again; the others have not moved.
    alike = jnp.where(this, jnp.where(h.kind == same, h.alike, 0.0) + 1, jnp.where(inner, 0.0, h.alike))
    kind = jnp.where(this, same, jnp.where(inner, -1.0, h.kind))
    times = jnp.sum(jnp.where(this, alike, 0.0), axis=0)
    even = jnp.floor(times / 2) * 2 == times
    kept = this & (even | (times == 1))
    kept, end, then = jax.lax.optimization_barrier((kept, end, recalled(h.end)))

    origin = end.place[STATE : STATE + 2] - then.place[STATE : STATE + 2]
    cycles = origin[0] + origin[1]
    steady, still = _steady(end.place, then.place, cycles, swaps)
    steady &= (times >= ALIKE) | ((times == 2) & _older(still, then.place[:STATE]))
    by = grown = None
    if end.slopes is not None:
        by = end.slopes - then.slopes
        steady &= even & ((times >= PATIENCE) | ((times > 2 * ALIKE - 1) & _alike(by, recalled(h.grown))))
    length = jnp.where(even & (times > 2), 2.0, 1.0)  # the second is compared with the first
    periods = jnp.where(steady, jnp.floor((same - index) / length), 0.0)
    ends = jax.tree.map(lambda new, old: jnp.where(at_this(old, kept), new, old), end, h.end)
    if by is not None:
        grown = jnp.where(at_this(h.grown, kept), by, h.grown)
    leap = Leap(periods * length, periods * cycles, jnp.where(still, periods * cycles, 0.0), None if by is None else periods * by)
    return History(ends, grown, alike, kind), leap


def _steady(now: Scalar, then: Scalar, cycles: Scalar, swaps: Scalar) -> tuple[Scalar, Scalar]:
    """(did every component move by the same `cycles` or not at all, and C's way out not change; which did not [STATE])."""
    x = now[:STATE]
    moved = x - then[:STATE]  # relative to origins that have moved by `cycles`
    # Rounding of the differences: what grows is near the origin, so its slack is tight; what lags behind has been moved
    # back in every step, and no operation is as short as the slack of that. What lags by many periods was not touched.
    eps = jnp.finfo(moved.dtype).eps * (jnp.abs(x) + cycles)
    grows = jnp.abs(moved) <= jnp.minimum(16 * eps, cycles / 4)
    still = (jnp.abs(moved + cycles) <= jnp.minimum(DRIFT * eps, cycles / 4)) | (x < -FAR_BEHIND * cycles)
    # One place of a pair may hold what the other held an iteration before: both move, or neither does.
    levels = grows[: LEVELS * PER_LEVEL].reshape((LEVELS, PER_LEVEL) + cycles.shape)
    pairs = ~swaps | (levels[:, USED:OTHER] == levels[:, OTHER:-2])
    same_way_out = jnp.all(now[STATE + 2 :] == then[STATE + 2 :], axis=0)
    return jnp.all(grows | still, axis=0) & jnp.all(pairs, axis=(0, 1)) & same_way_out & (cycles > 0), still


def _older(still: Scalar, then: Scalar) -> Scalar:
    """Was all that stood `still` there before anything that moved, as of `then` [STATE]?"""
    return jnp.max(jnp.where(still, then, -jnp.inf), axis=0) < jnp.min(jnp.where(still, jnp.inf, then), axis=0)


def _alike(growth: Scalar, growth_before: Scalar) -> Scalar:
    """Did all slopes [direction, component] grow as they had before?"""
    slack = 1e3 * jnp.finfo(growth.dtype).eps * (jnp.abs(growth) + jnp.max(jnp.abs(growth), axis=(0, 1)))
    return jnp.all(jnp.abs(growth - growth_before) <= slack, axis=(0, 1))
