"""What each engine class must do for a schedule, whatever its speed: in all, first, last, and behind the last load.

Independent of clocks, buses, engine counts, bandwidths and latencies, so that a sweep lays it out once for all speeds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div
from kpu_jax.engines.rates import element_cycles, fill_drain, unload
from kpu_jax.mapping.axes import Axis, L3Class
from kpu_jax.mapping.visits import Layout
from kpu_jax.model.traffic import Traffic, run_bursts

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
    acc, burst = layout.widths[3], cfg.buses.burst_bytes
    stores = jnp.where(op.loc_c < 2, writes["dram"]["C"], 0.0)
    moved_c = reads["l3"]["C"] - stores + writes["l3"]["C"] - (reads["dram"]["C"] - writes["host"]["C"])
    drained = writes["l2"]["C"] - op.batch * (layout.C.l2_reads - op.m * op.n) * acc
    returned = writes["l1"]["C"] - reads["pe"]["C"]
    serial, tail = cfg.compute.fold_overlap <= 0, fill_drain(cfg, op, mapping.dataflow)
    bursts = jnp.asarray(sum(traffic.bursts.values()))
    per_pass = jnp.where(serial, tail, 0.0) + unload(cfg, op, mapping.dataflow)
    held = _fabric(cfg, op, mapping, layout, rate, per_pass)
    total = layout.batch_steps * held[0]
    alone = layout.k.tiles <= 1
    columns = layout.m.shares * layout.n.shares / cfg.compute.processor_array.cols

    return Work(
        host=sum(reads["host"][x] for x in "AB") + writes["host"]["C"],
        dma=bursts,
        block_mover=sum(reads["l3"][x] for x in ("A", "B", "bias")) + moved_c,
        streamer=sum(reads["l2"][x] for x in ("A", "B", "bias")) + returned + drained,
        fabric=total,
        **_firsts(op, layout),
        **_lasts(op, layout, burst),
        last_block=_last_block(op, mapping, layout, bursts, burst, held[1]),
        final=jnp.where(alone, op.batch * op.m * op.n * layout.widths[2], 0.0),
        lanes=jnp.where(alone, layout.batch_steps * columns, 0.0),
        visits=_visits(op, mapping, layout, total, rate, per_pass),
        turns=_turns(op, mapping, layout, burst),
        fill_drain=jnp.where(serial, 0.0, tail),
    )


def _fabric(cfg: Any, op: Any, mapping: Any, layout: Layout, rate: Any, per_pass: Scalar) -> tuple[Scalar, Scalar]:
    """Cycles that one step of the batch, and its last L3 block, hold the fabric (or the vector engine).

    `per_pass`: cycles of a pass beyond its stream, where passes do not overlap.
    """
    m, n, k = layout.m, layout.n, layout.k
    flow, cols = mapping.dataflow, cfg.compute.processor_array.cols

    def in_blocks(c: L3Class, together: Scalar) -> Scalar:
        """Cycles to stream a share, block by block, `together` elements at once."""
        return (c.l2_trips - 1) * ceil_div(c.body_l2, together) + ceil_div(c.last_l2, together)

    def held(passes: Any, trips: Any, lengths: Any, lanes: Scalar) -> Scalar:
        """All passes over two axes, each with the whole stream along the third, cut into its L2 blocks."""
        passes_1, passes_2 = jnp.where(flow == 0, passes[0], passes[2]), jnp.where(flow == 2, passes[0], passes[1])
        stream, blocks = (jnp.where(flow == 0, v[2], jnp.where(flow == 1, v[0], v[1])) for v in (lengths, trips))
        fabric = passes_1 * passes_2 * (stream + per_pass * blocks)
        return jnp.where(op.kind < 2, fabric, lanes * element_cycles(cfg, op))

    axes, last = (m, n, k), (m.last, n.last, k.last)
    deep, lanes = [in_blocks(c, rate) for c in (k.body, k.last)], [in_blocks(c, cols) for c in (m.body, m.last)]
    return (
        held([a.passes for a in axes], [a.l2_blocks for a in axes], (m.shares, n.shares, k.total(*deep)), m.total(*lanes)),
        held([c.passes for c in last], [c.l2_trips for c in last], (m.last.share, n.last.share, deep[1]), lanes[1]),
    )


def _first_l2(c: L3Class) -> Scalar:
    """Elements of the first L2 block of an L3 block, of all compute tiles at least."""
    return jnp.where(c.l2_trips > 1, c.body_rows / jnp.maximum(c.l2_trips - 1, 1), c.last_rows)


def _last_pass(c: L3Class, axis: Axis) -> Scalar:
    """Elements of the first compute tile's last pass."""
    return c.last_l2 - (c.last_passes - 1) * axis.extent


