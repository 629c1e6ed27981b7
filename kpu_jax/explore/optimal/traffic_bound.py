"""The least traffic and energy, and the needs of memory, of many schedules at once, from counts along each axis.

The formulas of `mapping.visits`, `model.traffic`, `model.costs` and `mapping.legality`. Each is a sum of products of
counts that never falls when one of them grows; what would (parts of K that meet on their way to L3) is left out
unless the counts are exact. The tests compare the result with these modules.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kpu_jax.explore.optimal.axis_counts import AxisCounts
from kpu_jax.explore.optimal.orders import Choices
from kpu_jax.explore.optimal.problem import Problem

Array = np.ndarray
M, N, K = range(3)


class Axes(NamedTuple):
    """Counts along the three axes, and what depends on one L3 tile alone [schedule]."""

    m: AxisCounts
    n: AxisCounts
    k: AxisCounts
    input_rows: Array  # [moved, first, reserved] of a convolution
    padding_n: Array  # [B, C, partial sums]: burst padding of one row of all L3 blocks [byte]
    padding_k: Array  # [A] the same, of a convolution of one pixel

    def along(self, axis: int) -> AxisCounts:
        return (self.m, self.n, self.k)[axis]


class Partition(NamedTuple):
    """Compute tiles over the axes, with what follows for the batch."""

    b: float
    m: float
    n: float
    k: float
    batch_steps: float
    groups: float

    @property
    def tiles(self) -> float:
        return self.b * self.m * self.n * self.k


class Moved(NamedTuple):
    """Bytes of all batch elements."""

    dma: Array
    dma_in: Array  # A and B alone
    dma_b: Array  # B alone
    dma_out: Array
    mover_in: Array  # A and B, L3 to L2
    mover_out: Array  # C, L2 to L3
    mover: Array
    leaving_l2: Array  # elements of C
    loads: Array  # L2 to L1
    loads_a: Array  # of these, A's
    loads_b: Array
    drains: Array  # L1 to L2, of partial sums
    complete: float  # L1 to L2, of complete elements
    stays_once: Array  # bool: surely every block of C comes to L1 once
    leaves_always: Array  # bool: C leaves L1 after every pass
    partial_l3: Array  # bool: C leaves L2 partial
    partial_l2: Array
    stays: tuple[Array, Array, Array]  # blocks of A, B, C, one after the other, in the L1 of the first compute tile


class _Visits(NamedTuple):
    times: Array
    l2_reads: Array
    l2: Array
    l1: Array
    stays: Array  # blocks, one after the other, in the L1 of the first compute tile


def _split(sx: Array, mx: Array, sy: Array, my: Array, x_inside: Array, y_inside: Array) -> tuple[Array, Array]:
    """`mapping.visits._split` of (still, moving) elements along x and y."""
    inner_x, inner_y = x_inside * mx, y_inside * my
    outer_x, outer_y = mx - inner_x, my - inner_y
    return outer_x * (sy + outer_y) + sx * outer_y, inner_x * (sy + my) + (sx + outer_x) * inner_y


def _visits(axes: Axes, sizes: tuple[float, ...], choices: Choices, x: int, y: int, u: int) -> _Visits:
    """`mapping.visits` of the operand of axes x and y. Elements that move more weigh more, so fewer of them weigh less."""
    cx, cy, cu = axes.along(x), axes.along(y), axes.along(u)
    wraps = (choices.inside_l3(x, u) & (cx.l3_trips > 1)) | (choices.inside_l3(y, u) & (cy.l3_trips > 1))
    times, tiles = np.where(wraps, cu.l3_trips, 1.0), np.where(wraps, cu.l3_pairs, cu.tiles)
    inside = choices.inside_l2(x, u), choices.inside_l2(y, u)
    still_x, still_y = sizes[x] - cx.l2_moves, sizes[y] - cy.l2_moves
    outside_l2, inside_l2 = _split(still_x, cx.l2_moves, still_y, cy.l2_moves, *inside)
    one_x, one_y = sizes[x] - cx.many_passes, sizes[y] - cy.many_passes
    whole_x, whole_y = np.minimum(sizes[x] - cx.not_whole, one_x), np.minimum(sizes[y] - cy.not_whole, one_y)
    outside_l1, inside_l1 = _split(whole_x, one_x - whole_x, whole_y, one_y - whole_y, *inside)
    inside_pass = choices.inside_pass(x, u), choices.inside_pass(y, u)
    block, each = _split(one_x, cx.many_passes, one_y, cy.many_passes, *inside_pass)
    still = still_x * still_y
    # The same in blocks of a pass.
    one_x, one_y = cx.passes - cx.in_many, cy.passes - cy.in_many
    alone_x, alone_y = np.minimum(cx.passes - cx.not_alone, one_x), np.minimum(cy.passes - cy.not_alone, one_y)
    outside, within = _split(alone_x, one_x - alone_x, alone_y, one_y - alone_y, *inside)
    for_block, for_pass = _split(one_x, cx.in_many, one_y, cy.in_many, *inside_pass)
    stays = times * alone_x * alone_y + cu.l3_trips * outside + cu.l2_blocks * (within + for_block) + cu.passes * for_pass
    return _Visits(
        times=times,
        l2_reads=times * still + cu.l3_trips * outside_l2 + cu.l2_blocks * inside_l2,
        l2=tiles * still + cu.l3_pairs * outside_l2 + cu.l2_pairs * inside_l2,
        l1=tiles * whole_x * whole_y + cu.l3_pairs * outside_l1 + cu.l2_pairs * (inside_l1 + block) + cu.pass_pairs * each,
        stays=stays,
    )


def bound_traffic(p: Problem, flow: int, parts: Partition, axes: Axes, choices: Choices, exact: bool) -> tuple[Moved, Array]:
    """(bytes moved, energy that does not depend on time [pJ]) of schedules, at least. `exact`: the counts are."""
    m, n, k = axes.m, axes.n, axes.k
    ea, eb, ec, acc = p.widths
    size_m, size_n, size_k = p.sizes
    mn, mk, kn = size_m * size_n, size_m * size_k, size_k * size_n
    a, b, c = (_visits(axes, p.sizes, choices, *xyu) for xyu in ((M, K, N), (K, N, M), (M, N, K)))
    out_a, out_b, out_c = p.outside
    bias = size_n * acc if p.biased else 0.0
    alone = parts.k == 1
    # Parts of K that meet on the way to L3 make C come to L2 oftener than it leaves.
    back = np.maximum(c.l1 - mn - c.l2 + c.l2_reads, 0.0) if alone or exact else np.maximum(c.l2_reads - mn, 0.0)
    summed = c.l2 - c.l2_reads if exact and not alone else 0.0

    rows = axes.input_rows[0] * p.in_w if p.conv else size_m
    dram_a = out_a * (rows * p.channels if p.conv else mk) * ea * a.times
    dram_b = out_b * kn * eb * b.times
    loads_c = out_c * mn * (c.times - 1) * acc
    stores_c = loads_c + out_c * mn * ec
    returns = out_c * (c.times - 1) * size_m * axes.padding_n[2]
    pad_in = out_a * rows * axes.padding_k[0] * a.times + out_b * size_k * axes.padding_n[0] * b.times
    pad_out = returns + out_c * size_m * axes.padding_n[1]

    pe_a = (a.l1 if flow == 2 and p.fabric else mk * n.pass_pairs) * ea
    pe_b = (b.l1 if flow == 1 and p.fabric else kn * m.pass_pairs) * eb
    leaving = mn * k.pass_pairs
    pe_c = (c.l1 if flow == 0 else leaving) * acc
    added = (back if flow == 0 or not (alone or exact) else np.maximum(leaving - mn - summed, 0.0)) * acc
    to_pe = back * acc if flow == 0 else 0.0
    finals = mn * (acc - ec)
    written_back = c.l2 * acc - finals
    r, w = p.read, p.write
    pj = (
        (dram_a + dram_b + loads_c + pad_in + returns + bias * m.l3_trips) * r["dram"]
        + (stores_c + pad_out) * w["dram"]
        + (a.l2_reads * ea + b.l2_reads * eb + (c.l2 - mn) * acc + stores_c + bias * m.l2_blocks) * r["l3"]
        + (dram_a + dram_b + loads_c + written_back + bias * m.l3_trips) * w["l3"]
        + (a.l1 * ea + b.l1 * eb + back * acc + written_back + bias * m.pass_pairs) * r["l2"]
        + (a.l2 * ea + b.l2 * eb + (c.l2_reads - mn + c.l1) * acc - finals + bias * m.l2_pairs) * w["l2"]
        + (pe_a + pe_b + c.l1 * acc + added + bias * m.pass_pairs) * r["l1"]
        + (a.l1 * ea + b.l1 * eb + pe_c + back * acc + bias * m.pass_pairs) * w["l1"]
        + pe_c * r["pe"]
        + (pe_a + pe_b + to_pe) * w["pe"]
        + summed * p.add_cycles * p.vector_pj * p.fabric
    )
    every_pass = mn * k.most_visits
    moved = Moved(
        dma=dram_a + dram_b + loads_c + stores_c + pad_in + returns + pad_out + bias * m.l3_trips,
        dma_in=dram_a + dram_b + pad_in,
        dma_b=dram_b + out_b * size_k * axes.padding_n[0] * b.times,
        dma_out=stores_c + pad_out,
        mover_in=a.l2_reads * ea + b.l2_reads * eb,
        mover_out=written_back,
        mover=a.l2_reads * ea + b.l2_reads * eb + bias * m.l2_blocks + (c.l2 - mn) * acc + written_back,
        leaving_l2=c.l2_reads,
        loads=a.l1 * ea + b.l1 * eb + back * acc + bias * m.pass_pairs,
        loads_a=a.l1 * ea,
        loads_b=b.l1 * eb,
        drains=c.l1 * acc - finals - (mn * ec if alone else 0.0),
        complete=mn * ec if alone else 0.0,
        stays_once=(c.l1 <= mn) & exact,
        leaves_always=c.l1 >= every_pass * (1 - 1e-12),
        partial_l3=c.l2 - mn > 0.5,
        partial_l2=c.l1 - mn > 0.5,
        stays=(parts.batch_steps * a.stays, parts.batch_steps * b.stays, parts.batch_steps * c.stays),
    )
    scaled = {"stays_once", "leaves_always", "partial_l3", "partial_l2", "stays"}
    moved = moved._replace(**{f: v * p.batch for f, v in moved._asdict().items() if f not in scaled})
    return moved, p.batch * (pj + _constant_pj(p))


def _constant_pj(p: Problem) -> float:
    """Energy per batch element that no mapping changes: multiply-adds, the vector engine, and the host's transfers."""
    size_m, size_n, size_k = p.sizes
    a, b, c = (whole if location == 0 else 0.0 for whole, location in zip(p.whole, p.locations, strict=True))
    if p.conv:
        a = 0.0  # the rows that the windows span, at most the whole input
    pj = (a + b) * (p.read["host"] + p.write["dram"]) + c * (p.write["host"] + p.read["dram"])
    if not p.fabric:
        return pj + size_m * p.element * p.vector_pj
    adds = size_m * size_n * (p.add_cycles * p.biased + p.activation) * p.vector_pj
    return pj + size_m * size_n * size_k * p.mac_pj + adds


