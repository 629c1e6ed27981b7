"""Which moves one step of a schedule makes, and how long each holds its engines."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div, floor_div, nearest_whole
from kpu_jax.mapping.input_rows import block_rows
from kpu_jax.model.rates import Rates
from kpu_jax.model.step import Delays, In, Moves, Out
from kpu_jax.model.traffic import conv_padding, run_bursts
from kpu_jax.model.walk import Plan, Position, Span, groups_at, plan
from kpu_jax.workload.footprint import element_bytes

Scalar = jax.Array
Spans = tuple[Span, Span, Span]


class Stay(NamedTuple):
    """How C's present stays in L2 and L1 began, and how many compute tiles along K take part."""

    l3_k: Scalar
    l2_k: Scalar
    parts_l2: Scalar
    parts_l1: Scalar


class Context(NamedTuple):
    """What a walk through a schedule needs to know; constant during the walk."""

    op: Any
    mapping: Any
    plan: Plan
    rates: Rates
    burst: Scalar  # [byte]
    rate: Scalar  # MACs per PE and cycle
    cols: Scalar

    @property
    def delays(self) -> Delays:
        r = self.rates
        return Delays(r.host.latency, r.dma.latency, r.block_mover.latency, r.streamer.latency)

    @property
    def doubles(self) -> tuple[Scalar, Scalar, Scalar]:
        return (self.mapping.double_l3 > 0, self.mapping.double_l2 > 0, self.mapping.double_l1 > 0)


def context(op: Any, mapping: Any, rates: Rates, rows: Scalar, cols: Scalar, rate: Scalar, burst: Scalar) -> Context:
    """Prepare to time `op` under `mapping` on arrays of rows x cols PEs at `rate` MACs per cycle."""
    return Context(op, mapping, plan(op, mapping, rows, cols, rate), rates, burst, rate, cols)


def _most_tiles(p: Plan, axis: int) -> Scalar:
    """Compute tiles along an axis that ever have a share of an L3 block."""
    per_unit = ceil_div(p.unit[axis], p.tile3[axis])
    last = p.unit[axis] - (per_unit - 1) * p.tile3[axis]

    def active(size: Scalar) -> Scalar:
        return ceil_div(size, ceil_div(size, p.parts[axis]))

    return jnp.where(per_unit > 1, jnp.maximum(active(p.tile3[axis]), active(last)), active(last))


def _first_active(p: Plan, axis: int) -> Scalar:
    """Compute tiles along an axis that have a share of the first L3 block."""
    size = p.tile3[axis]
    return ceil_div(size, ceil_div(size, p.parts[axis]))


def _lone(s: Span) -> Scalar:
    """One pass in one L2 block in its L3 block: the operand's block lasts as long as its L3 block does."""
    return (s.l1_trips <= 1) & (s.l2_trips <= 1)


def moves_at(c: Context, at: Position, axes: Spans, before: Position, first: Scalar, stay: Stay) -> tuple[Moves, Stay]:
    """The moves of the step at position `at`, which follows the one at `before`, and C's stays from then on."""
    m, n, k = axes
    op, rates = c.op, c.rates
    ea, eb, _, acc = element_bytes(op)
    groups = groups_at(c.plan, at.batch)

    new = [first | (at.batch != before.batch)] * 3
    changed: list[tuple[Scalar, Scalar, Scalar]] = []
    step_changed: list[Scalar] = []
    for now, then in ((at.l3, before.l3), (at.l2, before.l2), (at.l1, before.l1)):
        dm, dn, dk = (a != b for a, b in zip(now, then, strict=True))
        new = [new[0] | dm | dk, new[1] | dk | dn, new[2] | dm | dn]
        changed.append((new[0], new[1], new[2]))
        step_changed.append(new[0] | new[1] | new[2])
    early3 = c.doubles[0]
    early2 = c.doubles[1] & (~step_changed[0] | early3)
    early1 = c.doubles[2] & (~step_changed[1] | early2)

    c2, c1 = changed[1][2], changed[2][2]
    stay = Stay(
        l3_k=jnp.where(c2, at.l3[2], stay.l3_k),
        l2_k=jnp.where(c2, at.l2[2], stay.l2_k),
        parts_l2=jnp.where(c2, k.l2_active, jnp.maximum(stay.parts_l2, k.l2_active)),
        parts_l1=jnp.where(c1, k.l1_active, jnp.maximum(stay.parts_l1, k.l1_active)),
    )

    return (
        Moves(
            ins=(
                _into_l3(c, at, axes, changed[0], groups),
                _into_l2(c, at, axes, changed[1], groups),
                _into_l1(c, at, axes, changed[2], groups, stay),
            ),
            early=(early3, early2, early1),
            pass_hold=_stream(c, axes) + jnp.where(rates.overlap > 0, 0.0, rates.fill_drain),
            pass_delay=jnp.where(rates.overlap > 0, rates.fill_drain, 0.0),
        ),
        stay,
    )