def _largest_block(layout: Layout, width: Scalar, burst: Scalar) -> Scalar:
    """Bytes of the bursts that carry the largest L3 block of C, one group's."""
    m, n = layout.m.body.size, layout.n.body.size
    return run_bursts(m, n * width, layout.n.l3_trips <= 1, burst)


def _largest_bias(op: Any, layout: Layout, burst: Scalar) -> Scalar:
    """Bytes of the bursts that carry the bias of the widest L3 block, one group's."""
    return jnp.where(op.has_bias > 0, run_bursts(1.0, layout.n.body.size * layout.widths[3], True, burst), 0.0)


def _groups_at_last(op: Any, layout: Layout) -> Scalar:
    """Compute-tile groups that still have a batch element at the last step of the batch loop."""
    rest = op.batch - (layout.groups - 1) * layout.batch_steps
    return jnp.where(rest >= layout.batch_steps, layout.groups, layout.groups - 1)


def _loads(layout: Layout, m: L3Class, n: L3Class, k: L3Class) -> tuple[tuple[Scalar, Scalar], tuple[Scalar, Scalar]]:
    """Bytes of the first blocks of (A, B) into L2 and into L1, in L3 blocks of these classes, one group's, at least."""
    ea, eb, _, _ = layout.widths
    m2, n2, k2 = _first_l2(m), _first_l2(n), _first_l2(k)
    m1, n1, k1 = (jnp.minimum(c.body_l2, axis.extent) for c, axis in ((m, layout.m), (n, layout.n), (k, layout.k)))
    return (m2 * k2 * ea, k2 * n2 * eb), (n.active * m1 * k1 * ea, m.active * k1 * n1 * eb)


def _firsts(op: Any, layout: Layout) -> dict[str, Any]:
    """Bytes of the first blocks of A and B at every level, at least."""
    ea, eb, _, _ = layout.widths
    m, n, k = layout.m.body, layout.n.body, layout.k.body
    conv_a = layout.input_rows.first * op.in_w * ceil_div(k.size, op.kernel_h * op.kernel_w)
    a3 = jnp.where(op.loc_a < 2, jnp.where(op.kind == 1, conv_a, m.size * k.size) * ea, 0.0)
    b3 = jnp.where(op.loc_b < 2, k.size * n.size * eb, 0.0)
    l2, l1 = _loads(layout, m, n, k)
    firsts = {"first_l3": (a3, b3), "first_l2": l2, "first_l1": l1}
    return {name: tuple(layout.groups * size for size in sizes) for name, sizes in firsts.items()}


def _last_store(op: Any, layout: Layout, burst: Scalar) -> Scalar:
    """Bytes of the bursts that carry the last L3 block of C out: exact."""
    m, n = layout.m.last.size, layout.n.last.size
    size = run_bursts(m, n * layout.widths[2], layout.n.l3_trips <= 1, burst)
    return _groups_at_last(op, layout) * jnp.where(op.loc_c < 2, size, 0.0)


def _lasts(op: Any, layout: Layout, burst: Scalar) -> dict[str, Any]:
    """Bytes of the last blocks of C at every level, at least."""
    _, _, ec, acc = layout.widths
    least = jnp.minimum(ec, acc) * _groups_at_last(op, layout)
    m, n = layout.m, layout.n
    return {
        "last_l3": _last_store(op, layout, burst),
        "last_l2": m.last.last_rows * n.last.last_rows * least,
        "last_l1": _last_pass(m.last, m) * _last_pass(n.last, n) * least,
    }


