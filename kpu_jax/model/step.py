"""One tile step of a schedule, x' = step(x): linear over (max, +) in the completion times x.

x holds when each engine is free, when each operand's current block is complete at each level, and when
the places that blocks occupy are free again. Which moves a step makes, and how long they take, does not
depend on x. Every operation starts when its operands are complete, the place that it writes is free, and
its engine is free.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Scalar = jax.Array
NEVER = -1e30  # epsilon of the (max, +) algebra: constrains nothing


class Operand(NamedTuple):
    """Where A or B stands at one level."""

    ready: Any  # the current block is complete
    used: Any  # the last operation that reads the current block is complete
    other: Any  # the other place is free


class Result(NamedTuple):
    """Where C stands at one level."""

    ready: Any  # what the current block began with (partial sums, bias) is there
    own: Any  # the current block's place is free of its previous occupant
    other: Any  # the other place is free


class Level(NamedTuple):
    A: Operand
    B: Operand
    C: Result
    out: Any  # the last write-back from here is complete


class Times(NamedTuple):
    """The state x [fabric cycles]."""

    dma: Any  # engines: when each gang is free; the DMA holds the memory channels, which host transfers need too
    block_mover: Any
    streamer: Any
    fabric: Any
    passed: Any  # the last pass is complete
    l3: Level
    l2: Level
    l1: Level


class In(NamedTuple):
    """One possible move into a level."""

    changed: Any  # a new block becomes resident
    moves: Any  # ... and bytes move for it
    hold: Any
    host_hold: Any = 0.0  # first from the host, for so long (L3 only)
    host: Any = False
    returns: Any = False  # C only: partial sums come back


class Out(NamedTuple):
    """One possible move of C out of a level; the flag that it happens is `In.changed` of the next step."""

    hold: Any
    moves: Any = True
    host_hold: Any = 0.0
    host: Any = False


class Moves(NamedTuple):
    """What one step does."""

    ins: tuple[tuple[In, In, In], ...]  # levels L3, L2, L1; operands A, B, C
    early: tuple[Any, Any, Any]  # per level: moves in before the previous step's moves out
    pass_hold: Any
    pass_delay: Any  # from the end of the hold to completion


class Delays(NamedTuple):
    """Latency of each engine class [fabric cycles]."""

    host: Any
    dma: Any
    block_mover: Any
    streamer: Any


ENGINES = ("dma", "block_mover", "streamer")
LEVELS = ("l3", "l2", "l1")


def begin(zero: Scalar) -> Times:
    """Everything free at time 0, nothing resident."""
    never = zero + NEVER
    operand, result = Operand(never, zero, zero), Result(never, zero, zero)
    level = Level(operand, operand, result, zero)
    return Times(zero, zero, zero, zero, zero, level, level, level)


def _most(*times: Any) -> Any:
    out = times[0]
    for t in times[1:]:
        out = jnp.maximum(out, t)
    return out


def _move_in(x: Times, depth: int, moves: Moves, doubles: Any, delays: Delays, when: Any) -> Times:
    name, engine = LEVELS[depth], ENGINES[depth]
    level, delay = getattr(x, name), getattr(delays, engine)
    above = getattr(x, LEVELS[depth - 1]) if depth else None
    free = getattr(x, engine)
    for operand, move in zip("AB", moves.ins[depth], strict=False):
        block = getattr(level, operand)
        place = jnp.where(doubles[depth], block.other, block.used)
        source: Any = NEVER
        if above is None:
            from_host = when & move.moves & move.host
            free = jnp.where(from_host, free + move.host_hold, free)
            source = jnp.where(from_host, free + delays.host, NEVER)
        else:
            source = getattr(above, operand).ready
        end = _most(free, source, place) + move.hold
        moved, changed = when & move.moves, when & move.changed
        block = Operand(
            ready=jnp.where(moved, end + delay, jnp.where(changed, NEVER, block.ready)),
            used=jnp.where(changed, place, block.used),
            other=jnp.where(changed & doubles[depth], block.used, block.other),
        )
        if above is not None:
            read = getattr(above, operand)
            read = read._replace(used=jnp.where(moved, jnp.maximum(read.used, end + delay), read.used))
            above = above._replace(**{operand: read})
        free = jnp.where(moved, end, free)
        level = level._replace(**{operand: block})
    move, c = moves.ins[depth][2], level.C
    changed, moved = when & move.changed, when & move.moves
    swap = changed & doubles[depth]
    own, other = jnp.where(swap, c.other, c.own), jnp.where(swap, c.own, c.other)
    source = NEVER if above is None else above.C.ready
    end = _most(free, source, own, jnp.where(move.returns, level.out, NEVER)) + move.hold
    ready = jnp.where(moved, end + delay, jnp.where(changed, NEVER, c.ready))
    level = level._replace(C=Result(ready, own, other))
    free = jnp.where(moved, end, free)
    x = x._replace(**{name: level, engine: free})
    return x if above is None else x._replace(**{LEVELS[depth - 1]: above})


def move_out(x: Times, outs: tuple[Out, Out, Out], leaves: Any, began: Any, delays: Delays) -> Times:
    """Move C out of each level that it leaves; `began[level]`: the next visit has taken its place already."""
    source = x.passed
    for depth in (2, 1, 0):
        name, engine = LEVELS[depth], ENGINES[depth]
        level, out = getattr(x, name), outs[depth]
        happens = leaves[depth] & out.moves
        target: Any = NEVER
        if depth:
            upper = getattr(x, LEVELS[depth - 1]).C
            target = jnp.where(leaves[depth - 1] & began[depth - 1], upper.other, upper.own)
        end = _most(getattr(x, engine), source, target) + out.hold
        done = end + getattr(delays, engine)
        c = level.C
        c = c._replace(
            own=jnp.where(happens & ~began[depth], done, c.own),
            other=jnp.where(happens & began[depth], done, c.other),
        )
        level = level._replace(C=c, out=jnp.where(happens, done, level.out))
        x = x._replace(**{name: level, engine: jnp.where(happens, end, getattr(x, engine))})
        source = level.out
    to_host = leaves[0] & outs[0].moves & outs[0].host
    return x._replace(dma=jnp.where(to_host, jnp.maximum(x.dma, x.l3.out) + outs[0].host_hold, x.dma))


def advance(x: Times, moves: Moves, outs: tuple[Out, Out, Out], doubles: Any, delays: Delays, first: Any) -> Times:
    """x' = step(x): the moves at the boundary to this pass, then the pass.

    `outs`: how C leaves after the previous step; `doubles`: double buffering at (L3, L2, L1); `first`: there is
    no previous step.
    """
    leaves = tuple(level[2].changed & ~first for level in moves.ins)
    for depth in range(3):
        x = _move_in(x, depth, moves, doubles, delays, moves.early[depth])
    x = move_out(x, outs, leaves, moves.early, delays)
    for depth in range(3):
        x = _move_in(x, depth, moves, doubles, delays, ~moves.early[depth])
    l1 = x.l1
    start = _most(x.fabric, l1.A.ready, l1.B.ready, l1.C.ready, l1.C.own)
    free = start + moves.pass_hold
    done = free + moves.pass_delay
    l1 = l1._replace(A=l1.A._replace(used=done), B=l1.B._replace(used=done))
    return x._replace(fabric=free, passed=done, l1=l1)


def finish(x: Times, outs: tuple[Out, Out, Out], delays: Delays, hosted: Any) -> Scalar:
    """The makespan: C leaves every level after the last step, and every write-back is complete; `hosted`: C's too."""
    yes = jnp.ones((), bool)
    x = move_out(x, outs, (yes, yes, yes), (~yes, ~yes, ~yes), delays)
    return _most(x.l3.out, x.l2.out, jnp.where(hosted, x.dma + delays.host, 0.0))
