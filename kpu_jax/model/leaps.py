"""When the iterations of a loop repeat, and how far the walk may leap. The proof stands in `model.exact`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.model.step import FABRIC, STATE
from kpu_jax.model.walk import LOOPS

Scalar = jax.Array
ALIKE = 4  # iterations of one kind before a leap: the first may still carry another kind's write-back
ALIKE_PAIRS = 5  # ... and before a leap of pairs


class History(NamedTuple):
    """The state after the last iteration of each loop, and how far that iteration had moved it."""

    # [LOOPS, 3 STATE + 2]: the state, how far the last iteration moved it, and the one before that; the origin that
    # the state is relative to. One table, so that one select writes a row whichever lane of a batch it belongs to.
    table: Scalar
    alike: Scalar  # [LOOPS]: successive iterations of one kind
    kind: Scalar  # [LOOPS]: up to which index they are of that kind


class Leap(NamedTuple):
    iterations: Scalar
    cycles: Scalar  # by which the leap moves all that grows [fabric cycles]
    lag: Scalar  # [STATE]: by which what does not grow falls behind


def no_history(zero: Scalar) -> History:
    """Nothing walked; of the type and batch of `zero`."""
    return History(jnp.zeros((LOOPS, 3 * STATE + 2)) + zero, jnp.zeros(LOOPS) + zero, zero - jnp.ones(LOOPS))


def leap_after(h: History, x: Scalar, origin: Scalar, loop: Scalar, same: Scalar, index: Scalar) -> tuple[History, Leap]:
    """Note that an iteration of `loop` ended with the state `x` at `index` [LOOPS], and leap if it will repeat.

    `same` [LOOPS]: index up to which iterations are alike. After the last step no loop goes on (`loop` is -1).
    """
    here = jnp.arange(LOOPS)
    this, inner = here == loop, here > loop
    row = jnp.sum(jnp.where(this[:, None], h.table, 0.0), axis=0)
    state, moved_then, moved_before, origin_then = jax.lax.split(row, (STATE, STATE, STATE, 2))
    moved = x - state + jnp.sum(origin - origin_then)
    # Loops inside this one start again; the others have not moved.
    alike = jnp.where(this, jnp.where(h.kind == same, h.alike, 0.0) + 1, jnp.where(inner, 0.0, h.alike))
    history = History(
        table=jnp.where(this[:, None], jnp.concatenate([x, moved, moved_then, origin]), h.table),
        alike=alike,
        kind=jnp.where(this, same, jnp.where(inner, -1.0, h.kind)),
    )
    times, left = jnp.unstack(jnp.sum(jnp.where(this, jnp.stack([alike, same - index]), 0.0), axis=1))

    by_one, by_two = moved, moved + moved_then
    steady = _steady(x, jnp.stack([by_one, by_two]), jnp.stack([moved_then, moved_then + moved_before]))
    steady_one, steady_two = jnp.unstack(steady)
    single = steady_one & (times >= ALIKE)
    pair = steady_two & (times >= ALIKE_PAIRS) & ~single
    periods = jnp.where(single, left, jnp.where(pair, jnp.floor(left / 2), 0.0))
    period = jnp.where(pair, by_two, by_one)
    growth = period[FABRIC]
    cycles = periods * growth
    lag = jnp.where(period > growth / 2, 0.0, cycles)
    return history, Leap(jnp.where(pair, 2 * periods, periods), cycles, lag)


def _steady(x: Scalar, moved: Scalar, moved_then: Scalar) -> Scalar:
    """[2, STATE] -> [2]: did two successive periods move every component by one and the same time, or not at all?"""
    cycles = moved[:, FABRIC, None]
    grows, grew = moved > cycles / 2, moved_then > cycles / 2
    # Rounding of the differences; the components that grow are near the origin, so this is tight.
    slack = 16 * jnp.finfo(x.dtype).eps * (jnp.abs(x) + cycles)
    expected = jnp.where(grows, cycles, 0.0)
    apart = jnp.maximum(jnp.abs(moved - expected), jnp.abs(moved_then - expected))
    return jnp.all((apart <= slack) & (grows == grew) & (cycles > 0), axis=1)
