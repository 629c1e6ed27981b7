"""One tile step of a schedule, x' = step(x): linear over (max, +) in the completion times x.

x holds when each engine is free, when each operand's current block is complete at each level, and when
the places that blocks occupy are free again. Which moves a step makes, and how long they take, does not
depend on x: times enter through max and plus only, so that vmapping the step over the max-plus identity
gives its matrix. Every operation starts when its operands are complete, the place that it writes is free,
and its engine is free. Operands are (A, B, C), levels (L3, L2, L1); the schedules of a batch lie on the last axis.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Scalar = jax.Array
NEVER = -1e30  # epsilon of the (max, +) algebra: constrains nothing
LEVELS = OPERANDS = 3
C = 2  # index of C among the operands


@jax.custom_jvp
def later(a: Any, b: Any) -> Any:
    """The later of two times; at a tie its derivative is that of the first, so that one critical path is followed."""
    return jnp.maximum(a, b)


@later.defjvp
def _later_jvp(primals: Any, tangents: Any) -> Any:
    a, b = primals
    return jnp.maximum(a, b), jnp.where(a >= b, *tangents)


class Level(NamedTuple):
    """Where the operands stand at one level [fabric cycles]."""

    ready: Any  # [operand]: the current block is complete (C: what it began with, partial sums or bias, is there)
    used: Any  # [operand]: the current block's last reader is complete (C: its place is free of the previous block)
    other: Any  # [operand]: the other place is free
    out: Any  # the last write-back of C from here is complete
    free: Any  # the gang that fills this level and empties it is free; L3's holds the memory channels,
    # which host transfers need too


class Times(NamedTuple):
    """The state x [fabric cycles]."""

    levels: tuple[Level, ...]  # L3, L2, L1
    fabric: Any  # the fabric is free
    passed: Any  # the last pass is complete


PER_LEVEL = 3 * OPERANDS + 2
STATE = PER_LEVEL * LEVELS + 2  # components of x
FABRIC = STATE - 2  # in x as one array; written in every step
USED, OTHER = OPERANDS, 2 * OPERANDS  # where the two places stand among the components of a level


class Moves(NamedTuple):
    """What one step does."""

    changed: Any  # [level, operand]: a new block becomes resident
    moved: Any  # [level, operand]: ... and bytes move for it
    hold: Any  # [level, operand] [fabric cycles]
    lead: Any  # [operand]: from the start of the transfer from the host to its completion, 0 if there is none
    returns: Any  # [level]: C's partial sums come back
    early: Any  # [level]: moves in before the previous step's moves out
    pass_hold: Any
    pass_delay: Any  # from the end of the hold to completion


class Outs(NamedTuple):
    """How C leaves after a step. Whether it leaves a level is `Moves.changed` of the next step."""

    hold: Any  # [level]
    host_hold: Any  # the transfer to the host that follows the one out of L3
    host: Any  # bool: there is one


class Fixed(NamedTuple):
    """What all steps of a schedule share."""

    latency: Any  # [level] of the engines [fabric cycles]
    doubles: Any  # [level] bool: two places per block
    stores: Any  # [level] bool: C's way out of here takes time (not so out of L3 if C stays there)


def begin(zero: Scalar) -> Scalar:
    """x [STATE] with everything free at time 0 and nothing resident; of the shape and dtype of `zero`."""
    never, free = jnp.stack([zero + NEVER] * OPERANDS), jnp.stack([zero] * OPERANDS)
    return pack(Times((Level(never, free, free, zero, zero),) * LEVELS, zero, zero))


def pack(x: Times) -> Scalar:
    """x as one array [STATE]."""
    parts = [part for level in x.levels for part in (level.ready, level.used, level.other, level.out[None], level.free[None])]
    return jnp.concatenate([*parts, x.fabric[None], x.passed[None]])


def unpack(x: Scalar) -> Times:
    """The parts of an array [STATE]."""
    levels = (x[i : i + PER_LEVEL] for i in range(0, FABRIC, PER_LEVEL))
    return Times(tuple(Level(v[:USED], v[USED:OTHER], v[OTHER:-2], v[-2], v[-1]) for v in levels), x[FABRIC], x[FABRIC + 1])


class _MovesIn(NamedTuple):
    """The moves into one level in one of the two phases [operand]."""

    changed: Any  # bool
    swap: Any  # bool: the other place is taken
    doubles: Any  # bool, one for all operands
    wait: Any  # from the last write-back to C's return, a max-plus constant
    hold: Any  # a max-plus constant: from source and place to the end of the hold
    after: Any  # at least from the end of the engine's last move to the end of the hold
    land: Any  # a max-plus constant: from the end of the hold to completion


def _moves_in(moves: Moves, fixed: Fixed, early: bool) -> list[_MovesIn]:
    """Per level: every level's moves take place in one of the two phases, before or after the moves out."""
    now = moves.early if early else ~moves.early
    changed, moved = moves.changed & now[:, None], moves.moved & now[:, None]
    lead = jnp.concatenate([moves.lead[None], jnp.zeros_like(moves.hold[1:])])
    table = _MovesIn(
        changed=changed,
        swap=changed & fixed.doubles[:, None],
        doubles=fixed.doubles,
        wait=jnp.where(moves.returns, 0.0, NEVER),
        hold=jnp.where(moved, moves.hold, NEVER),
        after=jnp.where(moved, lead + moves.hold, 0.0),
        land=jnp.where(moved, fixed.latency[:, None], NEVER),
    )
    return [_MovesIn(*(v[i] for v in table)) for i in range(LEVELS)]


