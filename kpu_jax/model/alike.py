"""What decides how a walk goes on: two places with equal keys go the same way on. The proof stands in `model.exact`."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.model.moves import Context, Stay
from kpu_jax.model.step import FABRIC, LEVELS, OPERANDS, PER_LEVEL, STATE, USED, C
from kpu_jax.model.walk import PLACES, Span, blocks_at, column, groups_at

Scalar = jax.Array
_AT = tuple(PER_LEVEL * level for level in range(LEVELS))  # where a level begins among the components of x
_OUT, _FREE = PER_LEVEL - 2, PER_LEVEL - 1
# The key's parts: what only the loops that move L3 blocks read, what those that move L2 blocks read, too, and what all read.
_TIMES = (PER_LEVEL - USED + 1, PER_LEVEL + C + 1, PER_LEVEL + OPERANDS + C + 1)
_WORDS = (1, 0, 5)
_ENDS = np.cumsum(np.add(_TIMES, _WORDS))
KEY = int(_ENDS[-1])
ROUNDING = 16  # roundings that a time of the key may have gathered
_WEIGHTS = 1 + np.arange(KEY) * 0.6180339887498949 % 1  # no two alike, so that times that trade places are told apart
_IS_TIME = np.concatenate([[1.0] * times + [0.0] * words for times, words in zip(_TIMES, _WORDS, strict=True)])


class Place(NamedTuple):
    """Where a step has led to."""

    x: Scalar  # [STATE] relative to the origin
    origin: Scalar  # [2]: high and low part
    outs: Scalar  # [LEVELS + 2]: how C leaves: its holds, also to the host, and whether it goes there
    stay: Stay
    turned: Scalar  # [place] 0 or 1: the loop has left its first index

    def packed(self) -> Scalar:
        """All of it as one array, to be kept or not as one."""
        bits = jnp.sum(self.turned * column(2.0 ** np.arange(PLACES), self.x[0]), axis=0)
        return jnp.concatenate([self.x, self.origin, self.outs, *self.stay, bits[None]])


_FIELDS = (STATE, 2, LEVELS + 2, 2, 2, 1)
PACKED = sum(_FIELDS)


def unpacked(row: Scalar) -> Place:
    """The place that was `packed` into this array."""
    ends = np.cumsum(_FIELDS)
    x, origin, outs, advanced, parts, bits = (row[end - length : end] for length, end in zip(_FIELDS, ends, strict=True))
    halved = jnp.floor(bits * column(0.5 ** np.arange(PLACES), bits[0]))
    return Place(x, origin, outs, Stay(advanced, parts), halved - 2 * jnp.floor(halved / 2))


def key_of(c: Context, span: Span, index: Scalar, place: Place) -> Scalar:
    """[KEY]: all that decides how the walk goes on from `place`, where the loops inside have just begun.

    A time that no reader can have waited for is replaced by the time when its reader, which serves in order, is
    free; of the blocks, only their classes matter, not where they lie.
    """
    levels, passed = _read(place.x)
    # Loops that move nothing at a level read of it whether blocks are complete and whether C's places are free, and
    # do not read when C was complete in the level above.
    free = [place.x[at + _FREE] for at in _AT]
    c_places = [jnp.maximum(place.x[at + USED + C : at + _OUT : OPERANDS], free[i + 1]) for i, at in enumerate(_AT[:2])]
    c_out = [jnp.maximum(place.x[at + _OUT], free[i])[None] for i, at in enumerate(_AT)]
    at = blocks_at(index)
    along_k = at[:, 2]
    flags = jnp.concatenate([along_k > 0, along_k < span.trips[:, 2] - 1, place.stay.advanced > 0])
    begins = jnp.where(c.hosted[:C] & (at[0, 1::-1] == 0), column((1.0, 2.0), index[0]), 0.0)
    for_l3, *words = (
        word[None]
        for word in (
            jnp.sum(begins, axis=0) + 4 * span.window,
            span.kind,
            jnp.sum(flags * column(2.0 ** np.arange(8), index[0]), axis=0),
            groups_at(c.plan, index[0]),
        )
    )
    l3, l2, l1 = levels
    only_l3 = [l3[USED:], l2[_OUT:_FREE], for_l3]
    only_l2 = [l3[:USED], l2[USED:_OUT], c_out[1], l2[_FREE:], c_places[0], l1[_OUT:_FREE]]
    times = [l2[:USED], l1[:_OUT], c_out[2], l1[_FREE:], passed[None], c_places[1]]
    return jnp.concatenate([*only_l3, *only_l2, *times, *words, place.stay.parts])


# Whoever reads a component waits for its own engine first: one that fills this level, one that fills the level inside
# (or the fabric), the former of both, or of those that fill this level and take C on as it leaves.
_OWN, _INSIDE, _BOTH, _TAKEN = range(4)
_READERS = np.array([_INSIDE] * OPERANDS + 2 * [_OWN, _OWN, _BOTH] + [_TAKEN, _OWN])


def _read(x: Scalar) -> tuple[Scalar, Scalar]:
    """(times by level [level, component], when the last pass was complete), none earlier than anything reads it."""
    levels = x[:FABRIC].reshape((LEVELS, PER_LEVEL, *x.shape[1:]))
    own = levels[:, _FREE]
    inside = jnp.concatenate([own[1:], x[FABRIC][None]])
    taker = jnp.concatenate([own[:1], own[:2]])  # the host's wait for the memory's channels
    waits = (own, inside, jnp.minimum(own, inside), jnp.minimum(own, taker))
    rows = column(_READERS, x[0])
    until = functools.reduce(lambda row, reader: jnp.where(rows == reader, waits[reader][:, None], row), range(1, 4), waits[0][:, None])
    return jnp.maximum(levels, until), jnp.maximum(x[FABRIC + 1], own[2])


def sums_of(key: Scalar) -> tuple[Scalar, ...]:
    """[level]: a sum of the key's parts that loops which move blocks from this level on read: if it differs, so do they."""
    l3, l2, l1 = (jnp.sum(part, axis=0) for part in jnp.split(key * column(_WEIGHTS, key[0]).astype(key.dtype), _ENDS[:-1]))
    return l3 + l2 + l1, l2 + l1, l1


