"""The PE grid of one compute tile, stepped cycle by cycle.

Every PE has a register for each operand that passes through it, and one that stays: the accumulator
(output-stationary), an element of B (weight-) or of A (input-stationary). A PE fires when both its operands are
there. Streams enter skewed, lane i one cycle after lane i - 1, so that operands which belong together meet.

    output-stationary      A enters from the west on the rows, B from the north on the columns, C stays
    weight-, input-        the stationary block is shifted in from the north; the other operand enters from the west,
                           lane k on row k; partial sums go south, each column's leaves at the bottom

At p multiply-adds per cycle a register holds p elements, consecutive in k, and the PE takes them in ascending order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.machine.arithmetic import Arithmetic
from kpu_jax.mapping import DATAFLOWS

OUTPUT_STATIONARY, WEIGHT_STATIONARY, INPUT_STATIONARY = range(len(DATAFLOWS))


class Operands(NamedTuple):
    """Registers: `value` [..., p], `live` [..., p] (an element, not an idle lane), `token` [...] (the pass is here)."""

    value: jax.Array
    live: jax.Array
    token: jax.Array


class Activity(NamedTuple):
    """What the PEs did, by cycle from the first of the pass."""

    fired: jax.Array  # [cycle, rows, cols]: multiply-adds
    switched: jax.Array  # [cycle, rows, cols]: those with two operands other than zero; the others are gated
    cycles: jax.Array  # that the array was held: until the last operand of the pass has left the last PE


def skewed(stream: Any, lanes: int, cycles: int) -> Any:
    """Streams [element, lane, ...] as they enter in `cycles` cycles, [cycle, lane, ...]: lane i is i cycles late.

    Zeros, and no token, before and after.
    """
    lane = jnp.arange(lanes)[None]
    at = jnp.arange(cycles)[:, None] - lane
    entered = (at >= 0) & (at < stream.shape[0])
    picked = stream[jnp.clip(at, 0, stream.shape[0] - 1), lane]
    return jnp.where(entered.reshape(entered.shape + (1,) * (picked.ndim - 2)), picked, jnp.zeros_like(picked))


def _stream(values: jax.Array, live: jax.Array, present: jax.Array) -> Operands:
    """A stream of operands: values and live [element, lane, p], present [element]; what is not live is zero."""
    live = live & present[:, None, None]
    return Operands(jnp.where(live, values, 0), live, jnp.broadcast_to(present[:, None], values.shape[:2]))


def _shifted(registers: Any, entering: Any, axis: int) -> Any:
    """Registers after a step: each takes its neighbour's content, the first along `axis` what enters."""

    def shift(old: jax.Array, new: jax.Array) -> jax.Array:
        kept = old[:, :-1] if axis else old[:-1]
        return jnp.concatenate([jnp.expand_dims(new, axis), kept], axis)

    return jax.tree.map(shift, registers, entering)