def _stream(c: Context, axes: Spans) -> Scalar:
    """T of the pass: the elements that stream through the array, or the vector engine's cycles."""
    m, n, k = axes
    flow = c.mapping.dataflow
    t = jnp.where(flow == 0, ceil_div(k.l1_size, c.rate), jnp.where(flow == 1, m.l1_size, n.l1_size))
    return jnp.where(c.op.kind < 2, t, ceil_div(m.l1_size, c.cols) * c.rates.element)


def _external(c: Context, at: Position, axes: Spans, operand: str, width: Any) -> tuple[Scalar, Scalar, Scalar]:
    """(bytes, bytes of bursts, bytes that were not in an earlier block) of one group's L3 block of A, B or C."""
    m, n, k = axes
    op = c.op
    h, w, whole = {"A": (m, k, op.k), "B": (k, n, op.n), "C": (m, n, op.n)}[operand]
    size = h.l3_size * w.l3_size * width
    padded = run_bursts(h.l3_size, w.l3_size * width, w.l3_size >= whole, c.burst)
    fresh = size
    if operand == "A":
        per_unit = ceil_div(c.plan.unit[0], c.plan.tile3[0])
        within = at.l3[0] - per_unit * floor_div(at.l3[0], per_unit)
        first = nearest_whole(within * c.plan.tile3[0] / jnp.maximum(op.out_w, 1))
        first -= op.out_h * floor_div(first, op.out_h)
        count = ceil_div(m.l3_size, jnp.maximum(op.out_w, 1))
        rows, start = block_rows(op, first, count), jnp.zeros_like(first)
        seen = jnp.where(first > 0, block_rows(op, start, jnp.maximum(first, 1)), 0.0)
        new_rows = jnp.where(first > 0, block_rows(op, start, first + count) - seen, rows)
        channels = ceil_div(k.l3_size, op.kernel_h * op.kernel_w)
        conv = op.kind == 1
        line = op.in_w * channels * width
        padded = jnp.where(conv, rows * line + conv_padding(op, rows, channels, width, c.burst), padded)
        size, fresh = jnp.where(conv, rows * line, size), jnp.where(conv, new_rows * line, size)
    return size, padded, fresh


def _into_l3(c: Context, at: Position, axes: Spans, changed: Any, groups: Scalar) -> tuple[In, In, In]:
    op, dma, host = c.op, c.rates.dma, c.rates.host
    ea, eb, _, acc = element_bytes(op)
    ins = []
    for i, (operand, width, location, again) in enumerate((("A", ea, op.loc_a, at.l3[1]), ("B", eb, op.loc_b, at.l3[0]))):
        size, padded, fresh = _external(c, at, axes, operand, width)
        moves = changed[i] & (location < 2) & (size > 0)
        hold = dma.hold(groups * padded)
        ins.append(In(changed[i], moves, hold, groups * fresh / host.limit, (location == 0) & (again == 0)))
    _, padded, _ = _external(c, at, axes, "C", acc)
    visited = at.l3[2] > 0
    returns = changed[2] & visited & (op.loc_c < 2)
    bias = changed[2] & ~visited & (op.has_bias > 0)
    bias_padded = run_bursts(jnp.ones_like(padded), axes[1].l3_size * acc, jnp.ones((), bool), c.burst)
    hold = dma.hold(groups * jnp.where(visited, padded, bias_padded))
    ins.append(In(changed[2], returns | bias, hold, returns=returns))
    return ins[0], ins[1], ins[2]


def _into_l2(c: Context, at: Position, axes: Spans, changed: Any, groups: Scalar) -> tuple[In, In, In]:
    m, n, k = axes
    ea, eb, _, acc = element_bytes(c.op)
    mover = c.rates.block_mover
    size_a, size_b = groups * m.l2_total * k.l2_total * ea, groups * k.l2_total * n.l2_total * eb
    visited = (at.l3[2] > 0) | (at.l2[2] > 0)
    returns, bias = changed[2] & visited, changed[2] & ~visited & (c.op.has_bias > 0)
    size_c = groups * acc * jnp.where(visited, m.l2_total, 1.0) * n.l2_total
    return (
        In(changed[0], changed[0] & (size_a > 0), mover.hold(size_a)),
        In(changed[1], changed[1] & (size_b > 0), mover.hold(size_b)),
        In(changed[2], returns | bias, mover.hold(size_c), returns=returns),
    )


