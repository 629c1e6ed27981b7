"""Does a mapping fit the chip? Overflow per memory in bytes; the reason as a status code."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div, floor_div
from kpu_jax.hardware import derived
from kpu_jax.mapping.input_rows import largest_rows
from kpu_jax.mapping.visits import Layout
from kpu_jax.workload.footprint import element_bytes, operand_bytes

Scalar = jax.Array

STATUS = (
    "ok",
    "the partition uses more compute tiles than the chip has",
    "L3 overflows",
    "L2 of a compute tile overflows",
    "an L1 stream buffer overflows",
    "the chip has too few L1 stream buffers",
    "external memory overflows",
    "host memory overflows",
    "a convolution's L3 tile must hold whole output rows of one image or whole images, and whole R S channel slices",
    "pass_order does not name the two dimensions that this dataflow's array covers",
)
UNITS = ("", "compute tiles", "byte", "byte", "byte", "buffers", "byte", "byte", "elements", "")
REMEDIES = (
    "",
    "lower mapping.partition or raise compute.tile_count",
    "shrink mapping.l3_tile, buffer L3 singly, or raise on_chip_memory.l3",
    "shrink mapping.l2_tile, use fewer compute tiles, buffer L2 singly, or raise on_chip_memory.l2",
    "shrink mapping.l2_tile along the streaming dimension or raise on_chip_memory.l1.buffer_capacity_kb",
    "buffer L1 singly, use fewer compute tiles, or raise on_chip_memory.l1.buffer_count",
    "raise external_memory.bank_capacity_mb, or cut the operation",
    "raise host_memory.region_capacity_mb, or cut the operation",
    "make l3_tile.m a multiple of out_w (up to one image) or of out_h out_w, and l3_tile.k one of kernel_h kernel_w",
    "use 'mn' or 'nm' output-, 'kn' or 'nk' weight-, 'km' or 'mk' input-stationary",
)


class Needs(NamedTuple):
    """What a mapping needs and what the chip has: [byte], or counts."""

    need: tuple[Scalar, ...]  # by status code, from 1
    have: tuple[Scalar, ...]

    @property
    def status(self) -> Scalar:
        """0 if all fits, else the code of the first thing that does not."""
        code = jnp.zeros_like(self.need[0])
        for number in range(len(self.need), 0, -1):
            code = jnp.where(self.need[number - 1] > self.have[number - 1], float(number), code)
        return code

    @property
    def overflow(self) -> Scalar:
        """By how much the first thing that does not fit overflows (units as `UNITS`), else 0."""
        code, short = self.status, jnp.zeros_like(self.need[0])
        for number, (need, have) in enumerate(zip(self.need, self.have, strict=True), 1):
            short = jnp.where(code == number, need - have, short)
        return short


def needs(cfg: Any, op: Any, mapping: Any, layout: Layout) -> Needs:
    """What `op` under `mapping` needs of each memory, and what `cfg` has. Exact; traceable."""
    ea, eb, ec, acc = element_bytes(op)
    conv, flow = op.kind == 1, mapping.dataflow
    array = cfg.compute.processor_array
    bias = jnp.where(op.has_bias > 0, acc, 0.0)
    m3, n3, k3 = (jnp.maximum(jnp.where(a.body.count > 0, a.body.size, 0), a.last.size) for a in (layout.m, layout.n, layout.k))
    m2, n2, k2 = (
        jnp.maximum(
            jnp.where(a.body.count > 0, jnp.where(a.body.l2_trips > 1, a.body.body_l2, a.body.last_l2), 0.0),
            jnp.where(a.last.l2_trips > 1, a.last.body_l2, a.last.last_l2),
        )
        for a in (layout.m, layout.n, layout.k)
    )

    partial_l3 = layout.out_of_place > 0.5
    c3 = jnp.where(partial_l3, acc, ec)
    a3 = jnp.where(conv, largest_rows(op, mapping.l3_m) * op.in_w * ceil_div(k3, op.kernel_h * op.kernel_w), m3 * k3) * ea
    blocks3 = jnp.where(op.loc_a < 2, a3, 0) + jnp.where(op.loc_b < 2, k3 * n3 * eb, 0) + n3 * bias
    blocks3 += jnp.where(op.loc_c < 2, m3 * n3 * c3, 0)
    whole_a, whole_b, whole_c = operand_bytes(op)
    locations = (op.loc_a, op.loc_b, op.loc_c)
    in_l3 = (whole_a, whole_b, jnp.where(partial_l3, op.m * op.n * acc, whole_c))
    resident = op.batch * sum(jnp.where(loc == 2, s, 0.0) for loc, s in zip(locations, in_l3, strict=True))
    l3 = layout.groups * blocks3 * (1 + mapping.double_l3) + resident + op.reserved_l3_bytes

    partial_l2 = layout.C.l1 - layout.c_final > 0.5
    c2 = jnp.where(partial_l2, acc, ec)
    l2 = (m2 * k2 * ea + k2 * n2 * eb + m2 * n2 * c2 + n2 * bias) * (1 + mapping.double_l2)

    rate = derived.macs_per_pe(cfg, jnp.maximum(jnp.maximum(op.a_bits, op.b_bits), 1))
    # The T elements of each stream reside in L1; the stationary block only passes through on its way.
    streams = jnp.where(
        flow == 0,
        k2 * jnp.maximum(ea, eb),
        jnp.where(flow == 1, m2 * jnp.maximum(rate * ea, acc), n2 * jnp.maximum(rate * eb, acc)),
    )
    lanes = ceil_div(m2, array.cols)
    l1 = jnp.where(op.kind == 2, lanes * jnp.maximum(ea, ec), streams)
    buffers = 2 * (1 + mapping.double_l1) * (array.rows + array.cols) * layout.tiles_used

    sizes = (whole_a, whole_b, jnp.where(layout.C.l3 > op.m * op.n, op.m * op.n * acc, whole_c))
    external = op.batch * (sum(jnp.where(loc < 2, s, 0.0) for loc, s in zip(locations, sizes, strict=True)) + op.n * bias)
    host = op.batch * sum(jnp.where(loc == 0, s, 0.0) for loc, s in zip(locations, sizes, strict=True))

    image, kernel = op.out_h * op.out_w, op.kernel_h * op.kernel_w
    rows_of_image = (mapping.l3_m <= image) & (_rest(mapping.l3_m, op.out_w) == 0)
    whole_images = (_rest(mapping.l3_m, image) == 0) | (mapping.l3_m >= op.m)
    legal = (rows_of_image | whole_images) & ((_rest(mapping.l3_k, kernel) == 0) | (mapping.l3_k >= op.k))
    mismatch = jnp.floor(mapping.pass_order / 2) != flow
    zero = jnp.zeros_like(l3)
    return Needs(
        need=(
            layout.tiles_used, l3, l2, l1, buffers, external, host,
            jnp.where(conv & ~legal, 1.0, zero), jnp.where(mismatch & (op.kind < 2), 1.0, zero),
        ),
        have=(
            zero + cfg.compute.tile_count,
            zero + derived.l3_capacity_bytes(cfg),
            zero + floor_div(derived.l2_capacity_bytes(cfg), layout.tiles_used),
            zero + cfg.on_chip_memory.l1.buffer_capacity_kb * 1024,
            zero + derived.l1_buffer_count(cfg),
            zero + derived.external_capacity_bytes(cfg),
            zero + derived.host_capacity_bytes(cfg),
            zero,
            zero,
        ),
    )  # fmt: skip


def _rest(a: Scalar, b: Scalar) -> Scalar:
    return a - b * floor_div(a, b)


def explain(code: float, overflow: float) -> str:
    """The status in words, with the overflow and the remedy."""
    number = int(code)
    if number == 0:
        return STATUS[0]
    amount = f" by {overflow:,.0f} {UNITS[number]}" if number < 8 else ""
    return f"{STATUS[number]}{amount}: {REMEDIES[number]}"