def _fire(how: Arithmetic, acc: jax.Array, x: Operands, y: Operands) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One cycle of all PEs: (accumulators, multiply-adds, multiply-adds that switch)."""
    live = x.live & y.live

    def one(acc: jax.Array, operands: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        a, b, both = operands
        return jnp.where(both, how.multiply_add(acc, a, b, by_hand=True), acc), None

    acc, _ = jax.lax.scan(one, acc, tuple(jnp.moveaxis(v, -1, 0) for v in (x.value, y.value, live)))  # k ascending
    switching = live & (x.value != 0) & (y.value != 0)
    return acc, live.sum(-1, dtype=jnp.int32), switching.sum(-1, dtype=jnp.int32)


def _empty(how: Arithmetic, rows: int, cols: int, rate: int) -> Operands:
    flags = jnp.zeros((rows, cols, rate), bool)
    return Operands(jnp.zeros((rows, cols, rate), how.dtype), flags, flags[..., 0])


def step_output_stationary(how: Arithmetic, west: Operands, north: Operands, acc: jax.Array) -> tuple[jax.Array, Activity]:
    """A pass in which C stays: streams of A [T, rows, p] and B [T, cols, p], accumulators [rows, cols] to begin with."""
    (longest, rows, rate), cols = west.value.shape, north.value.shape[1]
    cycles = longest + rows + cols - 2
    entering = jax.tree.map(lambda v: skewed(v, rows, cycles), west), jax.tree.map(lambda v: skewed(v, cols, cycles), north)

    def cycle(state: Any, edge: Any) -> Any:
        a, b, acc = state
        a, b = _shifted(a, edge[0], 1), _shifted(b, edge[1], 0)
        acc, fired, switched = _fire(how, acc, a, b)
        return (a, b, acc), (fired, switched, jnp.any(a.token))

    empty = _empty(how, rows, cols, rate)
    (_, _, acc), (fired, switched, busy) = jax.lax.scan(cycle, (empty, empty, acc), entering)
    return acc, Activity(fired, switched, busy.sum())


def step_stationary(how: Arithmetic, stationary: Operands, west: Operands) -> tuple[jax.Array, Activity]:
    """A pass in which B or A stays: its block [rows, cols, p], the other's stream [T, rows, p].

    Returns the sums that leave, from zero, [T, cols]. The first `rows` cycles load the stationary block.
    """
    (rows, cols, rate), longest = stationary.value.shape, west.value.shape[0]
    cycles = longest + rows + cols - 2
    empty = _empty(how, rows, cols, rate)
    held, _ = jax.lax.scan(lambda w, row: (_shifted(w, row, 0), None), empty, stationary, reverse=True)  # the last row first
    entering = jax.tree.map(lambda v: skewed(v, rows, cycles), west)

    def cycle(state: Any, edge: Any) -> Any:
        x, sums = state
        x, sums = _shifted(x, edge, 1), _shifted(sums, how.zeros((cols,)), 0)
        sums, fired, switched = _fire(how, sums, x, held)
        return (x, sums), (sums[-1], fired, switched, jnp.any(x.token))

    _, (leaving, fired, switched, busy) = jax.lax.scan(cycle, (empty, how.zeros((rows, cols))), entering)
    element, column = jnp.arange(longest)[:, None], jnp.arange(cols)[None]
    preload = jnp.zeros((rows, rows, cols), jnp.int32)
    fired, switched = (jnp.concatenate([preload, v]) for v in (fired, switched))
    return leaving[element + rows - 1 + column, column], Activity(fired, switched, rows + busy.sum())


def step_pass(
    how: Arithmetic, dataflow: int, rate: int, a: jax.Array, b: jax.Array, acc: jax.Array, extents: jax.Array
) -> tuple[jax.Array, Activity]:
    """One pass over blocks of A [m, k] and B [k, n] that are padded to what the array takes; pure, traceable.

    m = rows, n = cols and k = T p output-stationary; k = rows p, n = cols, m = T weight-; k = rows p, m = cols, n = T
    input-stationary. `extents`: how much of (m, n, k) is there; T is then cut to what streams. `acc` [m, n]: the
    accumulators to begin with (read only if output-stationary). Returns the sums [m, n] of this pass and what fired.
    """
    m, n, k = extents
    in_m, in_n, in_k = (jnp.arange(size) < extent for size, extent in ((a.shape[0], m), (b.shape[1], n), (a.shape[1], k)))

    def lanes(block: jax.Array, outer: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Values and live [group of p k's, lane, p] of a block [k, lane]."""
        live = in_k[:, None] & outer[None]
        return tuple(v.reshape(-1, rate, v.shape[-1]).swapaxes(1, 2) for v in (block, live))  # type: ignore[return-value]

    a_values, a_live = lanes(a.T, in_m)
    b_values, b_live = lanes(b, in_n)
    if dataflow == OUTPUT_STATIONARY:
        present = in_k.reshape(-1, rate).any(-1)
        return step_output_stationary(how, _stream(a_values, a_live, present), _stream(b_values, b_live, present), acc)
    stays, moves, present = (b_values, b_live), (a_values, a_live), in_m
    if dataflow == INPUT_STATIONARY:
        stays, moves, present = moves, stays, in_n
    held = _stream(*stays, jnp.ones(stays[0].shape[0], bool))
    west = _stream(moves[0].swapaxes(0, 1), moves[1].swapaxes(0, 1), present)
    sums, activity = step_stationary(how, held, west)
    return (sums if dataflow == WEIGHT_STATIONARY else sums.T), activity
