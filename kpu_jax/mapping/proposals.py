"""The stated set of mappings: one per strategy, shaped to the chip and the operation. Traceable.

A strategy names a dataflow, what shares the compute tiles, what stays in L3, and how L2 is filled. The
tile sizes follow from the capacities in closed form, rounded to whole array passes and balanced over the
blocks; the loop orders are those that move the fewest bytes. A strategy may yield a mapping that does not
fit or coincides with another's: legality decides.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.numerics import ceil_div, floor_div
from kpu_jax.base.pytree import build
from kpu_jax.hardware import derived
from kpu_jax.mapping.mapping import Mapping
from kpu_jax.mapping.rate import rate_of
from kpu_jax.workload.footprint import element_bytes, operand_bytes

Scalar = jax.Array

SPREADS = ("rows_first", "cols_first", "balanced", "sum_over_k")  # which axis takes the compute tiles first
KEEPS = ("a_stays", "b_stays", "c_stays")  # which operand L3 keeps while the others stream past it
CUTS = (1.0, 4.0, 12.0)  # into how many L3 blocks at least, so that loading, computing and storing overlap
FILLS = ("square", "one_pass", "tall", "wide")  # the shape of the L2 block


class Strategy(NamedTuple):
    """One row of the stated set: codes into the tuples above, and whether L3 is double-buffered."""

    dataflow: Any
    spread: Any
    keep: Any
    cut: Any
    double_l3: Any
    fill: Any


def _table() -> np.ndarray:
    kinds = (range(3), range(len(SPREADS)), range(len(KEEPS)), CUTS, (1, 0), range(len(FILLS)))
    return np.array(list(itertools.product(*kinds)), np.float64)


STRATEGIES = _table()  # [strategy, field of Strategy]
# Those that a sweep tries: chosen greedily by exact time, by `python -m experiments.mapping_set --choose 72
# --finalists 64 --chips 30 --seed 1` (seven presets and 23 chips drawn from a space).
# fmt: off
SWEEP_STRATEGIES = STRATEGIES[[
    6, 8, 9, 16, 32, 36, 48, 52, 56, 64, 73, 77, 83, 98, 103, 105, 107, 113, 114, 128, 135, 136, 140, 154,
    162, 177, 178, 186, 223, 274, 298, 320, 328, 348, 349, 361, 364, 369, 370, 376, 386, 388, 394, 400, 405,
    408, 409, 414, 416, 424, 428, 441, 509, 577, 580, 584, 600, 607, 609, 611, 619, 630, 632, 640, 641, 644,
    677, 680, 699, 716, 746, 753,
]]
# fmt: on


class _Room(NamedTuple):
    """What the chip offers one mapping."""

    l3: Scalar  # bytes of one place in L3, for one batch group
    l2: Scalar  # bytes of one place in a compute tile's L2
    l1: Scalar  # bytes of a stream buffer


def propose(cfg: Any, op: Any, strategy: Scalar) -> Mapping:
    """The mapping of `op` on `cfg` that a row of `STRATEGIES` stands for; all leaves traceable."""
    flow, spread, keep, cut, double_l3, fill = Strategy(*(strategy[..., i] for i in range(len(Strategy._fields))))
    ea, eb, ec, acc = element_bytes(op)
    array = cfg.compute.processor_array
    rate = rate_of(cfg, op)
    vector = op.kind == 2
    os, ws = flow == 0, flow == 1
    depth = array.rows * rate
    pass_m = jnp.where(vector, 1.0, jnp.where(os, array.rows, jnp.where(ws, 1.0, array.cols)))
    pass_n = jnp.where(vector, 1.0, jnp.where(os | ws, array.cols, 1.0))
    pass_k = jnp.where(vector | os, 1.0, depth)

    parts = _spread(op, cfg.compute.tile_count, spread, pass_m, pass_n, depth)
    pb, pm, pn, pk = parts
    groups = ceil_div(op.batch, ceil_div(op.batch, pb))
    locations = (op.loc_a, op.loc_b, op.loc_c)
    resident = op.batch * sum(jnp.where(loc == 2, s, 0.0) for loc, s in zip(locations, operand_bytes(op), strict=True))
    room = _Room(
        l3=(derived.l3_capacity_bytes(cfg) - op.reserved_l3_bytes - resident) / groups / (1 + double_l3),
        l2=jnp.floor(derived.l2_capacity_bytes(cfg) / (pb * pm * pn * pk)) / 2,
        l1=cfg.on_chip_memory.l1.buffer_capacity_kb * 1024,
    )
    bias = jnp.where(op.has_bias > 0, acc, 0.0)
    m3, n3, k3 = _l3_tile(op, keep, cut, room.l3, (ea, eb, ec, acc, bias), (pm * pass_m, pn * pass_n, pk * pass_k))
    shares = ceil_div(m3, pm), ceil_div(n3, pn), ceil_div(k3, pk)
    m2, n2, k2 = _l2_tile(flow, fill, room, shares, (ea, eb, acc, bias), (pass_m, pass_n, pass_k), array.rows, rate)
    m2 = jnp.where(vector, jnp.clip(jnp.floor(room.l1 / jnp.maximum(ea, ec)) * array.cols, 1, shares[0]), m2)
    m2 = jnp.where(vector, jnp.clip(jnp.floor(room.l2 / (ea + ec)), 1, m2), m2)

    trips_m, trips_n, trips_k = (ceil_div(s, t) for s, t in zip(shares, (m2, n2, k2), strict=True))
    size_a, size_b, size_c = shares[0] * shares[2] * ea, shares[2] * shares[1] * eb, shares[0] * shares[1]
    # k innermost keeps C; of the two outer loops, the outer one keeps its operand when k is not cut.
    whole_k = trips_k <= 1
    m_outer = jnp.where(whole_k, size_a + size_b * trips_m <= size_b + size_a * trips_n, True)
    l2_order = jnp.where(m_outer, 0.0, 2.0)
    l3_order = jnp.where(keep == 1, 2.0, 0.0)  # c_stays: k innermost in either
    passes_m, passes_n = ceil_div(m2, pass_m), ceil_div(n2, pass_n)
    passes_k = ceil_div(k2, pass_k)
    spill = size_c * acc * (2 * passes_k - 2)
    inner = jnp.where(
        os,
        size_a * passes_n + size_b < size_a + size_b * passes_m,
        jnp.where(ws, size_a * (passes_n - 1) < spill, size_b * (passes_m - 1) < spill),
    )
    one = jnp.ones_like(m3)
    return build(
        Mapping,
        dataflow=flow * one,
        l3_m=m3, l3_n=n3, l3_k=k3, l2_m=m2, l2_n=n2, l2_k=k2,
        l3_order=l3_order * one,
        l2_order=l2_order * one,
        pass_order=2 * flow + jnp.where(inner, 1.0, 0.0),
        double_l3=double_l3 * one,
        double_l2=one,
        double_l1=one,
        partition_b=pb * one, partition_m=pm * one, partition_n=pn * one, partition_k=pk * one,
    )  # fmt: skip


def _spread(op: Any, tiles: Scalar, spread: Scalar, pass_m: Scalar, pass_n: Scalar, depth: Scalar) -> tuple[Scalar, ...]:
    """Compute tiles over (batch, m, n, k): the batch first, then what the strategy prefers."""
    pb = jnp.minimum(op.batch, tiles)
    pb = ceil_div(op.batch, ceil_div(op.batch, pb))  # no idle groups
    left = floor_div(tiles, pb)
    most_m, most_n = ceil_div(op.m, pass_m), ceil_div(op.n, pass_n)
    square = jnp.round(jnp.sqrt(left * most_m / most_n))
    first_m = jnp.minimum(left, most_m)
    after_n = floor_div(left, jnp.minimum(left, most_n))
    pm = jnp.where(spread == 0, first_m, jnp.where(spread == 1, jnp.minimum(after_n, most_m), jnp.clip(square, 1, first_m)))
    pm = _even(most_m, jnp.maximum(pm, 1.0))
    pn = _even(most_n, jnp.maximum(jnp.minimum(floor_div(left, pm), most_n), 1.0))
    spare = jnp.minimum(floor_div(left, pm * pn), ceil_div(op.k, depth))
    pk = jnp.where(spread == 3, jnp.maximum(spare, 1.0), 1.0)
    return pb, pm, pn, pk


def _even(work: Scalar, parts: Scalar) -> Scalar:
    """As many parts as the work really needs when each takes an equal share."""
    return ceil_div(work, ceil_div(work, parts))


def _fit(size: Scalar, limit: Scalar, step: Scalar) -> Scalar:
    """The largest size up to `limit` in whole steps (or just `limit` below one step), even over the blocks."""
    limit = jnp.clip(jnp.floor(limit), 1, size)
    whole = jnp.where(limit >= size, size, jnp.where(limit >= step, floor_div(limit, step) * step, limit))
    even = ceil_div(size, ceil_div(size, whole))
    return jnp.where(whole >= step, jnp.minimum(ceil_div(even, step) * step, whole), even)


def _square(room: Scalar, per_m: Scalar, per_n: Scalar, per_mn: Scalar) -> Scalar:
    """Side s of the square with s (per_m + per_n) + s^2 per_mn = room."""
    b = per_m + per_n
    return (-b + jnp.sqrt(b * b + 4 * per_mn * jnp.maximum(room, 0.0))) / (2 * per_mn)


def _rectangle(m: Scalar, n: Scalar, room: Scalar, per_m: Scalar, per_n: Scalar, per_mn: Scalar) -> tuple[Scalar, Scalar]:
    """The most nearly square (m', n') within (m, n) that fills the room."""
    side = _square(room, per_m, per_n, per_mn)
    wide_n = (room - m * per_m) / (per_n + m * per_mn)
    wide_m = (room - n * per_n) / (per_m + n * per_mn)
    return jnp.where(side > n, wide_m, jnp.minimum(side, m)), jnp.where(side > m, wide_n, jnp.minimum(side, n))


SHALLOW = 64.0  # least depth along K [elements] for which C gets the rest of L3


def _l3_tile(op: Any, keep: Scalar, cut: Scalar, room: Scalar, widths: Any, steps: Any) -> tuple[Scalar, Scalar, Scalar]:
    """The L3 block: what stays takes all the room it can use, the other side gets what is left, in `cut` blocks."""
    ea, eb, ec, acc, bias = widths
    step_m, step_n, step_k = steps
    conv, c_stays = op.kind == 1, keep == 2
    window = (op.kernel_h - 1) * op.dilation_h + 1
    added = jnp.minimum(op.stride_h, window)
    kernel = op.kernel_h * op.kernel_w
    # Bytes of A per element of m, and once per block (the halo of a convolution), for a unit of k.
    dense = jnp.where(op.loc_a < 2, ea, 0.0)
    per_k = jnp.where(conv, added * op.in_w / (kernel * op.out_w), 1.0) * dense
    halo_k = jnp.where(conv, (window - added) * op.in_w / kernel, 0.0) * dense
    wide_b = jnp.where(op.loc_b < 2, eb, 0.0)

    def k_slice(k: Scalar) -> Scalar:
        slices = jnp.clip(floor_div(k, kernel), 1, op.channels)
        whole = ceil_div(op.channels, ceil_div(op.channels, slices)) * kernel
        k = jnp.clip(jnp.floor(k), 1, op.k)
        return jnp.where(conv, whole, ceil_div(op.k, ceil_div(op.k, k)))

    k3 = jnp.where(c_stays, k_slice(jnp.minimum(op.k, jnp.maximum(SHALLOW, step_k))), op.k)
    fixed = room - halo_k * k3
    wide_c = jnp.where(op.loc_c < 2, jnp.where(k3 < op.k, acc, ec), 0.0)
    per_m, per_n, per_mn = k3 * per_k, k3 * wide_b + bias, jnp.maximum(wide_c, 1e-6)
    side_m, side_n = _rectangle(op.m, op.n, fixed, per_m, per_n, per_mn)
    n_thin, m_thin = jnp.minimum(step_n, op.n), jnp.minimum(step_m, op.m)
    m_a = jnp.minimum((fixed - n_thin * per_n) / (per_m + n_thin * per_mn), op.m)
    n_a = jnp.minimum((fixed - m_a * per_m) / (per_n + m_a * per_mn), ceil_div(op.n, cut))
    n_b = jnp.minimum((fixed - m_thin * per_m) / (per_n + m_thin * per_mn), op.n)
    m_b = jnp.minimum((fixed - n_b * per_n) / (per_m + n_b * per_mn), ceil_div(op.m, cut))
    m3 = jnp.where(c_stays, side_m, jnp.where(keep == 0, m_a, m_b))
    n3 = jnp.where(c_stays, side_n, jnp.where(keep == 0, n_a, n_b))
    m3, n3 = _fit(op.m, m3, step_m), _fit(op.n, n3, step_n)
    image = op.out_h * op.out_w
    rows = ceil_div(op.out_h, ceil_div(op.out_h, jnp.clip(floor_div(m3, op.out_w), 1, op.out_h))) * op.out_w
    in_image = jnp.where(m3 >= image, jnp.maximum(floor_div(m3, image), 1) * image, rows)
    m3 = jnp.where(conv, jnp.where(m3 >= op.m, op.m, in_image), m3)
    deep = (room - m3 * n3 * wide_c - n3 * bias) / (m3 * per_k + halo_k + n3 * wide_b)
    return m3, n3, jnp.where(c_stays, k_slice(jnp.clip(deep, 1, ceil_div(op.k, cut))), op.k)


def _l2_tile(
    flow: Scalar, fill: Scalar, room: _Room, shares: Any, widths: Any, passes: Any, rows: Scalar, rate: Any
) -> tuple[Scalar, Scalar, Scalar]:
    """The L2 block: k as deep as possible, then m and n in the shape that `fill` names."""
    ea, eb, acc, bias = widths
    share_m, share_n, share_k = shares
    pass_m, pass_n, pass_k = passes
    os, ws, is_ = flow == 0, flow == 1, flow == 2
    # What streams must fit an L1 buffer.
    k_most = jnp.where(os, jnp.floor(room.l1 / jnp.maximum(ea, eb)), share_k)
    m_most = jnp.where(ws, jnp.floor(room.l1 / jnp.maximum(acc, rate * ea)), share_m)
    n_most = jnp.where(is_, jnp.floor(room.l1 / jnp.maximum(acc, rate * eb)), share_n)
    m_most, n_most = jnp.clip(m_most, 1, share_m), jnp.clip(n_most, 1, share_n)
    thin_m, thin_n = jnp.minimum(pass_m, m_most), jnp.minimum(pass_n, n_most)
    base_m = jnp.where(ws, jnp.minimum(m_most, 4 * rows), thin_m)
    base_n = jnp.where(is_, jnp.minimum(n_most, 4 * rows), thin_n)
    # k as deep as possible with the least m and n beside it; even over its blocks.
    k_room = (room.l2 - base_m * base_n * acc - base_n * bias) / (base_m * ea + base_n * eb)
    k2 = _fit(share_k, jnp.minimum(k_most, k_room), jnp.minimum(pass_k, share_k))
    per_m, per_n = k2 * ea, k2 * eb + bias
    side_m, side_n = _rectangle(m_most, n_most, room.l2, per_m, per_n, acc)
    tall = jnp.minimum((room.l2 - base_n * per_n) / (per_m + base_n * acc), m_most)
    tall_n = (room.l2 - tall * per_m) / (per_n + tall * acc)
    wide = jnp.minimum((room.l2 - base_m * per_m) / (per_n + base_m * acc), n_most)
    wide_m = (room.l2 - wide * per_n) / (per_m + wide * acc)
    m2 = jnp.where(fill == 0, side_m, jnp.where(fill == 1, base_m, jnp.where(fill == 2, tall, wide_m)))
    n2 = jnp.where(fill == 0, side_n, jnp.where(fill == 1, base_n, jnp.where(fill == 2, tall_n, wide)))
    m2 = _fit(share_m, jnp.minimum(m2, m_most), pass_m)
    n2 = _fit(share_n, jnp.minimum(n2, n_most), pass_n)
    return m2, n2, k2
