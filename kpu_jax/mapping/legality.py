"""Does a mapping fit the chip? Overflow per memory in bytes; the reason as a status code."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div, floor_div
from kpu_jax.hardware import derived
from kpu_jax.mapping.rate import rate_of
from kpu_jax.mapping.visits import Layout
from kpu_jax.workload.footprint import operand_bytes

Scalar = jax.Array


class Requirement(NamedTuple):
    """Something that a mapping needs, at most what the chip has."""

    broken: str  # the status where it needs more
    unit: str | None  # of its overflow; None where it is met or not
    remedy: str


REQUIREMENTS = {  # in the order of the status codes, from 1
    "compute_tiles": Requirement(
        "the partition uses more compute tiles than the chip has",
        "compute tiles",
        "lower mapping.partition or raise compute.tile_count",
    ),
    "l3": Requirement(
        "L3 overflows",
        "byte",
        "shrink mapping.l3_tile, buffer L3 singly, or raise on_chip_memory.l3",
    ),
    "l2": Requirement(
        "L2 of a compute tile overflows",
        "byte",
        "shrink mapping.l2_tile, use fewer compute tiles, buffer L2 singly, or raise on_chip_memory.l2",
    ),
    "l1": Requirement(
        "an L1 stream buffer overflows",
        "byte",
        "shrink mapping.l2_tile along the streaming dimension or raise on_chip_memory.l1.buffer_capacity_kb",
    ),
    "l1_buffers": Requirement(
        "the chip has too few L1 stream buffers",
        "buffers",
        "buffer L1 singly, use fewer compute tiles, or raise on_chip_memory.l1.buffer_count",
    ),
    "external": Requirement(
        "external memory overflows",
        "byte",
        "raise external_memory.bank_capacity_mb, or cut the operation",
    ),
    "host": Requirement(
        "host memory overflows",
        "byte",
        "raise host_memory.region_capacity_mb, or cut the operation",
    ),
    "whole_windows": Requirement(
        "a convolution's L3 tile must hold whole output rows of one image or whole images, and whole R S channel slices",
        None,
        "make l3_tile.m a multiple of out_w (up to one image) or of out_h out_w, and l3_tile.k one of kernel_h kernel_w",
    ),
    "pass_order": Requirement(
        "pass_order does not name the two dimensions that this dataflow's array covers",
        None,
        "use 'mn' or 'nm' output-, 'kn' or 'nk' weight-, 'km' or 'mk' input-stationary",
    ),
}
STATUS = ("ok", *(requirement.broken for requirement in REQUIREMENTS.values()))


class Needs(NamedTuple):
    """What a mapping needs and what the chip has, by requirement: [byte], or counts."""

    need: dict[str, Scalar]
    have: dict[str, Scalar]

    @property
    def verdict(self) -> tuple[Scalar, Scalar]:
        """(status, overflow): the code of the first thing that does not fit and by how much, or zeros."""
        status = overflow = jnp.zeros_like(self.need["l3"])
        for code, name in reversed(list(enumerate(REQUIREMENTS, 1))):
            short = self.need[name] - self.have[name]
            status, overflow = jnp.where(short > 0, float(code), status), jnp.where(short > 0, short, overflow)
        return status, overflow

    @property
    def status(self) -> Scalar:
        """0 if all fits, else the code of the first thing that does not."""
        return self.verdict[0]

    @property
    def overflow(self) -> Scalar:
        """By how much the first thing that does not fit overflows (units as in `REQUIREMENTS`), else 0."""
        return self.verdict[1]


def needs(cfg: Any, op: Any, mapping: Any, layout: Layout) -> Needs:
    """What `op` under `mapping` needs of each memory, and what `cfg` has. Exact; traceable."""
    partial_l3 = layout.out_of_place > 0.5
    need = {
        "compute_tiles": layout.tiles_used,
        "l3": _l3_bytes(op, mapping, layout, partial_l3),
        "l2": _l2_bytes(op, mapping, layout),
        "l1": _l1_bytes(cfg, op, mapping, layout),
        "l1_buffers": 2 * (1 + mapping.double_l1) * _ports(cfg) * layout.tiles_used,
        **_outside_bytes(op, layout),
        "whole_windows": jnp.where((op.kind == 1) & ~_whole_windows(op, mapping), 1.0, 0.0),
        "pass_order": jnp.where((jnp.floor(mapping.pass_order / 2) != mapping.dataflow) & (op.kind < 2), 1.0, 0.0),
    }
    have = {
        "compute_tiles": cfg.compute.tile_count,
        "l3": derived.l3_capacity_bytes(cfg),
        "l2": floor_div(derived.l2_capacity_bytes(cfg), layout.tiles_used),
        "l1": cfg.on_chip_memory.l1.buffer_capacity_kb * 1024,
        "l1_buffers": derived.l1_buffer_count(cfg),
        "external": derived.external_capacity_bytes(cfg),
        "host": derived.host_capacity_bytes(cfg),
        "whole_windows": 0.0,
        "pass_order": 0.0,
    }

    return Needs(need, have)


def _ports(cfg: Any) -> Scalar:
    """Stream buffers that one operand's streams into and out of an array take."""
    return cfg.compute.processor_array.rows + cfg.compute.processor_array.cols


