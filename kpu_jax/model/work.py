"""What each engine class must do for a schedule, whatever its speed: in all, first, last, and behind the last load.

Independent of clocks, buses, engine counts, bandwidths and latencies, so that a sweep lays it out once for all speeds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div
from kpu_jax.mapping.axes import Axis, L3Class
from kpu_jax.mapping.input_rows import block_rows
from kpu_jax.mapping.visits import Layout, axes_elements, pass_sizes
from kpu_jax.model.rates import element_cycles, fill_drain
from kpu_jax.model.traffic import Traffic, run_bursts
from kpu_jax.workload.footprint import element_bytes

Scalar = jax.Array


class LastBlock(NamedTuple):
    """The last L3 block of a schedule, whose passes all wait for the last load of A or B."""

    loads: Scalar  # it begins with such a load
    before: Scalar  # carried by the DMA engines up to and with that load, at least [byte]
    l2: Scalar  # the first block that the load feeds, at least [byte]
    l1: Scalar
    fabric: Scalar  # held by the passes of this block [fabric cycles]


class Visits(NamedTuple):
    """C's visits to L1, where each block comes once and stays for two passes or more (else none is counted)."""

    visits: Scalar
    later: Scalar  # held by all passes but the first of each visit [fabric cycles]


class Turns(NamedTuple):
    """Boundaries between L3 blocks at which the DMA, having loaded the next block, must wait to store the last."""

    turns: Scalar
    into_l2: Scalar  # bytes of the moves on the way from the load to the store, at least
    into_l1: Scalar  # 0: the drain does not wait for a load into L1
    drain: Scalar
    write_back: Scalar
    meanwhile: Scalar  # bytes that the DMA may carry in that time, at most


class Work(NamedTuple):
    """What each engine class must do: bytes in all, in the first and in the last moves."""

    host: Scalar  # [byte]
    dma: Any  # bursts [byte]
    block_mover: Scalar
    streamer: Scalar
    fabric: Scalar  # held in all [fabric cycles]: exact
    first_l3: tuple[Scalar, Scalar]  # bytes of the first blocks of A and B at least, per level
    first_l2: tuple[Scalar, Scalar]
    first_l1: tuple[Scalar, Scalar]
    last_l3: Scalar  # bytes of the last blocks of C, at least
    last_l2: Scalar
    last_l1: Scalar
    last_block: LastBlock
    final: Scalar  # bytes of C that the streamers drain complete; 0 where parts of K are added elsewhere
    lanes: Scalar  # ... and the elements of these per vector lane, each with its bias and activation
    visits: Visits
    turns: Turns
    fill_drain: Scalar  # from the last pass's hold to its completion [fabric cycles]


def work_of(cfg: Any, op: Any, mapping: Any, layout: Layout, traffic: Traffic, rate: Any) -> Work:
    """The work of `op` under `mapping`: totals exact, first and last moves lower bounds."""
    reads, writes = traffic.reads, traffic.writes
    _, _, _, acc = element_bytes(op)
    stores = jnp.where(op.loc_c < 2, writes["dram"]["C"], 0.0)
    moved_c = reads["l3"]["C"] - stores + writes["l3"]["C"] - (reads["dram"]["C"] - writes["host"]["C"])
    drained = writes["l2"]["C"] - op.batch * (layout.C.l2_reads - op.m * op.n) * acc
    returned = writes["l1"]["C"] - reads["pe"]["C"]
    array, serial = cfg.compute.processor_array, cfg.compute.fold_overlap <= 0
    tail = fill_drain(cfg, op, mapping.dataflow)
    extents = pass_sizes(op, mapping, array.rows, array.cols, rate)
    per_pass, per_element = jnp.where(serial, tail, 0.0), element_cycles(cfg, op)

    def fabric(m: Axis, n: Axis, k: Axis) -> Scalar:
        return _fabric(op, mapping, (m, n, k), array.cols, rate, per_pass, per_element)

    total = layout.batch_steps * fabric(layout.m, layout.n, layout.k)
    alone = layout.k.tiles <= 1
    tall, wide = _blocks(layout.m, lambda size: size), _blocks(layout.n, lambda size: size)

    return Work(
        host=sum(reads["host"][x] for x in "AB") + writes["host"]["C"],
        dma=sum(traffic.bursts.values()),
        block_mover=sum(reads["l3"][x] for x in ("A", "B", "bias")) + moved_c,
        streamer=sum(reads["l2"][x] for x in ("A", "B", "bias")) + returned + drained,
        fabric=total,
        **_firsts(op, layout, extents),
        **_lasts(op, layout, extents, cfg.buses.burst_bytes),
        last_block=_last_block(op, mapping, layout, extents, jnp.asarray(sum(traffic.bursts.values())), cfg.buses.burst_bytes, fabric),
        final=jnp.where(alone, op.batch * op.m * op.n * element_bytes(op)[2], 0.0),
        lanes=jnp.where(alone, layout.batch_steps * tall * wide / array.cols, 0.0),
        visits=_visits(op, mapping, layout, total),
        turns=_turns(op, mapping, layout, extents, cfg.buses.burst_bytes),
        fill_drain=jnp.where(serial, 0.0, tail),
    )


