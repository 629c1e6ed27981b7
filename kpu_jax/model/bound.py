"""A lower bound on the makespan: the busiest engine, plus what must come before and after its work.

Proof sketch. Each engine class serves its operations one after the other, so it is busy for the sum of
their holds, and a hold is never shorter than bytes / peak rate (rounding up only adds). Before an engine's
first operation its operands must have come down the memories (`head`: the first blocks of A and B, in
program order); after its last one the last block of C must still go up (`tail`). So the makespan is at
least head + busy + tail, for every engine; the bound is the largest of these.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div
from kpu_jax.mapping.axes import Axis
from kpu_jax.mapping.input_rows import block_rows
from kpu_jax.mapping.visits import Layout, pass_sizes
from kpu_jax.model.rates import Rates
from kpu_jax.model.traffic import Traffic
from kpu_jax.workload.footprint import element_bytes

Scalar = jax.Array
ENGINES = ("host", "dma", "block_mover", "streamer", "fabric")


class Bound(NamedTuple):
    cycles: Scalar  # lower bound on the makespan [fabric cycles]
    busy: tuple[Scalar, ...]  # per engine class of `ENGINES`: the least time it is held [fabric cycles]

    @property
    def bound_by(self) -> Scalar:
        """Index into `ENGINES` of the class that is held longest."""
        code, most = jnp.zeros_like(self.busy[0]), self.busy[0]
        for i, busy in enumerate(self.busy[1:], 1):
            code = jnp.where(busy > most, float(i), code)
            most = jnp.maximum(busy, most)
        return code


def bound_cycles(op: Any, mapping: Any, layout: Layout, traffic: Traffic, rates: Rates, rows: Any, cols: Any, rate: Any) -> Bound:
    """Lower bound on the makespan of `op` under `mapping`. Differentiable in the rates (almost everywhere)."""
    reads, writes = traffic.reads, traffic.writes
    dma, mover, streamer = rates.dma, rates.block_mover, rates.streamer
    _, _, ec, acc = element_bytes(op)
    stores = jnp.where(op.loc_c < 2, writes["dram"]["C"], 0.0)
    moved_c = reads["l3"]["C"] - stores + writes["l3"]["C"] - (reads["dram"]["C"] - writes["host"]["C"])
    moved_up = sum(reads["l3"][x] for x in ("A", "B", "bias")) + moved_c
    drained = writes["l2"]["C"] - op.batch * (layout.C.l2_reads - op.m * op.n) * acc
    returned = writes["l1"]["C"] - reads["pe"]["C"]
    streamed = sum(reads["l2"][x] for x in ("A", "B", "bias")) + returned + drained
    busy = (
        (sum(reads["host"][x] for x in "AB") + writes["host"]["C"]) / rates.host.limit,
        dma.hold_at_least(sum(traffic.bursts.values())),
        mover.hold_at_least(moved_up),
        streamer.hold_at_least(streamed),
        _fabric(op, mapping, layout, rates, cols, rate),
    )
    head, tail = _head(op, layout, rates, rows, cols, rate, mapping), _tail(op, mapping, layout, rates, rows, cols, rate)
    starts = (0.0, 0.0, head[0], head[1], head[2])
    ends = (rates.host.latency, 0.0, tail[0], tail[1], tail[2])
    total = jnp.zeros_like(busy[0])
    for b, s, e in zip(busy, starts, ends, strict=True):
        total = jnp.maximum(total, jnp.where(b > 0, s + b + e, 0.0))
    return Bound(total, busy)


def _blocks(axis: Axis, length: Any) -> Scalar:
    """Sum of length(L2 block size of the first compute tile) over all L2 blocks of an axis."""
    total = jnp.zeros(())
    for c in (axis.body, axis.last):
        total += c.count * ((c.l2_trips - 1) * length(c.body_l2) + length(c.last_l2))
    return total


def _fabric(op: Any, mapping: Any, layout: Layout, rates: Rates, cols: Any, rate: Any) -> Scalar:
    """Cycles for which the fabric (or the vector engine) is held: exact."""
    m, n, k = layout.m, layout.n, layout.k
    flow = mapping.dataflow
    stream = jnp.where(
        flow == 0,
        m.passes * n.passes * _blocks(k, lambda size: ceil_div(size, rate)),
        jnp.where(flow == 1, k.passes * n.passes * _blocks(m, lambda s: s), k.passes * m.passes * _blocks(n, lambda s: s)),
    )
    other = jnp.where(flow == 0, k.l2_blocks, jnp.where(flow == 1, m.l2_blocks, n.l2_blocks))
    passes = jnp.where(flow == 0, m.passes * n.passes, jnp.where(flow == 1, k.passes * n.passes, k.passes * m.passes))
    stream += jnp.where(rates.overlap > 0, 0.0, rates.fill_drain * passes * other)
    vector = _blocks(m, lambda size: ceil_div(size, cols)) * op.vector_cost
    return layout.batch_steps * jnp.where(op.kind < 2, stream, vector)


def _head(op: Any, layout: Layout, rates: Rates, rows: Any, cols: Any, rate: Any, mapping: Any) -> tuple[Scalar, Scalar, Scalar]:
    """Earliest start of the first block move, stream and pass: the first A, then B, come down the levels."""
    ea, eb, _, _ = element_bytes(op)
    dma, mover, streamer = rates.dma, rates.block_mover, rates.streamer

    def first(axis: Axis) -> tuple[Scalar, Scalar]:
        c = axis.body
        size3 = jnp.where(c.count > 0, c.size, axis.last.size)
        one = jnp.where(c.count > 0, jnp.where(c.l2_trips > 1, c.body_l2, c.last_l2), 0.0)
        two = jnp.where(axis.last.l2_trips > 1, axis.last.body_l2, axis.last.last_l2)
        return size3, jnp.where(c.count > 0, one, two)

    (m3, m2), (n3, n2), (k3, k2) = first(layout.m), first(layout.n), first(layout.k)
    m1, n1, k1 = (
        jnp.minimum(a, x) for a, x in zip((m2, n2, k2), pass_sizes(op, mapping, rows, cols, rate), strict=True)
    )
    conv_rows = block_rows(op, jnp.zeros_like(m3), m3 / jnp.maximum(op.out_w, 1))
    conv_a = conv_rows * op.in_w * k3 / (op.kernel_h * op.kernel_w)
    a3 = jnp.where(op.kind == 1, conv_a, m3 * k3) * ea

    def load(size: Scalar, location: Scalar) -> tuple[Scalar, Scalar]:
        return jnp.where((location < 2) & (size > 0), dma.hold(size), 0.0), jnp.where((location < 2) & (size > 0), dma.latency, 0.0)

    (hold_a, wait_a), (hold_b, wait_b) = load(a3, op.loc_a), load(k3 * n3 * eb, op.loc_b)
    in_l2_a = hold_a + wait_a + mover.hold(m2 * k2 * ea) + mover.latency
    has_b = eb > 0
    in_l2_b = hold_a + hold_b + wait_b + mover.hold(k2 * n2 * eb) + mover.latency
    in_l1_a = in_l2_a + streamer.hold(m1 * k1 * ea) + streamer.latency
    in_l1_b = in_l2_b + streamer.hold(k1 * n1 * eb) + streamer.latency
    return hold_a + wait_a, in_l2_a, jnp.maximum(in_l1_a, jnp.where(has_b, in_l1_b, 0.0))


def _tail(op: Any, mapping: Any, layout: Layout, rates: Rates, rows: Any, cols: Any, rate: Any) -> tuple[Scalar, Scalar, Scalar]:
    """Least time from the end of the last write-back, drain and pass to the end of the schedule."""
    _, _, ec, acc = element_bytes(op)
    least = jnp.minimum(ec, acc)
    size3 = layout.m.last.size * layout.n.last.size * ec
    m2, n2 = layout.m.last.last_l2, layout.n.last.last_l2
    pm, pn, _ = pass_sizes(op, mapping, rows, cols, rate)
    m1 = m2 - (layout.m.last.last_passes - 1) * pm
    n1 = n2 - (layout.n.last.last_passes - 1) * pn
    store = jnp.where(op.loc_c < 2, rates.dma.hold(size3) + rates.dma.latency, 0.0)
    after_move = rates.block_mover.latency + store
    after_drain = rates.streamer.latency + rates.block_mover.hold(m2 * n2 * least) + after_move
    completion = jnp.where(rates.overlap > 0, rates.fill_drain, 0.0)
    return after_move, after_drain, completion + rates.streamer.hold(m1 * n1 * least) + after_drain