def _bias_bytes(op: Any, acc: Scalar) -> Scalar:
    """Bytes of the bias per column of C."""
    return jnp.where(op.has_bias > 0, acc, 0.0)


def _l3_bytes(op: Any, mapping: Any, layout: Layout, partial: Scalar) -> Scalar:
    """Bytes of all of L3: the places of the largest blocks, and the operands that reside there."""
    ea, eb, ec, acc = layout.widths
    m, n, k = (axis.body.size for axis in (layout.m, layout.n, layout.k))
    conv_a = layout.input_rows.reserved * op.in_w * ceil_div(k, op.kernel_h * op.kernel_w)
    blocks = (jnp.where(op.kind == 1, conv_a, m * k) * ea, k * n * eb, m * n * jnp.where(partial, acc, ec))
    whole_a, whole_b, whole_c = operand_bytes(op)
    whole = (whole_a, whole_b, jnp.where(partial, op.m * op.n * acc, whole_c))
    places, resident = n * _bias_bytes(op, acc), jnp.zeros_like(op.m)
    for location, block, size in zip((op.loc_a, op.loc_b, op.loc_c), blocks, whole, strict=True):
        places += jnp.where(location < 2, block, 0.0)
        resident += jnp.where(location == 2, size, 0.0)
    return layout.groups * places * (1 + mapping.double_l3) + op.batch * resident + op.reserved_l3_bytes


def _l2_bytes(op: Any, mapping: Any, layout: Layout) -> Scalar:
    """Bytes of one compute tile's L2: the places of the largest blocks."""
    ea, eb, ec, acc = layout.widths
    m, n, k = (axis.body.body_l2 for axis in (layout.m, layout.n, layout.k))
    partial = layout.C.l1 - layout.c_final > 0.5
    places = m * k * ea + k * n * eb + m * n * jnp.where(partial, acc, ec) + n * _bias_bytes(op, acc)
    return places * (1 + mapping.double_l2)


def _l1_bytes(cfg: Any, op: Any, mapping: Any, layout: Layout) -> Scalar:
    """Bytes of a stream buffer: the T elements of its stream; the stationary block only passes through on its way."""
    ea, eb, ec, acc = layout.widths
    m, n, k = (axis.body.body_l2 for axis in (layout.m, layout.n, layout.k))
    rate, flow = rate_of(cfg, op), mapping.dataflow
    weight, data = m * jnp.maximum(rate * ea, acc), n * jnp.maximum(rate * eb, acc)
    streams = jnp.where(flow == 0, k * jnp.maximum(ea, eb), jnp.where(flow == 1, weight, data))
    lanes = ceil_div(m, cfg.compute.processor_array.cols)
    return jnp.where(op.kind == 2, lanes * jnp.maximum(ea, ec), streams)


def _outside_bytes(op: Any, layout: Layout) -> dict[str, Scalar]:
    """Bytes of external memory, through which the host's data pass, and of host memory."""
    acc = layout.widths[3]
    whole_a, whole_b, whole_c = operand_bytes(op)
    external, host = op.n * _bias_bytes(op, acc), jnp.zeros_like(op.n)
    sizes = (whole_a, whole_b, jnp.where(layout.C.times > 1, op.m * op.n * acc, whole_c))
    for location, size in zip((op.loc_a, op.loc_b, op.loc_c), sizes, strict=True):
        external += jnp.where(location < 2, size, 0.0)
        host += jnp.where(location == 0, size, 0.0)
    return {"external": op.batch * external, "host": op.batch * host}


def _whole_windows(op: Any, mapping: Any) -> Scalar:
    """Does the L3 tile of a convolution hold whole rows of an image or whole images, and whole slices of channels?"""

    def whole(tile: Scalar, unit: Scalar) -> Scalar:
        return tile == unit * floor_div(tile, unit)

    image = op.out_h * op.out_w
    rows_of_image = (mapping.l3_m <= image) & whole(mapping.l3_m, op.out_w)
    images = whole(mapping.l3_m, image) | (mapping.l3_m >= op.m)
    return (rows_of_image | images) & (whole(mapping.l3_k, op.kernel_h * op.kernel_w) | (mapping.l3_k >= op.k))


def explain(code: float, overflow: float) -> str:
    """The status in words, with the overflow and the remedy."""
    number = int(code)
    if number == 0:
        return STATUS[0]
    requirement = list(REQUIREMENTS.values())[number - 1]
    amount = "" if requirement.unit is None else f" by {overflow:,.0f} {requirement.unit}"
    return f"{requirement.broken}{amount}: {requirement.remedy}"