def _blocks(axis: Axis, length: Any) -> Scalar:
    """Sum of length(L2 block size of the first compute tile) over all L2 blocks of an axis."""
    total = jnp.zeros(())
    for c in (axis.body, axis.last):
        total += c.count * ((c.l2_trips - 1) * length(c.body_l2) + length(c.last_l2))
    return total


def _fabric(op: Any, mapping: Any, axes: tuple[Axis, Axis, Axis], cols: Any, rate: Any, per_pass: Scalar, element: Scalar) -> Scalar:
    """Cycles that one step of the batch holds the fabric (or the vector engine); `per_pass`: added if not overlapped."""
    m, n, k = axes
    flow = mapping.dataflow
    os, ws = flow == 0, flow == 1
    deep = _blocks(k, lambda size: ceil_div(size, rate))
    tall, wide = _blocks(m, lambda size: size), _blocks(n, lambda size: size)
    passes = jnp.where(os, m.passes, k.passes) * jnp.where(os | ws, n.passes, m.passes)
    stream = passes * jnp.where(os, deep, jnp.where(ws, tall, wide))
    blocks = jnp.where(os, k.l2_blocks, jnp.where(ws, m.l2_blocks, n.l2_blocks))
    vector = _blocks(m, lambda size: ceil_div(size, cols)) * element
    return jnp.where(op.kind < 2, stream + per_pass * passes * blocks, vector)


def _only_last(axis: Axis) -> Axis:
    """The axis as if its last L3 block were all of it."""
    c = axis.last
    passes = (c.l2_trips - 1) * c.body_passes + c.last_passes
    return axis._replace(
        body=axis.body._replace(count=jnp.zeros_like(c.count)),
        last=c._replace(count=jnp.ones_like(c.count)),
        l2_blocks=c.l2_trips,
        passes=passes,
    )


def _first_l2(c: L3Class) -> tuple[Scalar, Scalar]:
    """(elements of the first compute tile's first L2 block, at least of all compute tiles' together)."""
    many = c.l2_trips > 1
    return jnp.where(many, c.body_l2, c.last_l2), jnp.where(many, c.body_rows / jnp.maximum(c.l2_trips - 1, 1), c.last_rows)


def _largest(axis: Axis) -> Scalar:
    """Elements of the largest L3 block along an axis."""
    return jnp.maximum(jnp.where(axis.body.count > 0, axis.body.size, 0.0), axis.last.size)


def _largest_block(m: Axis, n: Axis, width: Scalar, burst: Scalar) -> Scalar:
    """Bytes of the bursts that carry the largest L3 block of C, one group's."""
    return run_bursts(_largest(m), _largest(n) * width, n.l3_trips <= 1, burst)


def _largest_bias(op: Any, n: Axis, burst: Scalar) -> Scalar:
    """Bytes of the bursts that carry the bias of the widest L3 block, one group's."""
    return jnp.where(op.has_bias > 0, run_bursts(1.0, _largest(n) * element_bytes(op)[3], True, burst), 0.0)