def _into_l1(c: Context, at: Position, axes: Spans, changed: Any, groups: Scalar, stay: Stay) -> tuple[In, In, In]:
    m, n, k = axes
    ea, eb, _, acc = element_bytes(c.op)
    streamer, order = c.rates.streamer, c.mapping.l3_order
    m_in_n, k_in_n = (order == 2) | (order == 3) | (order == 5), (order == 0) | (order == 2) | (order == 3)
    k_in_m = order <= 2
    # A block that outlasts every L3 block of the third axis serves all compute tiles that ever need it.
    a_lasts = _lone(m) & _lone(k) & ~((m_in_n & (m.l3_trips > 1)) | (k_in_n & (k.l3_trips > 1)))
    b_lasts = _lone(k) & _lone(n) & ~((k_in_m & (k.l3_trips > 1)) | (~m_in_n & (n.l3_trips > 1)))
    to_a = jnp.where(a_lasts, _most_tiles(c.plan, 1), n.l1_active)
    to_b = jnp.where(b_lasts, _most_tiles(c.plan, 0), m.l1_active)
    size_a, size_b = groups * m.l1_total * k.l1_total * ea * to_a, groups * k.l1_total * n.l1_total * eb * to_b
    in_pass = at.l1[2] > 0
    visited = (at.l3[2] > 0) | (at.l2[2] > 0) | in_pass
    visited_here = (at.l3[2] != stay.l3_k) | (at.l2[2] != stay.l2_k) | in_pass
    returns = changed[2] & visited
    bias = changed[2] & ~visited & (c.op.has_bias > 0)
    # The last L3 block may give a share of K to compute tiles that had none before: nothing of theirs comes back.
    fresh_l3 = (at.l3[2] != stay.l3_k) & (at.l2[2] == 0) & ~in_pass
    begun = jnp.where(fresh_l3, jnp.minimum(k.l1_active, _first_active(c.plan, 2)), k.l1_active)
    partial = m.l1_total * n.l1_total * (1 + jnp.where(visited_here, begun - 1, 0.0))
    size_c = groups * acc * jnp.where(visited, partial, m.l1_active * n.l1_total)
    return (
        In(changed[0], changed[0] & (size_a > 0), streamer.hold(size_a)),
        In(changed[1], changed[1] & (size_b > 0), streamer.hold(size_b)),
        In(changed[2], returns | bias, streamer.hold(size_c), returns=returns),
    )


def outs_at(c: Context, at: Position, axes: Spans, stay: Stay) -> tuple[Out, Out, Out]:
    """How C leaves L3, L2 and L1 after the step at `at`, if it does."""
    m, n, k = axes
    op, rates = c.op, c.rates
    _, _, ec, acc = element_bytes(op)
    groups = groups_at(c.plan, at.batch)
    last3 = at.l3[2] >= k.l3_trips - 1
    last2 = last3 & (at.l2[2] >= k.l2_trips - 1)
    last1 = last2 & (at.l1[2] >= k.l1_trips - 1)
    alone = stay.parts_l2 <= 1

    drained = groups * m.l1_total * n.l1_total * stay.parts_l1 * jnp.where(last1 & alone, ec, acc)
    lanes = ceil_div(m.l1_size * n.l1_size, c.cols)
    on_drain = lanes * (jnp.where(last1, rates.bias, 0.0) + jnp.where(last1 & alone, rates.activation, 0.0))
    drain = jnp.maximum(rates.streamer.hold(drained), on_drain)

    mover = rates.block_mover
    full = groups * m.l2_total * n.l2_total * acc
    final = groups * m.l2_total * n.l2_total * jnp.where(last2, ec, acc)
    lanes2 = ceil_div(m.l2_size * n.l2_size, c.cols)
    on_sum = jnp.where(last2, lanes2 * rates.activation, 0.0)
    sums = stay.parts_l2 - 2
    added = mover.hold(full) + sums * (mover.latency + mover.hold(2 * full))
    added += mover.latency + jnp.maximum(mover.hold(full + final), on_sum)
    write_back = jnp.where(alone, mover.hold(final), added)

    size, padded, _ = _external(c, at, axes, "C", jnp.where(last3, ec, acc))
    none, always = 0.0 * drain, drain > -1.0  # of the batch's shape and type, so that a walk's state keeps its own
    return (
        Out(rates.dma.hold(groups * padded), op.loc_c < 2, groups * size / rates.host.limit, last3 & (op.loc_c == 0)),
        Out(write_back, always, none),
        Out(drain, always, none),
    )