def may_fit(p: Problem, flow: int, parts: Partition, axes: Axes, choices: Choices, moved: Moved | None = None) -> Array:
    """Whether a schedule fits the memories, bool; without `moved`, as if C never left a level partial."""
    m, n, k = axes.m, axes.n, axes.k
    ea, eb, ec, acc = p.widths
    out_a, out_b, out_c = p.outside
    narrow, bias = min(ec, acc), acc if p.biased else 0.0
    l3_c, l2_c = (narrow, narrow) if moved is None else (np.where(v, acc, narrow) for v in (moved.partial_l3, moved.partial_l2))
    a_block = m.l3_size * k.l3_size
    if p.conv:
        a_block = axes.input_rows[2] * p.in_w * np.ceil(k.l3_size / p.kernel)
    places = n.l3_size * bias + out_a * a_block * ea + out_b * k.l3_size * n.l3_size * eb + out_c * m.l3_size * n.l3_size * l3_c
    resident: Any = sum(whole for whole, outside in zip(p.whole[:2], (out_a, out_b), strict=True) if not outside)
    if not out_c:
        resident = resident + p.sizes[M] * p.sizes[N] * l3_c
    fits = parts.groups * places * choices.places(0) + p.batch * resident + p.reserved_l3 <= p.l3_bytes
    m2, n2, k2 = m.l2_size, n.l2_size, k.l2_size
    places = m2 * k2 * ea + k2 * n2 * eb + m2 * n2 * l2_c + n2 * bias
    fits &= places * choices.places(1) <= np.floor(p.l2_bytes / parts.tiles)
    if not p.fabric:
        streams = np.ceil(m2 / p.cols) * max(ea, ec)
    else:
        streams = (k2 * max(ea, eb), m2 * max(p.rate * ea, acc), n2 * max(p.rate * eb, acc))[flow]
    fits &= streams <= p.l1_bytes
    return fits & (2 * choices.places(2) * (p.rows + p.cols) * parts.tiles <= p.l1_buffers)