def _groups_at_last(op: Any, layout: Layout) -> Scalar:
    """Compute-tile groups that still have a batch element at the last step of the batch loop."""
    rest = op.batch - (layout.groups - 1) * layout.batch_steps
    return jnp.where(rest >= layout.batch_steps, layout.groups, layout.groups - 1)


def _firsts(op: Any, layout: Layout, extents: Any) -> dict[str, Any]:
    """Bytes of the first blocks of A and B at every level, at least."""
    ea, eb, _, _ = element_bytes(op)

    def first(axis: Axis) -> L3Class:
        return jax.tree.map(lambda b, last: jnp.where(axis.body.count > 0, b, last), axis.body, axis.last)

    m, n, k = first(layout.m), first(layout.n), first(layout.k)
    (m2, all_m2), (n2, all_n2), (k2, all_k2) = _first_l2(m), _first_l2(n), _first_l2(k)
    m1, n1, k1 = (jnp.minimum(size, extent) for size, extent in zip((m2, n2, k2), extents, strict=True))
    rows = block_rows(op, jnp.zeros_like(m.size), ceil_div(m.size, jnp.maximum(op.out_w, 1)))
    conv_a = rows * op.in_w * ceil_div(k.size, op.kernel_h * op.kernel_w)
    a3 = jnp.where(op.kind == 1, conv_a, m.size * k.size) * ea
    groups = layout.groups
    return {
        "first_l3": (groups * jnp.where(op.loc_a < 2, a3, 0.0), groups * jnp.where(op.loc_b < 2, k.size * n.size * eb, 0.0)),
        "first_l2": (groups * all_m2 * all_k2 * ea, groups * all_k2 * all_n2 * eb),
        "first_l1": (groups * n.active * m1 * k1 * ea, groups * m.active * k1 * n1 * eb),
    }


def _last_store(op: Any, layout: Layout, burst: Scalar) -> Scalar:
    """Bytes of the bursts that carry the last L3 block of C out: exact."""
    m, n = layout.m.last, layout.n.last
    size = run_bursts(m.size, n.size * element_bytes(op)[2], layout.n.l3_trips <= 1, burst)
    return _groups_at_last(op, layout) * jnp.where(op.loc_c < 2, size, 0.0)


def _lasts(op: Any, layout: Layout, extents: Any, burst: Scalar) -> dict[str, Any]:
    """Bytes of the last blocks of C at every level, at least."""
    _, _, ec, acc = element_bytes(op)
    least = jnp.minimum(ec, acc) * _groups_at_last(op, layout)
    m, n = layout.m.last, layout.n.last
    m1 = m.last_l2 - (m.last_passes - 1) * extents[0]
    n1 = n.last_l2 - (n.last_passes - 1) * extents[1]
    return {
        "last_l3": _last_store(op, layout, burst),
        "last_l2": m.last_rows * n.last_rows * least,
        "last_l1": m1 * n1 * least,
    }


def _last_block(op: Any, mapping: Any, layout: Layout, extents: Any, carried: Scalar, burst: Scalar, fabric: Any) -> LastBlock:
    """The last L3 block: `carried` by the DMA in all, less what may be queued behind its last load of A or B."""
    ea, eb, ec, acc = element_bytes(op)
    m, n, k = layout.m, layout.n, layout.k

    def stays(axis: Axis, moved: Any, operand: str) -> Scalar:
        """Does the operand's block stay when the last L3 block begins? Then only its irrelevant axis advances."""
        return (axis.l3_trips > 1) & (moved.l3 <= axes_elements(op, operand))

    loads_a = ~stays(n, layout.A, "A") & (op.loc_a < 2)
    loads_b = ~stays(m, layout.B, "B") & (op.loc_b < 2) & (op.kind < 2)
    new_c = ~stays(k, layout.C, "C")
    external, revisited = op.loc_c < 2, k.l3_trips > 1
    move_in = jnp.where(revisited, jnp.where(external, _largest_block(m, n, acc, burst), 0.0), _largest_bias(op, n, burst))
    before = jnp.where(external & (mapping.double_l3 > 0), _largest_block(m, n, jnp.where(revisited, acc, ec), burst), 0.0)
    behind = _last_store(op, layout, burst) + layout.groups * jnp.where(new_c, move_in + before, 0.0)

    groups = _groups_at_last(op, layout)
    (m2, all_m2), (n2, all_n2), (k2, all_k2) = _first_l2(m.last), _first_l2(n.last), _first_l2(k.last)
    m1, n1, k1 = (jnp.minimum(size, extent) for size, extent in zip((m2, n2, k2), extents, strict=True))
    return LastBlock(
        loads=loads_a | loads_b,
        before=jnp.maximum(carried - behind, 0.0),
        l2=groups * jnp.where(loads_b, all_k2 * all_n2 * eb, all_m2 * all_k2 * ea),
        l1=groups * jnp.where(loads_b, m.last.active * k1 * n1 * eb, n.last.active * m1 * k1 * ea),
        fabric=fabric(_only_last(m), _only_last(n), _only_last(k)),
    )


