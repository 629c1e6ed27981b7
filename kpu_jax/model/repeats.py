"""What a walk need not walk twice: iterations that begin as an earlier one did. The proof stands in `model.exact`."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.model.alike import KEY, PACKED, Place, alike, at_levels, cycles_between, key_of, left_alone, moved_on, unpacked
from kpu_jax.model.moves import Context
from kpu_jax.model.walk import LOOPS, Span, column

Scalar = jax.Array
KEPT = 2  # iterations of a loop that are remembered: with two places per block, two kinds of them take turns
PATIENCE = 24  # iterations until a leap no longer waits for slopes that settle slowly


class Growth(NamedTuple):
    """The slopes as an iteration of each loop began; [loop] on the first axis."""

    slopes: Scalar  # [loop, direction, component] of the absolute times and of the holds
    grown: Scalar  # ... by how much since the iteration that began alike
    times: Scalar  # [loop]: how many in a row began alike


class Start(NamedTuple):
    """How an iteration of each loop began; [loop] on the first axis."""

    key: Scalar  # [loop, KEY]: what decides how it goes on
    origin: Scalar  # [loop, 2]: the time, as high + low part
    at: Scalar  # [loop]: its index


class Iterations(NamedTuple):
    """The last iterations of each loop [rank], the latest first."""

    began: tuple[Start, ...]
    ended: tuple[Scalar, ...]  # [loop, PACKED]: the place that the last step led to; not kept by walks with slopes
    open: Scalar  # [loop] bool: the latest has not ended yet
    growth: tuple[Growth, ...]  # of walks with slopes


class Repeat(NamedTuple):
    """How the walk goes on."""

    place: Place
    slopes: Any
    leapt: Scalar  # iterations of the loop that went on
    recalled: Scalar  # rank of the loop whose new iteration is over, for it was recalled; LOOPS if there is none


class _Leap(NamedTuple):
    iterations: Scalar
    cycles: Scalar
    slopes: Any  # by which they grow


def no_iterations(x: Scalar, slopes: Any) -> Iterations:
    """Nothing walked; of the type and batch of `x` and of the slopes that the walk carries (or None)."""

    def nothing(*shape: int) -> Scalar:
        return jnp.full_like(x[0], jnp.nan, shape=(LOOPS, *shape, *x.shape[1:]))  # equals nothing

    carried = slopes is not None
    return Iterations(
        began=(Start(nothing(KEY), nothing(2), nothing()),) * KEPT,
        ended=() if carried else (nothing(PACKED),) * KEPT,
        open=jnp.zeros_like(nothing(), bool),
        growth=(Growth(*[nothing(*slopes.shape[:2])] * 2, nothing()),) * KEPT if carried else (),
    )


def repeat(
    c: Context, seen: Iterations, before: Place, place: Place, slopes: Any,
    span: Span, index: Scalar, trips: Scalar, loop: Scalar, same: Scalar,
) -> tuple[Iterations, Repeat]:  # fmt: skip
    """Note that iterations of all loops from rank `loop` on have begun and led to `place`, and go on as once before.

    `before`: where the step before had led to, at the end of the last iterations of these loops; `index`, `trips`
    [place]; `same`: up to which index the iterations of `loop` have alike blocks. First leaps over the iterations of
    `loop` that repeat, then recalls how an iteration ended that began like a new one, of the outermost loop possible.
    """
    ranks = column(range(LOOPS), loop)
    begins, this = ranks >= loop, ranks == loop
    at = jnp.sum(jnp.where(c.plan.rank == loop, index, 0.0), axis=0)
    # Kept apart, lest what is noted is computed anew for every loop.
    key, old_end = jax.lax.optimization_barrier((key_of(c, span, index, place), before.packed()))
    since = [cycles_between(began.origin.swapaxes(0, 1), place.origin[:, None]) for began in seen.began]
    equal = jax.lax.optimization_barrier([alike(began.key, key, cycles) for began, cycles in zip(seen.began, since, strict=True)])

    repeats = [at_levels(c.levels[:-1], levels) & this & (at - seen.began[i].at == i + 1) for i, levels in enumerate(equal)]
    leap, growth = _leap(repeats, since, seen.growth, slopes, same - at)
    old = left_alone(c, (c.plan.rank >= loop) & (trips > 1), _of(this, c.levels[:-1]))
    place = place._replace(x=jnp.where(old, place.x - leap.cycles, place.x), origin=moved_on(place.origin, leap.cycles))
    latest = Start(key, place.origin, jnp.where(this, at + leap.iterations, 0.0))

    ended, recalled = seen.ended, jnp.full_like(loop, LOOPS)
    if ended:
        ended = (_where(begins & seen.open, old_end, ended[0]), *ended[1:])
        recalls = [at_levels(c.levels[1:], levels) & begins for levels in equal]
        place, recalled = _recall(c, recalls, seen.began, ended, place, trips)
    noted = jax.lax.optimization_barrier(begins & (ranks <= recalled))
    seen = Iterations(
        began=_shifted(noted, latest, seen.began),
        ended=_shifted(noted, ended[0], ended) if ended else (),
        open=jnp.where(begins, noted, seen.open),
        growth=_shifted(noted, growth, seen.growth) if growth else (),
    )
    return seen, Repeat(place, leap.slopes, leap.iterations, recalled)


def _leap(repeats: list[Scalar], since: list[Scalar], kept: tuple[Growth, ...], slopes: Any, left: Scalar) -> tuple[_Leap, Any]:
    """(the leap over the iterations that repeat, the growth to be noted).

    Of the last iteration and of those before: `repeats` [loop] bool, is it like the new one, and `since` [loop], the
    time since it began. `left`: iterations to the end of their kind.
    """
    zero = jnp.zeros_like(left)
    leap, growth = _Leap(zero, zero, slopes), None
    if slopes is not None:
        growth = Growth(slopes, jnp.full_like(slopes, jnp.nan), zero)
    for back in range(len(repeats), 0, -1):  # the shortest period comes last, and wins
        same = repeats[back - 1]
        found, period = jnp.any(same, axis=0), _of(same, since[back - 1])
        periods = jnp.where(found & (period > 0), jnp.floor(left / back), 0.0)
        grown = None
        if slopes is not None:
            then = jax.tree.map(lambda v, same=same: _of(same, v), kept[back - 1])
            now = Growth(slopes, slopes - then.slopes, then.times + 1)
            periods = jnp.where(_settled(now.grown, then.grown) | (now.times >= PATIENCE), periods, 0.0)
            growth = jax.tree.map(lambda a, b, found=found: jnp.where(found, a, b), now, growth)
            grown = slopes + periods * now.grown
        further = _Leap(periods * back, periods * period, grown)
        leap = jax.tree.map(lambda a, b, steady=periods > 0: jnp.where(steady, a, b), further, leap)
    return leap, growth


def _settled(growth: Scalar, before: Scalar) -> Scalar:
    """Have all slopes [direction, component] grown as they had before?"""
    slack = 1e3 * jnp.finfo(growth.dtype).eps * (jnp.abs(growth) + jnp.max(jnp.abs(growth), axis=(0, 1)))
    return jnp.all(jnp.abs(growth - before) <= slack, axis=(0, 1))


def _recall(
    c: Context, recalls: list[Scalar], began: tuple[Start, ...], ended: tuple[Scalar, ...], place: Place, trips: Scalar
) -> tuple[Place, Scalar]:
    """(the place at the end of the iteration to be recalled, the rank of its loop; `place` and LOOPS if there is none).

    Of the last iteration and of those before: `recalls` [loop] bool, did it begin like the new one.
    """
    ranks = column(range(LOOPS), trips[0])
    numbers = jnp.stack([jnp.where(one, KEPT * ranks + back, float(KEPT * LOOPS)) for back, one in enumerate(recalls)])
    chosen = jnp.min(numbers, axis=(0, 1))
    start, end = jnp.zeros_like(place.origin), jnp.zeros_like(ended[0][0])
    for rank in range(LOOPS):
        for back in range(KEPT):
            this = chosen == KEPT * rank + back
            start, end = (jnp.where(this, v[rank], row) for v, row in ((began[back].origin, start), (ended[back], end)))
    outermost = jnp.floor(chosen / KEPT)
    then = unpacked(end)
    cycles = cycles_between(start, then.origin)
    old = left_alone(c, (c.plan.rank > outermost) & (trips > 1), _of(ranks == outermost, c.levels[1:]))
    then = then._replace(x=jnp.where(old, place.x - cycles, then.x), origin=moved_on(place.origin, cycles))
    return jax.tree.map(lambda a, b: jnp.where(outermost < LOOPS, a, b), then, place), outermost


def _of(chosen: Scalar, values: Scalar) -> Scalar:
    """Of `values` [loop, ...] that of the chosen loop; 0 if there is none."""
    none = jnp.zeros_like(values[0])
    return functools.reduce(lambda row, loop: jnp.where(chosen[loop], values[loop], row), range(len(chosen)), none)


def _where(chosen: Scalar, new: Any, old: Scalar) -> Scalar:
    """jnp.where by loop, whatever axes lie between the loop's and those of the batch."""
    between = old.ndim - chosen.ndim
    return jnp.where(chosen.reshape(chosen.shape[:1] + (1,) * between + chosen.shape[1:]), new, old)


def _shifted(noted: Scalar, latest: Any, kept: tuple[Any, ...]) -> tuple[Any, ...]:
    """The latest before those that were kept, in the loops that note one."""
    return tuple(
        jax.tree.map(lambda new, old: _where(noted, new, old), new, old) for new, old in zip((latest, *kept), kept, strict=False)
    )
