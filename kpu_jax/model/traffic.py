"""Bytes per memory level and operand, in closed form: exact for every edge, order, dataflow and partition.

Oracle: `program.schedule` walks the same schedule block by block; the tests compare every entry.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div, nearest_whole
from kpu_jax.mapping.input_rows import block_rows, total_rows
from kpu_jax.mapping.visits import Layout
from kpu_jax.workload.footprint import element_bytes

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
    ea, eb, ec, acc = element_bytes(op)
    m, n, k, batch = op.m, op.n, op.k, op.batch
    a, b, c = layout.A, layout.B, layout.C
    mn = m * n
    external_a, external_b, external_c = op.loc_a < 2, op.loc_b < 2, op.loc_c < 2
    first_visits = mn + c.l2 - c.l2_reads  # elements of C that start from nothing on some compute tile
    back_to_l1 = c.l1 - first_visits
    drained = c.l1 * acc - layout.c_final * (acc - ec)
    written_back = c.l2 * acc - layout.c_final * (acc - ec)

    wraps_a = a.l3 / (m * k)
    rows = total_rows(op, mapping.l3_m)
    base_a = jnp.where(op.kind == 1, rows * op.in_w * op.channels, m * k) * ea
    dram_a = jnp.where(external_a, base_a * wraps_a, 0.0)
    dram_b = jnp.where(external_b, b.l3 * eb, 0.0)
    stores_c = jnp.where(external_c, (c.l3 - mn) * acc + mn * ec, 0.0)
    loads_c = jnp.where(external_c, (c.l3 - mn) * acc, 0.0)
    staged_a = _input_bytes(op, ea)  # the host sends an input row once, however many blocks of a convolution need it
    host_a, host_b, host_c = (
        jnp.where(loc == 0, size, 0.0) for loc, size in ((op.loc_a, staged_a), (op.loc_b, k * n * eb), (op.loc_c, mn * ec))
    )
    bias = jnp.where(op.has_bias > 0, acc * n, 0.0)
    bias_l3, bias_l2 = bias * layout.m.l3_trips, bias * layout.m.l2_blocks
    bias_l1 = bias * layout.m.pass_pairs

    os, ws, is_ = mapping.dataflow == 0, mapping.dataflow == 1, mapping.dataflow == 2
    fabric = op.kind < 2
    stream_a = m * k * layout.n.pass_pairs
    stream_b = k * n * layout.m.pass_pairs
    pe_a = jnp.where(is_ & fabric, a.l1, stream_a) * ea
    pe_b = jnp.where(ws & fabric, b.l1, stream_b) * eb
    leaving = mn * layout.k.pass_pairs  # weight- and input-stationary: C leaves the array in every pass
    pe_c = jnp.where(os, c.l1, leaving) * acc
    added_in_l1 = jnp.where(os, back_to_l1, leaving - first_visits) * acc
    returned_to_pe = jnp.where(os, back_to_l1 * acc, 0.0)

    def table(**levels: dict[str, Scalar]) -> Table:
        zero = jnp.zeros_like(mn)
        return {lv: {x: batch * levels.get(lv, {}).get(x, zero) for x in OPERANDS} for lv in LEVELS}

    reads = table(
        host={"A": host_a, "B": host_b},
        dram={"A": dram_a, "B": dram_b, "C": loads_c + host_c, "bias": bias_l3},
        l3={"A": a.l2_reads * ea, "B": b.l2_reads * eb, "C": (c.l2 - mn) * acc + stores_c, "bias": bias_l2},
        l2={"A": a.l1 * ea, "B": b.l1 * eb, "C": back_to_l1 * acc + written_back, "bias": bias_l1},
        l1={"A": pe_a, "B": pe_b, "C": c.l1 * acc + added_in_l1, "bias": bias_l1},
        pe={"C": pe_c},
    )
    writes = table(
        host={"C": host_c},
        dram={"A": host_a, "B": host_b, "C": stores_c},
        l3={"A": dram_a, "B": dram_b, "C": loads_c + c.l2 * acc - mn * (acc - ec), "bias": bias_l3},
        l2={"A": a.l2 * ea, "B": b.l2 * eb, "C": (c.l2_reads - mn) * acc + drained, "bias": bias * layout.m.l2_pairs},
        l1={"A": a.l1 * ea, "B": b.l1 * eb, "C": pe_c + back_to_l1 * acc, "bias": bias_l1},
        pe={"A": pe_a, "B": pe_b, "C": returned_to_pe},
    )
    padding = _padding(op, mapping, layout, burst, wraps_a)
    asked = {"A": dram_a, "B": dram_b, "C": loads_c + stores_c, "bias": bias_l3}
    bursts = {x: batch * (asked[x] + padding.get(x, 0.0) + (padding["returns"] if x == "C" else 0.0)) for x in OPERANDS}
    elements = VectorWork(
        biased=jnp.where(fabric & (op.has_bias > 0), batch * mn, 0.0),
        activated=jnp.where(fabric & (op.activation > 0), batch * mn, 0.0),
        summed=jnp.where(fabric, batch * (c.l2 - c.l2_reads), 0.0),
        computed=jnp.where(fabric, 0.0, batch * m),
    )
    read_padding = batch * (padding["A"] + padding["B"] + padding["bias"] + padding["returns"])
    compulsory = _compulsory(op, (ea, eb, ec, acc))
    return Traffic(reads, writes, bursts, read_padding, batch * padding["C"], elements, compulsory)


def _input_bytes(op: Any, ea: Scalar) -> Scalar:
    """Bytes of A as it lies in memory, each once: of a convolution the whole input rows that its windows span."""
    rows = block_rows(op, jnp.zeros_like(op.m), ceil_div(op.m, jnp.maximum(op.out_w, 1)))
    return jnp.where(op.kind == 1, rows * op.in_w * op.channels, op.m * op.k) * ea


def _compulsory(op: Any, widths: tuple[Any, Any, Any, Any]) -> Scalar:
    ea, eb, ec, acc = widths
    sizes = (_input_bytes(op, ea), op.k * op.n * eb, op.m * op.n * ec)
    total = sum(jnp.where(loc < 2, s, 0.0) for loc, s in zip((op.loc_a, op.loc_b, op.loc_c), sizes, strict=True))
    return op.batch * (total + jnp.where(op.has_bias > 0, op.n * acc, 0.0))


def run_padding(h: Any, w: Scalar, contiguous: Any, burst: Scalar) -> Scalar:
    """Bytes by which the bursts that carry h rows of w bytes exceed them: one run if contiguous, else a run per row."""

    def beyond(size: Scalar) -> Scalar:
        return ceil_div(size, burst) * burst - size

    return jnp.where(contiguous, beyond(h * w), h * beyond(w))


def run_bursts(h: Any, w: Scalar, contiguous: Any, burst: Scalar) -> Scalar:
    """Bytes of the bursts that carry h rows of w bytes."""
    return h * w + run_padding(h, w, contiguous, burst)


def conv_padding(op: Any, rows: Scalar, channels: Scalar, ea: Scalar, burst: Scalar) -> Scalar:
    """Burst padding of whole input rows of a slice of channels (rows are burst-aligned)."""
    whole = channels >= op.channels
    runs, width = jnp.where(whole, rows, rows * op.in_w), jnp.where(whole, op.in_w, 1.0) * channels * ea
    return run_padding(runs, width, False, burst)


def _padding(op: Any, mapping: Any, layout: Layout, burst: Scalar, wraps_a: Scalar) -> dict[str, Scalar]:
    """Burst padding [byte] per batch element: of A, B, the bias, C's stores ("C") and its partial sums' loads ("returns").

    Summed per block, so that float32 does not lose it in the difference of two large totals.
    """
    ea, eb, ec, acc = element_bytes(op)
    m, n, k = ((axis.body, axis.last) for axis in (layout.m, layout.n, layout.k))

    def blocks(hs: Any, ws: Any, width: Any, whole: Scalar) -> Scalar:
        total = jnp.zeros(())
        for h in hs:
            for w in ws:
                total += h.count * w.count * run_padding(h.size, w.size * width, w.size >= whole, burst)
        return total

    kernel = op.kernel_h * op.kernel_w
    rows = total_rows(op, mapping.l3_m)
    conv_a = sum(c.count * conv_padding(op, rows, ceil_div(c.size, kernel), ea, burst) for c in k)
    once_a = jnp.where(op.kind == 1, conv_a, blocks(m, k, ea, op.k))
    visits_b, visits_c = nearest_whole(layout.B.l3 / (op.k * op.n)), nearest_whole(layout.C.l3 / (op.m * op.n))
    partial = jnp.where(op.loc_c < 2, (visits_c - 1) * blocks(m, n, acc, op.n), 0.0)
    bias = jnp.where(op.has_bias > 0, layout.m.l3_trips, 0.0)
    return {
        "A": jnp.where(op.loc_a < 2, once_a * wraps_a, 0.0),
        "B": jnp.where(op.loc_b < 2, visits_b * blocks(k, n, eb, op.n), 0.0),
        "C": partial + jnp.where(op.loc_c < 2, blocks(m, n, ec, op.n), 0.0),
        "returns": partial,
        "bias": bias * sum(c.count * run_padding(1.0, c.size * acc, True, burst) for c in n),
    }
