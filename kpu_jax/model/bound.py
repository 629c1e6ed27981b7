"""A lower bound on the makespan: the busiest engine, plus what must come before and after its work.

Proof sketch. Each engine class serves its operations one after the other, so it is busy for the sum of
their holds, and a hold is never shorter than bytes / peak rate (rounding up only adds). Before an engine's
first operation its operands must have come down the memories (the head: the first blocks of A and B, in
program order); after its last one the last block of C must still go up (the tail). So the makespan is at
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
from kpu_jax.model.rates import Rates, element_cycles
from kpu_jax.model.traffic import Traffic
from kpu_jax.workload.footprint import element_bytes

Scalar = jax.Array
ENGINES = ("host", "dma", "block_mover", "streamer", "fabric")


class Work(NamedTuple):
    """What each engine class must do, whatever its speed: bytes in all, and in the first and last moves."""

    host: Scalar  # [byte]
    dma: Any  # bursts [byte]
    block_mover: Scalar
    streamer: Scalar
    fabric: Scalar  # held in all [fabric cycles]: exact
    first_l3: tuple[Scalar, Scalar]  # bytes of the first blocks of A and B, per level
    first_l2: tuple[Scalar, Scalar]
    first_l1: tuple[Scalar, Scalar]
    last_l3: Scalar  # bytes of the last blocks of C, at least
    last_l2: Scalar
    last_l1: Scalar
    fill_drain: Scalar  # from the last pass's hold to its completion [fabric cycles]


class Bound(NamedTuple):
    cycles: Scalar  # lower bound on the makespan [fabric cycles]
    in_turns: Scalar  # likely makespan when L3 is loaded and read in turns (single-buffered); no bound
    busy: tuple[Scalar, ...]  # per engine class of `ENGINES`: the least time it is held [fabric cycles]

    @property
    def bound_by(self) -> Scalar:
        """Index into `ENGINES` of the class that is held longest."""
        code, most = jnp.zeros_like(self.busy[0]), self.busy[0]
        for i, busy in enumerate(self.busy[1:], 1):
            code = jnp.where(busy > most, float(i), code)
            most = jnp.maximum(busy, most)
        return code


def work_of(cfg: Any, op: Any, mapping: Any, layout: Layout, traffic: Traffic, rate: Any) -> Work:
    """The work of `op` under `mapping`. Independent of clocks, buses, engine counts, bandwidths and latencies."""
    reads, writes = traffic.reads, traffic.writes
    _, _, _, acc = element_bytes(op)
    stores = jnp.where(op.loc_c < 2, writes["dram"]["C"], 0.0)
    moved_c = reads["l3"]["C"] - stores + writes["l3"]["C"] - (reads["dram"]["C"] - writes["host"]["C"])
    drained = writes["l2"]["C"] - op.batch * (layout.C.l2_reads - op.m * op.n) * acc
    returned = writes["l1"]["C"] - reads["pe"]["C"]
    array, serial = cfg.compute.processor_array, cfg.compute.fold_overlap <= 0
    tail = fill_drain(op, mapping.dataflow, array.rows, array.cols)
    firsts = _firsts(op, layout, pass_sizes(op, mapping, array.rows, array.cols, rate))
    return Work(
        host=sum(reads["host"][x] for x in "AB") + writes["host"]["C"],
        dma=sum(traffic.bursts.values()),
        block_mover=sum(reads["l3"][x] for x in ("A", "B", "bias")) + moved_c,
        streamer=sum(reads["l2"][x] for x in ("A", "B", "bias")) + returned + drained,
        fabric=_fabric(op, mapping, layout, array.cols, rate, jnp.where(serial, tail, 0.0), element_cycles(cfg, op)),
        **firsts,
        **_lasts(op, layout, pass_sizes(op, mapping, array.rows, array.cols, rate)),
        fill_drain=jnp.where(serial, 0.0, tail),
    )


def bound_of(work: Work, rates: Rates) -> Bound:
    """Lower bound on the makespan of `work` at these `rates`. Differentiable in the rates almost everywhere."""
    dma, mover, streamer = rates.dma, rates.block_mover, rates.streamer
    busy = (
        work.host / rates.host.limit,
        dma.hold_at_least(work.dma),
        mover.hold_at_least(work.block_mover),
        streamer.hold_at_least(work.streamer),
        work.fabric,
    )
    holds = [dma.hold(size) for size in work.first_l3]
    waits = [jnp.where(size > 0, dma.latency, 0.0) for size in work.first_l3]
    in_l3 = (holds[0] + waits[0], holds[0] + holds[1] + waits[1])
    in_l2 = [t + mover.hold(size) + mover.latency for t, size in zip(in_l3, work.first_l2, strict=True)]
    in_l1 = [t + streamer.hold(size) + streamer.latency for t, size in zip(in_l2, work.first_l1, strict=True)]
    has_b = work.first_l1[1] > 0
    first_pass = jnp.maximum(in_l1[0], jnp.where(has_b, in_l1[1], 0.0))

    store = dma.hold(work.last_l3) + jnp.where(work.last_l3 > 0, dma.latency, 0.0)
    after_move = mover.latency + store
    after_drain = streamer.latency + mover.hold(work.last_l2) + after_move
    after_pass = work.fill_drain + streamer.hold(work.last_l1) + after_drain
    paths = (
        busy[0] + jnp.where(work.host > 0, rates.host.latency, 0.0),
        busy[1],
        in_l3[0] + busy[2] + after_move,
        in_l2[0] + busy[3] + after_drain,
        first_pass + busy[4] + after_pass,
    )
    total = paths[0]
    for path in paths[1:]:
        total = jnp.maximum(total, path)
    inside = jnp.maximum(jnp.maximum(busy[2], busy[3]), busy[4])
    return Bound(total, jnp.maximum(total, jnp.maximum(busy[0], busy[1]) + inside), busy)


def _blocks(axis: Axis, length: Any) -> Scalar:
    """Sum of length(L2 block size of the first compute tile) over all L2 blocks of an axis."""
    total = jnp.zeros(())
    for c in (axis.body, axis.last):
        total += c.count * ((c.l2_trips - 1) * length(c.body_l2) + length(c.last_l2))
    return total


def fill_drain(op: Any, dataflow: Scalar, rows: Any, cols: Any) -> Scalar:
    """Fabric cycles that a pass takes beyond its stream: rows + cols - 2, or 2 rows + cols - 2 with a preload."""
    return jnp.where(op.kind < 2, rows * jnp.where(dataflow == 0, 1, 2) + cols - 2, 0.0)


def _fabric(op: Any, mapping: Any, layout: Layout, cols: Any, rate: Any, serial: Scalar, element: Scalar) -> Scalar:
    """Cycles for which the fabric (or the vector engine) is held; `serial`: what each pass adds unoverlapped."""
    m, n, k = layout.m, layout.n, layout.k
    flow = mapping.dataflow
    os, ws = flow == 0, flow == 1
    deep = _blocks(k, lambda size: ceil_div(size, rate))
    tall, wide = _blocks(m, lambda size: size), _blocks(n, lambda size: size)
    passes = jnp.where(os, m.passes, k.passes) * jnp.where(os | ws, n.passes, m.passes)
    stream = passes * jnp.where(os, deep, jnp.where(ws, tall, wide))
    blocks = jnp.where(os, k.l2_blocks, jnp.where(ws, m.l2_blocks, n.l2_blocks))
    vector = _blocks(m, lambda size: ceil_div(size, cols)) * element
    return layout.batch_steps * jnp.where(op.kind < 2, stream + serial * passes * blocks, vector)


def _firsts(op: Any, layout: Layout, extents: Any) -> dict[str, Any]:
    """Bytes of the first blocks of A and B of one compute-tile group's first tile, at every level."""
    ea, eb, _, _ = element_bytes(op)

    def first(axis: Axis) -> tuple[Scalar, Scalar]:
        body, last = axis.body, axis.last
        many = body.count > 0
        size2 = jnp.where(last.l2_trips > 1, last.body_l2, last.last_l2)
        return (
            jnp.where(many, body.size, last.size),
            jnp.where(many, jnp.where(body.l2_trips > 1, body.body_l2, body.last_l2), size2),
        )

    (m3, m2), (n3, n2), (k3, k2) = first(layout.m), first(layout.n), first(layout.k)
    m1, n1, k1 = (jnp.minimum(size, extent) for size, extent in zip((m2, n2, k2), extents, strict=True))
    rows = block_rows(op, jnp.zeros_like(m3), ceil_div(m3, jnp.maximum(op.out_w, 1)))
    conv_a = rows * op.in_w * ceil_div(k3, op.kernel_h * op.kernel_w)
    a3 = jnp.where(op.kind == 1, conv_a, m3 * k3) * ea
    return {
        "first_l3": (jnp.where(op.loc_a < 2, a3, 0.0), jnp.where(op.loc_b < 2, k3 * n3 * eb, 0.0)),
        "first_l2": (m2 * k2 * ea, k2 * n2 * eb),
        "first_l1": (m1 * k1 * ea, k1 * n1 * eb),
    }


def _lasts(op: Any, layout: Layout, extents: Any) -> dict[str, Any]:
    """Bytes of the last blocks of C of one compute tile, at least, at every level."""
    _, _, ec, acc = element_bytes(op)
    least = jnp.minimum(ec, acc)
    m, n = layout.m.last, layout.n.last
    m1 = m.last_l2 - (m.last_passes - 1) * extents[0]
    n1 = n.last_l2 - (n.last_passes - 1) * extents[1]
    return {
        "last_l3": jnp.where(op.loc_c < 2, m.size * n.size * ec, 0.0),
        "last_l2": m.last_l2 * n.last_l2 * least,
        "last_l1": m1 * n1 * least,
    }
