"""One tile step of a schedule, x' = step(x): linear over (max, +) in the completion times x.

x holds when each engine is free, when each operand's current block is complete at each level, and when
the places that blocks occupy are free again. Which moves a step makes, and how long they take, does not
depend on x: times enter through max and plus only, so that vmapping the step over the max-plus identity
gives its matrix. Every operation starts when its operands are complete, the place that it writes is free,
and its engine is free. Operands are (A, B, C), levels (L3, L2, L1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Scalar = jax.Array
NEVER = -1e30  # epsilon of the (max, +) algebra: constrains nothing
LEVELS = OPERANDS = 3
C = 2  # index of C among the operands
_IS_C = np.array([False, False, True])


class Level(NamedTuple):
    """Where the operands stand at one level [fabric cycles]."""

    ready: Any  # [operand]: the current block is complete (C: what it began with, partial sums or bias, is there)
    used: Any  # [operand]: the current block's last reader is complete (C: its place is free of the previous block)
    other: Any  # [operand]: the other place is free
    out: Any  # [1]: the last write-back of C from here is complete
    free: Any  # [1]: the gang that fills this level and empties it is free; L3's holds the memory channels,
    # which host transfers need too


class Times(NamedTuple):
    """The state x [fabric cycles]."""

    levels: tuple[Level, ...]  # L3, L2, L1
    fabric: Any  # [1]: the fabric is free
    passed: Any  # [1]: the last pass is complete


_SIZES = (OPERANDS, OPERANDS, OPERANDS, 1, 1) * LEVELS + (1, 1)
STATE = sum(_SIZES)  # components of x
FABRIC = STATE - 2  # in x as one array; written in every step


class Moves(NamedTuple):
    """What one step does."""

    changed: Any  # [level, operand]: a new block becomes resident
    moved: Any  # [level, operand]: ... and bytes move for it
    hold: Any  # [level, operand] [fabric cycles]
    lead: Any  # [level, operand]: from the start of the transfer from the host to its completion, 0 if there is none
    returns: Any  # [level]: C's partial sums come back
    early: Any  # [level]: moves in before the previous step's moves out
    pass_hold: Any
    pass_delay: Any  # from the end of the hold to completion


class Outs(NamedTuple):
    """How C leaves after a step. Whether it leaves a level is `Moves.changed` of the next step."""

    hold: Any  # [level, 1]
    host_hold: Any  # [1]: the transfer to the host that follows the one out of L3
    host: Any  # [1] bool: there is one


class Fixed(NamedTuple):
    """What all steps of a schedule share."""

    latency: Any  # [level, 1] of the engines [fabric cycles]
    doubles: Any  # [level, 1] bool: two places per block
    stores: Any  # [level, 1] bool: C's way out of here takes time (not so out of L3 if C stays there)


def begin(zero: Scalar) -> Scalar:
    """x [STATE] with everything free at time 0 and nothing resident."""
    level = Level(*(np.full(n, v) for n, v in zip(_SIZES, (NEVER, 0.0, 0.0, 0.0, 0.0), strict=False)))
    return pack(Times((level,) * LEVELS, np.zeros(1), np.zeros(1))) + zero


def pack(x: Times) -> Scalar:
    """x as one array [STATE]."""
    return jnp.concatenate(jax.tree.leaves(x))


def unpack(x: Scalar) -> Times:
    """The parts of an array [STATE]."""
    parts = jax.lax.split(x, _SIZES)
    return Times(tuple(Level(*parts[5 * i : 5 * i + 5]) for i in range(LEVELS)), *parts[-2:])


def _most(first: Any, *others: Any) -> Any:
    for t in others:
        first = jnp.maximum(first, t)
    return first


# In order on one engine, operand i ends at e_i = max(e_{i-1} + a_i, b_i) with a_i the time that it takes at least
# after its predecessor, and b_i its end as far as its source and its place decide: e = S (x) (e_before, b).
_SPANS = np.array([[[float(j <= x <= i) for x in range(OPERANDS)] for j in range(OPERANDS + 1)] for i in range(OPERANDS)])
_LATER = np.array([[NEVER if j > i + 1 else 0.0 for j in range(OPERANDS + 1)] for i in range(OPERANDS)])


def _in_order(after: Any) -> Any:
    """[..., operand, 1 + operand] max-plus matrix S of moves that take `after` [..., operand]."""
    return jnp.sum(after[..., None, None, :] * _SPANS, axis=-1) + _LATER


class _MovesIn(NamedTuple):
    """The moves into one level in one of the two phases; max-plus constants [operand]."""

    changed: Any  # bool
    swap: Any  # bool: the other place is taken
    doubles: Any  # bool
    wait: Any  # from the last write-back to the operand's return
    end: Any  # from source and place to the end of the hold
    order: Any  # [operand, 1 + operand]
    land: Any  # from the end of the hold to completion


def _moves_in(moves: Moves, fixed: Fixed) -> list[_MovesIn]:
    """Per phase (before and after the moves out) and level: every level's moves take place in one of the two."""
    when = jnp.stack([moves.early, ~moves.early])[..., None]
    changed, moved = moves.changed & when, moves.moved & when
    wait = jnp.where(moves.returns[:, None] & _IS_C, 0.0, NEVER)
    table = _MovesIn(
        changed=changed,
        swap=changed & fixed.doubles,
        doubles=jnp.broadcast_to(fixed.doubles, changed.shape),
        wait=jnp.broadcast_to(wait, changed.shape),
        end=jnp.where(moved, moves.hold, NEVER),
        order=_in_order(jnp.where(moved, moves.lead + moves.hold, 0.0)),
        land=jnp.where(moved, fixed.latency, NEVER),
    )
    rows = [jnp.unstack(v.reshape((-1, *v.shape[2:]))) for v in table]
    return [_MovesIn(*row) for row in zip(*rows, strict=True)]