def alike(began: Scalar, key: Scalar, cycles: Scalar) -> tuple[Scalar, ...]:
    """[level] bool: do loops that move blocks from this level on go on from the key `began` [KEY] as from `key`?

    `cycles`: the time between, whose rounding is allowed for.
    """
    slack = ROUNDING * jnp.finfo(key.dtype).eps * column(_IS_TIME, key[0]).astype(key.dtype) * (jnp.abs(key) + jnp.abs(cycles))
    equal = jnp.abs(began - key) <= slack
    l3, l2, l1 = (jnp.all(part, axis=0) for part in jnp.split(equal, _ENDS[:-1]))
    return l3 & l2 & l1, l2 & l1, l1


def at_levels(levels: Scalar, by_level: tuple[Scalar, ...]) -> Scalar:
    """Of the three `by_level` the one of `levels` (0 to 2)."""
    l3, l2, l1 = by_level
    return jnp.where(levels == 0, l3, jnp.where(levels == 1, l2, l1))


def left_alone(walked: Scalar, level: Scalar) -> Scalar:
    """[STATE] bool: what the loops `walked` [place], which move blocks from `level` on, do not write.

    They write their levels; of the level above, when A and B were last read, if they read them; and they write when C
    has left their outermost level only if it leaves.
    """
    start = PER_LEVEL * level
    m, n, k = jnp.any(blocks_at(walked) & (level >= column([[0.0], [1.0], [2.0]], level)), axis=0) | walked[0]
    a_read, b_read = (jnp.where(moved, start - PER_LEVEL + USED + x, -1.0) for x, moved in enumerate((m | k, k | n)))
    c_out = jnp.where(m | n | (level == 0), -1.0, start + _OUT)
    component = column(np.arange(float(STATE)), level)
    return ((component < start) & (component != a_read) & (component != b_read)) | (component == c_out)


def cycles_between(start: Any, end: Any) -> Scalar:
    """From one origin to another, each a (high, low) pair."""
    return (end[0] - start[0]) + (end[1] - start[1])


def moved_on(origin: Scalar, by: Any) -> Scalar:
    """origin + by as a (high, low) pair, without losing the low part (two-sum)."""
    high, low = origin
    low += by
    total = high + low
    return jnp.stack([total, low - (total - high)])
