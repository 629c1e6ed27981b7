"""Bytes per memory level and operand, in closed form: exact for every edge, order, dataflow and partition.

Oracle: `program.schedule` walks the same schedule block by block; the tests compare every entry.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div
from kpu_jax.mapping.visits import Layout, Visits

Scalar = jax.Array
LEVELS = ("host", "dram", "l3", "l2", "l1", "pe")
OPERANDS = ("A", "B", "C", "bias")
Table = dict[str, dict[str, Scalar]]  # level -> operand -> bytes


class VectorWork(NamedTuple):
    """Elements that pass the vector engine, all batch elements."""

    biased: Scalar
    activated: Scalar
    summed: Scalar  # parts of K added on the way to L3
    computed: Scalar  # of a vector operation


class Traffic(NamedTuple):
    """Bytes of one operation, all batch elements and compute tiles."""

    reads: Table  # read at each level, per operand [byte]
    writes: Table  # written at each level, per operand [byte]
    bursts: dict[str, Scalar]  # external bytes moved per operand, burst padding included [byte]
    padding_read: Scalar  # ... and the padding alone [byte]
    padding_write: Scalar
    elements: VectorWork
    compulsory: Scalar  # each external operand once, in its own dtype [byte]


def count_traffic(op: Any, mapping: Any, layout: Layout, burst: Scalar) -> Traffic:
    """Traffic of `op` under `mapping`; `layout` is `lay_out(...)` of the same two, `burst` in bytes.

    Exact: integers while the totals fit the mantissa (2^53 in float64; float32 keeps 1e-6 relative).
    Differentiable in the bytes per element; in sizes and tiles through straight-through ceilings.
    """
    ea, eb, ec, acc = layout.widths
    batch = op.batch
    a, b, c = (Visits(visits.times, *(batch * v for v in visits[1:])) for visits in (layout.A, layout.B, layout.C))
    mn, mk, kn = batch * op.m * op.n, batch * op.m * op.k, batch * op.k * op.n
    conv, fabric = op.kind == 1, op.kind < 2
    external_c = op.loc_c < 2
    first_visits = mn + c.l2 - c.l2_reads  # elements of C that start from nothing on some compute tile
    back_to_l1 = (c.l1 - first_visits) * acc
    all_final = batch * layout.c_final * (acc - ec)
    drained = c.l1 * acc - all_final
    written_back = c.l2 * acc - all_final

    line = batch * op.in_w * op.channels
    dram_a = jnp.where(op.loc_a < 2, jnp.where(conv, layout.input_rows.moved * line, mk) * ea * a.times, 0.0)
    dram_b = jnp.where(op.loc_b < 2, b.l3 * eb, 0.0)
    loads_c = jnp.where(external_c, (c.l3 - mn) * acc, 0.0)
    stores_c = loads_c + jnp.where(external_c, mn * ec, 0.0)
    # The host sends an input row once, however many blocks of a convolution need it.
    whole = (jnp.where(conv, layout.input_rows.whole * line, mk) * ea, kn * eb, mn * ec)
    host_a, host_b, host_c = (jnp.where(loc == 0, size, 0.0) for loc, size in zip((op.loc_a, op.loc_b, op.loc_c), whole, strict=True))
    bias = jnp.where(op.has_bias > 0, batch * op.n * acc, 0.0)
    bias_l3, bias_l2, bias_receivers, bias_l1 = (
        bias * times for times in (layout.m.l3_trips, layout.m.l2_blocks, layout.m.l2_pairs, layout.m.pass_pairs)
    )

    os, ws, is_ = mapping.dataflow == 0, mapping.dataflow == 1, mapping.dataflow == 2
    pe_a = jnp.where(is_ & fabric, a.l1, mk * layout.n.pass_pairs) * ea
    pe_b = jnp.where(ws & fabric, b.l1, kn * layout.m.pass_pairs) * eb
    leaving = mn * layout.k.pass_pairs  # weight- and input-stationary: C leaves the array in every pass
    pe_c = jnp.where(os, c.l1, leaving) * acc
    added_in_l1 = jnp.where(os, back_to_l1, (leaving - first_visits) * acc)
    returned_to_pe = jnp.where(os, back_to_l1, 0.0)

    def table(**levels: dict[str, Scalar]) -> Table:
        zero = jnp.zeros_like(mn)
        return {lv: {x: levels.get(lv, {}).get(x, zero) for x in OPERANDS} for lv in LEVELS}

    reads = table(
        host={"A": host_a, "B": host_b},
        dram={"A": dram_a, "B": dram_b, "C": loads_c + host_c, "bias": bias_l3},
        l3={"A": a.l2_reads * ea, "B": b.l2_reads * eb, "C": (c.l2 - mn) * acc + stores_c, "bias": bias_l2},
        l2={"A": a.l1 * ea, "B": b.l1 * eb, "C": back_to_l1 + written_back, "bias": bias_l1},
        l1={"A": pe_a, "B": pe_b, "C": c.l1 * acc + added_in_l1, "bias": bias_l1},
        pe={"C": pe_c},
    )
    writes = table(
        host={"C": host_c},
        dram={"A": host_a, "B": host_b, "C": stores_c},
        l3={"A": dram_a, "B": dram_b, "C": loads_c + c.l2 * acc - mn * (acc - ec), "bias": bias_l3},
        l2={"A": a.l2 * ea, "B": b.l2 * eb, "C": (c.l2_reads - mn) * acc + drained, "bias": bias_receivers},
        l1={"A": reads["l2"]["A"], "B": reads["l2"]["B"], "C": pe_c + back_to_l1, "bias": bias_l1},
        pe={"A": pe_a, "B": pe_b, "C": returned_to_pe},
    )
    padding = _padding(op, layout, burst)
    returns, stores = padding["returns"], padding["stores"]
    bursts = {
        "A": dram_a + padding["A"],
        "B": dram_b + padding["B"],
        "C": loads_c + returns + (stores_c + stores),
        "bias": bias_l3 + padding["bias"],
    }
    elements = VectorWork(
        biased=jnp.where(fabric & (op.has_bias > 0), mn, 0.0),
        activated=jnp.where(fabric & (op.activation > 0), mn, 0.0),
        summed=jnp.where(fabric, c.l2 - c.l2_reads, 0.0),
        computed=jnp.where(fabric, 0.0, batch * op.m),
    )
    compulsory = bias + sum(jnp.where(loc < 2, size, 0.0) for loc, size in zip((op.loc_a, op.loc_b, op.loc_c), whole, strict=True))
    return Traffic(reads, writes, bursts, padding["A"] + padding["B"] + padding["bias"] + returns, stores, elements, compulsory)


def run_padding(h: Any, w: Scalar, contiguous: Any, burst: Scalar) -> Scalar:
    """Bytes by which the bursts that carry h rows of w bytes exceed them: one run if contiguous, else a run per row."""
    run, runs = jnp.where(contiguous, h * w, w), jnp.where(contiguous, 1.0, h)
    return runs * (ceil_div(run, burst) * burst - run)


def run_bursts(h: Any, w: Scalar, contiguous: Any, burst: Scalar) -> Scalar:
    """Bytes of the bursts that carry h rows of w bytes."""
    return h * w + run_padding(h, w, contiguous, burst)


def conv_padding(op: Any, rows: Scalar, channels: Scalar, ea: Scalar, burst: Scalar) -> Scalar:
    """Burst padding of whole input rows of a slice of channels (rows are burst-aligned)."""
    whole = channels >= op.channels
    runs, width = jnp.where(whole, rows, rows * op.in_w), jnp.where(whole, op.in_w, 1.0) * channels * ea
    return run_padding(runs, width, False, burst)


def _padding(op: Any, layout: Layout, burst: Scalar) -> dict[str, Scalar]:
    """Burst padding [byte], all batch elements: of A, B, the bias, C's stores and the loads of its partial sums ("returns").

    Summed per block, so that float32 does not lose it in the difference of two large totals.
    """
    ea, eb, ec, acc = layout.widths
    m, n, k = ((axis.body, axis.last) for axis in (layout.m, layout.n, layout.k))

    def blocks(hs: Any, ws: Any, width: Any, contiguous: Scalar) -> Scalar:
        """Padding of all blocks h x w; the widest are `contiguous` if there is but one column of blocks."""
        return sum(h.count * w.count * run_padding(h.size, w.size * width, contiguous, burst) for h in hs for w in ws)

    one_column, rows = layout.n.l3_trips <= 1, layout.input_rows.moved
    kernel = op.kernel_h * op.kernel_w
    conv_a = sum(c.count * conv_padding(op, rows, ceil_div(c.size, kernel), ea, burst) for c in k)
    once_a, once_b = blocks(m, k, ea, layout.k.l3_trips <= 1), blocks(k, n, eb, one_column)
    partial, final = (layout.C.times - 1) * blocks(m, n, acc, one_column), blocks(m, n, ec, one_column)
    bias = sum(c.count * run_padding(1.0, c.size * acc, True, burst) for c in n)
    located = {
        "A": (op.loc_a, jnp.where(op.kind == 1, conv_a, once_a) * layout.A.times),
        "B": (op.loc_b, once_b * layout.B.times),
        "returns": (op.loc_c, partial),
        "stores": (op.loc_c, partial + final),
    }
    padding = {name: op.batch * jnp.where(location < 2, size, 0.0) for name, (location, size) in located.items()}
    return {**padding, "bias": op.batch * jnp.where(op.has_bias > 0, layout.m.l3_trips * bias, 0.0)}
