"""What a walk need not walk twice: iterations that begin as an earlier one did. The proof stands in `model.exact`.

Of the last iterations of every loop, the walk remembers how they began and ended. What is long (keys and places) lies
in a memory of records, one written per step; loops that begin and end together share them. Of a key, a sum is looked
at first; only that of the likeliest iteration is then read and compared in full.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.model.alike import (
    KEY,
    PACKED,
    ROUNDING,
    Place,
    alike,
    at_levels,
    cycles_between,
    key_of,
    left_alone,
    moved_on,
    sums_of,
    unpacked,
)
from kpu_jax.model.moves import Context
from kpu_jax.model.walk import LOOPS, Span, column

Scalar = jax.Array
KEPT = 2  # iterations of a loop that are remembered: with two places per block, two kinds of them take turns
RECORDS = KEPT * LOOPS + 1  # one is free, whichever are remembered
PATIENCE = 24  # iterations until a leap no longer waits for slopes that settle slowly


class Growth(NamedTuple):
    """The slopes as an iteration of each loop began; [loop] on the first axis."""

    slopes: Scalar  # [loop, direction, component] of the absolute times and of the holds
    grown: Scalar  # ... by how much since the iteration that began alike
    times: Scalar  # [loop]: how many in a row began alike


class Start(NamedTuple):
    """How an iteration of each loop began, each [loop]."""

    key: Scalar  # number of the record of what decides how it goes on
    outer: Scalar  # sum of the key's parts that decide whether iterations of this loop repeat
    inner: Scalar  # ... that decide how an iteration ends
    high: Scalar  # the time, as high + low part
    low: Scalar
    at: Scalar  # its index


class Iterations(NamedTuple):
    """The last iterations of each loop [rank], the latest first."""

    began: tuple[Start, ...]
    ended: tuple[Scalar, ...]  # [loop] number of the record of the place that the last step led to
    open: Scalar  # [loop] bool: the latest has not ended yet
    growth: tuple[Growth, ...]  # of walks with slopes


class Memory(NamedTuple):
    """Records; in a batch, the schedules lie on the first axis, so that a record is read and written in one piece."""

    keys: Scalar  # [..., record, KEY]
    places: Scalar | None  # [..., record, PACKED]; not kept by walks with slopes


class Repeat(NamedTuple):
    """How the walk goes on."""

    place: Place
    slopes: Any
    leapt: Scalar  # iterations of the loop that went on
    recalled: Scalar  # rank of the loop whose new iteration is over, for it was recalled; LOOPS if there is none


class _Found(NamedTuple):
    """The remembered iteration that may have begun like the new one."""

    rank: Scalar  # of its loop; LOOPS or more if there is none
    back: Scalar  # 0: the latest
    start: Start  # of this one
    ended: Scalar | None


class _Leap(NamedTuple):
    iterations: Scalar
    cycles: Scalar
    slopes: Any  # by which they grow


def no_iterations(x: Scalar, slopes: Any) -> tuple[Iterations, Memory]:
    """Nothing walked; of the type and batch of `x` and of the slopes that the walk carries (or None)."""

    def nothing(*shape: int) -> Scalar:
        return jnp.full_like(x[0], jnp.nan, shape=(LOOPS, *shape, *x.shape[1:]))  # equals nothing

    def records(length: int) -> Scalar:
        return jnp.zeros_like(x, shape=(*x.shape[1:], RECORDS, length))

    number = jnp.zeros_like(nothing(), jnp.int32)
    growth: tuple[Growth, ...] = ()
    if slopes is not None:
        grown = nothing(*slopes.shape[:2])
        growth = (Growth(grown, grown, nothing()),) * KEPT
    seen = Iterations(
        began=(Start(number, nothing(), nothing(), nothing(), nothing(), nothing()),) * KEPT,
        ended=() if growth else (number,) * KEPT,
        open=jnp.zeros_like(nothing(), bool),
        growth=growth,
    )
    return seen, Memory(records(KEY), None if growth else records(PACKED))


def repeat(
    c: Context, seen: Iterations, memory: Memory, before: Place, place: Place, slopes: Any,
    span: Span, index: Scalar, trips: Scalar, loop: Scalar, same: Scalar,
) -> tuple[Iterations, Memory, Repeat]:  # fmt: skip
    """Note that iterations of all loops from rank `loop` on have begun and led to `place`, and go on as once before.

    `before`: where the step before had led to, at the end of the last iterations of these loops; `index`, `trips`
    [place]; `same`: up to which index the iterations of `loop` have alike blocks. First leaps over the iterations of
    `loop` that repeat, then recalls how an iteration ended that began like a new one, of the outermost loop possible.
    """
    ranks = jnp.asarray(column(range(LOOPS), loop), loop.dtype)
    begins, this = ranks >= loop, ranks == loop
    at = jnp.sum(jnp.where(c.plan.rank == loop, index, 0.0), axis=0)
    key = key_of(c, span, index, place)
    number = _unused([began.key for began in seen.began])
    keys = _write(memory.keys, number, key)
    sums = sums_of(key)
    outer, inner = (jnp.where(begins, at_levels(levels, sums), 0.0) for levels in (c.levels[:-1], c.levels[1:]))
    ended, places = seen.ended, memory.places
    if places is not None:
        end = _unused(ended)
        places = _write(places, end, before.packed())
        ended = (jnp.where(begins & seen.open, end, ended[0]), *ended[1:])

    size = jnp.sum(jnp.abs(key), axis=0)
    found = _find(seen.began, ended, place.origin, outer, inner, size, begins, this, at)
    cycles = cycles_between((found.start.high, found.start.low), place.origin)
    equal = alike(_read(keys, found.start.key), key, cycles)
    level, level_inside = _of(ranks == found.rank, c.levels[:-1]), _of(ranks == found.rank, c.levels[1:])
    repeats = (found.rank == loop) & at_levels(level, equal) & (at - found.start.at == found.back + 1)
    repeats &= (c.plan.rank[1] != loop) | (span.within > found.back)  # no first block of another image between
    leap, growth = _leap(repeats, found.back, cycles, this, seen.growth, slopes, same - at)
    old = left_alone((c.plan.rank >= loop) & (trips > 1), level)
    place = place._replace(x=jnp.where(old, place.x - leap.cycles, place.x), origin=moved_on(place.origin, leap.cycles))

    high, low = place.origin
    latest = Start(number, outer, inner, high, low, jnp.where(this, at + leap.iterations, 0.0))
    recalled = jnp.full_like(loop, LOOPS)
    if places is not None and found.ended is not None:
        recalled = jnp.where((found.rank < LOOPS) & at_levels(level_inside, equal), found.rank, recalled)
        then = _recalled(c, found, level_inside, unpacked(_read(places, found.ended)), place, trips)
        place = jax.tree.map(lambda a, b: jnp.where(recalled < LOOPS, a, b), then, place)
    noted = begins & (ranks <= recalled)
    seen = Iterations(
        began=_shifted(noted, latest, seen.began),
        ended=_shifted(noted, ended[0], ended) if ended else (),
        open=jnp.where(begins, noted, seen.open),
        growth=_shifted(noted, growth, seen.growth) if growth else (),
    )
    return seen, Memory(keys, places), Repeat(place, leap.slopes, leap.iterations, recalled)


def _find(
    began: tuple[Start, ...], ended: tuple[Scalar, ...], origin: Scalar, outer: Scalar, inner: Scalar, size: Scalar,
    begins: Scalar, this: Scalar, at: Scalar,
) -> _Found:  # fmt: skip
    """The iteration to compare with, by the sums of the keys: the last that repeats, else one of the outermost loop.

    In walks with slopes, which recall nothing, always the one before the last. `size`: the sum of all that was added
    up in `outer` and `inner` [loop], which may differ by its rounding.
    """
    ranks, none = jnp.asarray(column(range(LOOPS), size), size.dtype), float(KEPT * (LOOPS + 1))
    eps = 4 * ROUNDING * jnp.finfo(size.dtype).eps
    best = jnp.full_like(outer, none)
    for i, start in enumerate(began):
        if i + 1 < len(began) and not ended:
            continue  # slopes may take turns where times do not
        slack = eps * (size + KEY * jnp.abs(origin[0] - start.high))
        leaps = this & (jnp.abs(outer - start.outer) <= slack) & (at - start.at == i + 1)
        recalls = begins & (jnp.abs(inner - start.inner) <= slack) if ended else False
        best = jnp.minimum(best, jnp.where(leaps, i, jnp.where(recalls, KEPT * (ranks + 1) + i, none)))
    chosen = jnp.min(best, axis=0)
    row = jnp.floor(chosen / KEPT)
    back = chosen - KEPT * row
    here = jnp.where(row > 0, ranks == row - 1, this)
    rank = jnp.where(row > 0, row - 1, jnp.sum(jnp.where(this, ranks, 0.0), axis=0))

    def of(kept: tuple[Any, ...]) -> Any:
        return jax.tree.map(lambda values: _of(here, values), _iteration(back, kept))

    return _Found(rank, back, of(began), of(ended) if ended else None)


def _leap(
    repeats: Scalar, back: Scalar, cycles: Scalar, this: Scalar, kept: tuple[Growth, ...], slopes: Any, left: Scalar
) -> tuple[_Leap, Any]:
    """(the leap over the iterations that repeat, the growth to be noted).

    `repeats`: does the new iteration go on as the one `back + 1` before, which began `cycles` ago? `left`: iterations to
    the end of their kind.
    """
    periods = jnp.where(repeats & (cycles > 0), jnp.floor(left / (back + 1)), 0.0)
    grown = growth = None
    if slopes is not None:
        then = jax.tree.map(lambda values: _of(this, values), _iteration(back, kept))
        now = Growth(slopes, slopes - then.slopes, then.times + 1)
        periods = jnp.where(_settled(now.grown, then.grown) | (now.times >= PATIENCE), periods, 0.0)
        first = Growth(slopes, jnp.full_like(slopes, jnp.nan), jnp.zeros_like(left))
        growth = jax.tree.map(lambda a, b: jnp.where(repeats, a, b), now, first)
        grown = jnp.where(periods > 0, slopes + periods * now.grown, slopes)
    return _Leap(periods * (back + 1), jnp.where(periods > 0, periods * cycles, 0.0), grown), growth


def _settled(growth: Scalar, before: Scalar) -> Scalar:
    """Have all slopes [direction, component] grown as they had before?"""
    slack = 1e3 * jnp.finfo(growth.dtype).eps * (jnp.abs(growth) + jnp.max(jnp.abs(growth), axis=(0, 1)))
    return jnp.all(jnp.abs(growth - before) <= slack, axis=(0, 1))


def _recalled(c: Context, found: _Found, level: Scalar, then: Place, place: Place, trips: Scalar) -> Place:
    """The place at the end of the iteration that begins at `place` as the found one did, which ended at `then`."""
    cycles = cycles_between((found.start.high, found.start.low), then.origin)
    old = left_alone((c.plan.rank > found.rank) & (trips > 1), level)
    return then._replace(x=jnp.where(old, place.x - cycles, then.x), origin=moved_on(place.origin, cycles))


def _unused(numbers: list[Scalar] | tuple[Scalar, ...]) -> Scalar:
    """The first record that has none of the numbers [loop]."""
    used = functools.reduce(jnp.bitwise_or, [jax.lax.reduce(1 << rows, np.int32(0), jnp.bitwise_or, (0,)) for rows in numbers])
    first = ~used & (used + 1)
    return jax.lax.population_count(first - 1)


def _read(records: Scalar, number: Scalar) -> Scalar:
    """[length, ...]: the record of that number, of each schedule."""

    def read(records: Scalar, number: Scalar) -> Scalar:
        return jax.lax.dynamic_index_in_dim(records, number, keepdims=False, allow_negative_indices=False)

    return jax.vmap(read, out_axes=-1)(records, number) if number.ndim else read(records, number)


def _write(records: Scalar, number: Scalar, row: Scalar) -> Scalar:
    """The records with `row` [length, ...] at the number of each schedule."""

    def write(records: Scalar, number: Scalar, row: Scalar) -> Scalar:
        return jax.lax.dynamic_update_index_in_dim(records, row, number, 0, allow_negative_indices=False)

    return jax.vmap(write, (0, 0, -1))(records, number, row) if number.ndim else write(records, number, row)


def _iteration(back: Scalar, kept: tuple[Any, ...]) -> Any:
    """Of what is kept that of the iteration so far back."""
    return functools.reduce(lambda a, i: jax.tree.map(lambda x, y: jnp.where(back == i, y, x), a, kept[i]), range(1, KEPT), kept[0])


def _of(chosen: Scalar, values: Scalar) -> Scalar:
    """Of `values` [loop, ...] that of the chosen loop; 0 if there is none."""
    return jnp.sum(_where(chosen, values, jnp.zeros_like(values)), axis=0, dtype=values.dtype)


def _where(chosen: Scalar, new: Any, old: Scalar) -> Scalar:
    """jnp.where by loop, whatever axes lie between the loop's and those of the batch."""
    between = old.ndim - chosen.ndim
    return jnp.where(chosen.reshape(chosen.shape[:1] + (1,) * between + chosen.shape[1:]), new, old)


def _shifted(noted: Scalar, latest: Any, kept: tuple[Any, ...]) -> tuple[Any, ...]:
    """The latest before those that were kept, in the loops that note one."""
    return tuple(
        jax.tree.map(lambda new, old: _where(noted, new, old), new, old) for new, old in zip((latest, *kept), kept, strict=False)
    )