_NOT_C = np.where(_IS_C, NEVER, 0.0)  # reading C's partial sums does not keep its place above


def _move_in(above: Level | None, level: Level, m: _MovesIn) -> tuple[Level, Any]:
    """(the level after one phase, [operand] when the level above has been read: NEVER if it is not)."""
    place = jnp.where(m.doubles, level.other, level.used)
    start = jnp.maximum(place, level.out + m.wait)
    if above is not None:
        start = jnp.maximum(start, above.ready)
    ends = jnp.max(m.order + jnp.concatenate([level.free, start + m.end]), axis=1)
    done = ends + m.land
    moved = Level(
        ready=jnp.where(m.changed, done, level.ready),
        used=jnp.where(m.changed, place, level.used),
        other=jnp.where(m.swap, level.used, level.other),
        out=level.out,
        free=ends[C:],
    )
    return moved, done


def _all_in(x: Times, moves: list[_MovesIn]) -> Times:
    """One phase: moves into L3, L2, L1."""
    levels: list[Level] = []
    for i, move in enumerate(moves):
        level, read = _move_in(levels[-1] if i else None, x.levels[i], move)
        if i:
            above = levels[-1]
            levels[-1] = above._replace(used=jnp.maximum(above.used, read + _NOT_C))
        levels.append(level)
    return x._replace(levels=tuple(levels))


def move_out(x: Times, outs: Outs, leaves: Any, began: Any, fixed: Fixed) -> Times:
    """Move C out of each level that it leaves [level, 1]; `began` [level, 1]: the next visit has taken its place already."""
    levels = list(x.levels)
    happens = leaves & fixed.stores
    into_other = _IS_C & happens & began
    into_own = _IS_C & happens & ~began
    happen, other, own, ahead = (jnp.unstack(v) for v in (happens, into_other, into_own, leaves & began))
    hold, latency = jnp.unstack(outs.hold), jnp.unstack(fixed.latency)
    source = x.passed
    for i in reversed(range(LEVELS)):
        level = levels[i]
        start = jnp.maximum(level.free, source)
        if i:
            upper = levels[i - 1]
            start = jnp.maximum(start, jnp.where(ahead[i - 1], upper.other[C:], upper.used[C:]))
        end = start + hold[i]
        done = end + latency[i]
        levels[i] = level._replace(
            used=jnp.where(own[i], done, level.used),
            other=jnp.where(other[i], done, level.other),
            out=jnp.where(happen[i], done, level.out),
            free=jnp.where(happen[i], end, level.free),
        )
        source = levels[i].out
    l3 = levels[0]
    sent = jnp.maximum(l3.free, l3.out) + outs.host_hold
    levels[0] = l3._replace(free=jnp.where(happen[0] & outs.host, sent, l3.free))
    return x._replace(levels=tuple(levels))


def advance(x: Scalar, moves: Moves, outs: Outs, fixed: Fixed, first: Any) -> Scalar:
    """x' = step(x) [STATE]: the moves at the boundary to this pass, then the pass.

    `outs`: how C leaves after the previous step; `first`: there is no previous step.
    """
    phases = _moves_in(moves, fixed)
    now = _all_in(unpack(x), phases[:LEVELS])
    now = move_out(now, outs, moves.changed[:, C:] & ~first, moves.early[:, None], fixed)
    now = _all_in(now, phases[LEVELS:])
    *upper, l1 = now.levels
    free = _most(now.fabric, jnp.max(l1.ready, keepdims=True), l1.used[C:]) + moves.pass_hold
    done = free + moves.pass_delay
    return pack(Times((*upper, l1._replace(used=jnp.where(_IS_C, l1.used, done))), free, done))


def finish(x: Scalar, outs: Outs, fixed: Fixed, host_latency: Any, hosted: Any) -> Scalar:
    """The makespan: C leaves every level after the last step, and every write-back is complete; `hosted`: C's too."""
    yes = np.ones((LEVELS, 1), bool)
    l3, l2, _ = move_out(unpack(x), outs, yes, ~yes, fixed).levels
    sent = jnp.where(hosted, l3.free + host_latency, 0.0)
    return _most(l3.out, l2.out, sent)[0]