def _visits(op: Any, mapping: Any, layout: Layout, fabric: Scalar) -> Visits:
    """Each visit lasts for all passes along K: those of weight- and input-stationary, the L2 blocks of output-stationary."""
    m, n, k = layout.m, layout.n, layout.k
    os, ws = mapping.dataflow == 0, mapping.dataflow == 1
    passes = jnp.where(os, k.l2_blocks, k.passes)
    once = (layout.C.l1 <= op.m * op.n) & (k.tiles <= 1) & (passes >= 2) & (op.kind < 2)
    blocks = jnp.where(os | ~ws, m.passes, m.l2_blocks) * jnp.where(os | ws, n.passes, n.l2_blocks)
    deepest = jnp.maximum(*(_first_l2(c)[0] for c in (k.body, k.last)))
    # Output-stationary passes differ in length by their L2 block's depth: the first is at most the deepest.
    share = jnp.where(os, deepest / jnp.maximum(op.k, 1.0), 1.0 / passes)
    return Visits(
        visits=jnp.where(once, layout.batch_steps * blocks, 0.0),
        later=jnp.where(once, fabric * jnp.maximum(1.0 - share, 0.0), 0.0),
    )


def _turns(op: Any, mapping: Any, layout: Layout, extents: Any, burst: Scalar) -> Turns:
    """See `Turns`; none unless L3 and L2 are double-buffered and A and B come from outside."""
    ea, eb, ec, acc = element_bytes(op)
    m, n, k = layout.m, layout.n, layout.k
    counts = (mapping.double_l3 > 0) & (mapping.double_l2 > 0) & (op.loc_a < 2) & (op.loc_b < 2) & (op.loc_c < 2)
    revisits = jnp.where(layout.C.l3 > op.m * op.n, k.l3_trips, 1.0)
    stays = layout.batch_steps * m.l3_trips * n.l3_trips * revisits

    def least(axis: Axis, size: Any) -> Scalar:
        return jnp.minimum(jnp.where(axis.body.count > 0, size(axis.body), jnp.inf), size(axis.last))

    first = [least(a, lambda c: _first_l2(c)[0]) for a in (m, n, k)]
    last = [least(a, lambda c: c.last_l2) for a in (m, n)]
    m1, n1, k1 = (jnp.minimum(size, extent) for size, extent in zip(first, extents, strict=True))
    width, early = jnp.minimum(ec, acc), mapping.double_l1 > 0
    last_pass = [
        least(a, lambda c, e=extent: c.last_l2 - (c.last_passes - 1) * e) for a, extent in zip((m, n), extents[:2], strict=True)
    ]
    either = jnp.where(op.kind < 2, jnp.minimum(first[0] * ea, first[1] * eb) * first[2], first[0] * ea)
    either_l1 = jnp.where(op.kind < 2, jnp.minimum(m1 * ea, n1 * eb) * k1, m1 * ea)
    returning = jnp.where(revisits > 1, _largest_block(m, n, acc, burst), 0.0)
    return Turns(
        turns=jnp.where(counts, stays - 1, 0.0),
        into_l2=either,
        into_l1=jnp.where(early, either_l1, 0.0),
        drain=jnp.where(early, last_pass[0] * last_pass[1] * width, 0.0),
        write_back=last[0] * last[1] * width,
        meanwhile=layout.groups * jnp.maximum(returning, _largest_bias(op, n, burst)),
    )