def _last_block(
    op: Any, mapping: Any, layout: Layout, carried: Scalar, burst: Scalar, fabric: Scalar
) -> LastBlock:
    """The last L3 block: `carried` by the DMA in all, less what may be queued behind its last load of A or B."""
    _, _, ec, acc = layout.widths
    m, n, k = layout.m, layout.n, layout.k

    def stays(trips: Scalar, moved: Any) -> Scalar:
        """Does the operand's block stay when the last L3 block begins? Then only its irrelevant axis advances."""
        return (trips > 1) & (moved.times <= 1)

    loads_a = ~stays(n.l3_trips, layout.A) & (op.loc_a < 2)
    loads_b = ~stays(m.l3_trips, layout.B) & (op.loc_b < 2) & (op.kind < 2)
    new_c = ~stays(k.l3_trips, layout.C)
    external, revisited = op.loc_c < 2, k.l3_trips > 1
    partial = jnp.where(external, _largest_block(layout, acc, burst), 0.0)
    move_in = jnp.where(revisited, partial, _largest_bias(op, layout, burst))
    stored = jnp.where(revisited, partial, jnp.where(external, _largest_block(layout, ec, burst), 0.0))
    before = jnp.where(mapping.double_l3 > 0, stored, 0.0)
    behind = _last_store(op, layout, burst) + layout.groups * jnp.where(new_c, move_in + before, 0.0)

    groups = _groups_at_last(op, layout)
    (a2, b2), (a1, b1) = _loads(layout, m.last, n.last, k.last)
    return LastBlock(
        loads=loads_a | loads_b,
        before=jnp.maximum(carried - behind, 0.0),
        l2=groups * jnp.where(loads_b, b2, a2),
        l1=groups * jnp.where(loads_b, b1, a1),
        fabric=fabric,
    )


def _visits(op: Any, mapping: Any, layout: Layout, fabric: Scalar, rate: Any, per_pass: Scalar) -> Visits:
    """Each visit lasts for all passes along K: those of weight- and input-stationary, the L2 blocks of output-stationary."""
    m, n, k = layout.m, layout.n, layout.k
    os, ws, is_ = mapping.dataflow == 0, mapping.dataflow == 1, mapping.dataflow == 2
    passes = jnp.where(os, k.l2_blocks, k.passes)
    blocks = jnp.where(ws, m.l2_blocks, m.passes) * jnp.where(is_, n.l2_blocks, n.passes)
    once = (layout.C.l1 <= op.m * op.n) & (k.tiles <= 1) & (passes >= 2) & (op.kind < 2)
    visits = layout.batch_steps * blocks
    # Output-stationary passes differ in length by their L2 block's depth: the first is the deepest.
    first = jnp.where(os, visits * (ceil_div(k.body.body_l2, rate) + per_pass), fabric / passes)
    return Visits(
        visits=jnp.where(once, visits, 0.0),
        later=jnp.where(once, jnp.maximum(fabric - first, 0.0), 0.0),
    )


def _turns(op: Any, mapping: Any, layout: Layout, burst: Scalar) -> Turns:
    """See `Turns`; none unless L3 and L2 are double-buffered and A and B come from outside."""
    ea, eb, ec, acc = layout.widths
    m, n, k = layout.m, layout.n, layout.k
    counts = (mapping.double_l3 > 0) & (mapping.double_l2 > 0) & (op.loc_a < 2) & (op.loc_b < 2) & (op.loc_c < 2)
    revisits = jnp.where(layout.C.times > 1, k.l3_trips, 1.0)
    stays = layout.batch_steps * m.l3_trips * n.l3_trips * revisits
    width, early = jnp.minimum(ec, acc), mapping.double_l1 > 0

    def either(m: Scalar, n: Scalar, k: Scalar) -> Scalar:
        """Bytes of the smaller block of A and B, of these elements; a vector operation has A only."""
        return jnp.where(op.kind < 2, jnp.minimum(m * ea, n * eb) * k, m * ea)

    # The last L3 block's first L2 block and pass are the smallest of the first ones.
    first = [axis.last.body_l2 for axis in (m, n, k)]
    first_pass = [jnp.minimum(size, axis.extent) for size, axis in zip(first, (m, n, k), strict=True)]
    drained = [jnp.minimum(_last_pass(axis.body, axis), _last_pass(axis.last, axis)) for axis in (m, n)]
    written = [jnp.minimum(axis.body.last_l2, axis.last.last_l2) for axis in (m, n)]
    returning = jnp.where(revisits > 1, _largest_block(layout, acc, burst), 0.0)
    return Turns(
        turns=jnp.where(counts, stays - 1, 0.0),
        into_l2=either(*first),
        into_l1=jnp.where(early, either(*first_pass), 0.0),
        drain=jnp.where(early, drained[0] * drained[1] * width, 0.0),
        write_back=written[0] * written[1] * width,
        meanwhile=layout.groups * jnp.maximum(returning, _largest_bias(op, layout, burst)),
    )