def _move_in(above: Level | None, level: Level, m: _MovesIn) -> tuple[Level, Any]:
    """(the level after one phase, [operand] when the level above has been read: NEVER if it is not)."""
    place = jnp.where(m.doubles, level.other, level.used)
    start = place if above is None else later(place, above.ready)
    end, ends = level.free, []
    for x in range(OPERANDS):  # in order on one engine
        begin_x = later(start[x], level.out + m.wait) if x == C else start[x]
        end = later(end + m.after[x], begin_x + m.hold[x])
        ends.append(end)
    done = jnp.stack(ends) + m.land
    moved = Level(
        ready=jnp.where(m.changed, done, level.ready),
        used=jnp.where(m.changed, place, level.used),
        other=jnp.where(m.swap, level.used, level.other),
        out=level.out,
        free=end,
    )
    return moved, done


def _all_in(x: Times, moves: list[_MovesIn]) -> Times:
    """One phase: moves into L3, L2, L1."""
    levels: list[Level] = []
    for i, move in enumerate(moves):
        level, read = _move_in(levels[-1] if i else None, x.levels[i], move)
        if i:
            above = levels[-1]  # reading C's partial sums does not keep its place above
            levels[-1] = above._replace(used=jnp.concatenate([later(above.used[:C], read[:C]), above.used[C:]]))
        levels.append(level)
    return x._replace(levels=tuple(levels))


def move_out(x: Times, outs: Outs, leaves: Any, began: Any, fixed: Fixed) -> Times:
    """Move C out of each level that it leaves [level]; `began` [level]: the next visit has taken its place already."""
    levels = list(x.levels)
    happens = leaves & fixed.stores
    source = x.passed
    for i in reversed(range(LEVELS)):
        level = levels[i]
        start = later(level.free, source)
        if i:
            upper = levels[i - 1]
            start = later(start, jnp.where(leaves[i - 1] & began[i - 1], upper.other[C], upper.used[C]))
        end = start + outs.hold[i]
        done = end + fixed.latency[i]
        own, other = (jnp.where(happens[i] & there, done, v[C]) for there, v in ((~began[i], level.used), (began[i], level.other)))
        levels[i] = level._replace(
            used=jnp.concatenate([level.used[:C], own[None]]),
            other=jnp.concatenate([level.other[:C], other[None]]),
            out=jnp.where(happens[i], done, level.out),
            free=jnp.where(happens[i], end, level.free),
        )
        source = levels[i].out
    l3 = levels[0]
    sent = later(l3.free, l3.out) + outs.host_hold
    levels[0] = l3._replace(free=jnp.where(happens[0] & outs.host, sent, l3.free))
    return x._replace(levels=tuple(levels))


def advance(x: Scalar, moves: Moves, outs: Outs, fixed: Fixed, first: Any) -> Scalar:
    """x' = step(x) [STATE]: the moves at the boundary to this pass, then the pass.

    `outs`: how C leaves after the previous step; `first`: there is no previous step.
    """
    now = _all_in(unpack(x), _moves_in(moves, fixed, early=True))
    now = move_out(now, outs, moves.changed[:, C] & ~first, moves.early, fixed)
    now = _all_in(now, _moves_in(moves, fixed, early=False))
    *upper, l1 = now.levels
    start = later(now.fabric, l1.used[C])
    for operand in range(OPERANDS):
        start = later(start, l1.ready[operand])
    free = start + moves.pass_hold
    done = free + moves.pass_delay
    return pack(Times((*upper, l1._replace(used=jnp.stack([done, done, l1.used[C]]))), free, done))


def finish(x: Scalar, outs: Outs, fixed: Fixed, host_latency: Any, hosted: Any) -> Scalar:
    """The makespan: C leaves every level after the last step, and every write-back is complete; `hosted`: C's too."""
    yes = jnp.ones_like(fixed.stores)
    l3, l2, _ = move_out(unpack(x), outs, yes, ~yes, fixed).levels
    return later(later(l3.out, l2.out), jnp.where(hosted, l3.free + host_latency, 0.0))
