"""Bytes that the moves of one step carry into and out of each level."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div, floor_div, nearest_whole
from kpu_jax.mapping.input_rows import block_rows
from kpu_jax.model.traffic import conv_padding, run_padding
from kpu_jax.model.walk import Plan, Span, stacked
from kpu_jax.workload.footprint import element_bytes

Scalar = jax.Array


class Widths(NamedTuple):
    """What transfers of an operation need to know on every step."""

    operands: Scalar  # [2] of A and B [byte per element]
    final: Scalar  # of C in its own dtype [byte per element]
    partial: Scalar  # of partial sums and bias [byte per element]
    burst: Scalar  # [byte]
    whole: Scalar  # [transfer]: elements in a whole row of A, B, C, C in external memory
    lasts: Scalar  # [A, B] bool: no L3 loop inside that of the axis that it lacks ends a block's stay
    most: Scalar  # [A, B]: compute tiles that ever need a block
    conv_units: Scalar  # [M, K] of a convolution: elements per output row and per channel
    first_k: Scalar  # compute tiles along K that have a share of the first L3 block


def widths(op: Any, mapping: Any, p: Plan, burst: Scalar) -> Widths:
    """Prepare to size the transfers of `op` under `mapping`."""
    ea, eb, ec, acc = element_bytes(op)
    order = mapping.l3_order
    m_in_n, k_in_n = (order == 2) | (order == 3) | (order == 5), (order == 0) | (order == 2) | (order == 3)
    m_loops, n_loops, k_loops = p.trips3 > 1
    return Widths(
        operands=stacked([ea, eb]),
        final=ec,
        partial=acc,
        burst=burst,
        whole=stacked([op.k, op.n, op.n, op.n]),
        lasts=~jnp.stack([(m_in_n & m_loops) | (k_in_n & k_loops), ((order <= 2) & k_loops) | (~m_in_n & n_loops)]),
        most=_most_tiles(p)[1::-1],
        conv_units=stacked([jnp.maximum(op.out_w, 1), op.kernel_h * op.kernel_w]),
        first_k=_active(p.tile3, p)[2],
    )


def _active(size: Scalar, p: Plan) -> Scalar:
    """[axis] compute tiles that have a share of an L3 block of this size."""
    return ceil_div(size, ceil_div(size, p.parts))


def _most_tiles(p: Plan) -> Scalar:
    """[axis] compute tiles that ever have a share of an L3 block."""
    last = _active(p.unit - (p.per_unit - 1) * p.tile3, p)
    return jnp.where(p.per_unit > 1, jnp.maximum(_active(p.tile3, p), last), last)


class Blocks(NamedTuple):
    """The blocks of one step."""

    span: Span
    groups: Scalar  # compute-tile groups that work on a batch element each
    along_k: Scalar  # [level] index
    visited: Scalar  # [level] bool: C's block was here before, partial
    complete: Scalar  # [level] bool: C leaves in its own dtype
    advanced: Scalar  # [2] bool: since C's stay in L2 began, K went on to another L3 block, to another L3 or L2 block
    parts_l1: Scalar  # compute tiles along K that have a part of C's stay in L1


class Sizes(NamedTuple):
    """Bytes of all groups."""

    moves: Scalar  # [level, A, B and C in, C out], into and out of L3 in whole bursts
    sums: Scalar  # [3] where parts of K meet: C as partial sums, twice that, partial sums and C out
    fresh: Scalar  # [A, B, C in, C out] into and out of L3 without padding and without input rows that came before


def transfers(op: Any, p: Plan, w: Widths, b: Blocks) -> Sizes:
    """Bytes of every possible move of a step."""
    m, n, k = (b.span.total[:, a] for a in range(3))  # [level]
    copies, back, bias_rows = _l1_shares(w, b)
    partial = jnp.broadcast_to(w.partial, m.shape)
    out = jnp.where(b.complete, w.final, w.partial)
    # [level, transfer]: rows, elements per row and bytes per element of A, B, C in and C out. Every compute tile has its
    # own copy in L1; the bias is one row for each of them.
    one = jnp.ones_like(back)
    c_rows = jnp.where(b.visited, m * jnp.stack([one, one, back]), jnp.stack([one, one, bias_rows]))
    rows = jnp.stack([m, k, c_rows, m], axis=1)
    columns = jnp.stack([k, n, n, n], axis=1)
    bytes_a, bytes_b = (jnp.stack([e * one, e * one, e * copy]) for e, copy in zip(w.operands, copies, strict=True))
    bytes_out = jnp.stack([out[0], out[1], out[2] * b.parts_l1])
    row_bytes = columns * jnp.stack([bytes_a, bytes_b, partial, bytes_out], axis=1)
    size = rows * row_bytes

    fresh = size[0]
    bursts = fresh + run_padding(rows[0], row_bytes[0], columns[0] >= w.whole, w.burst)
    conv_bursts, conv_fresh = _conv_input(op, p, w, b)
    conv = op.kind == 1
    bursts = jnp.concatenate([jnp.where(conv, conv_bursts, bursts[0])[None], bursts[1:]])
    fresh = jnp.concatenate([jnp.where(conv, conv_fresh, fresh[0])[None], fresh[1:]])
    full = m[1] * n[1] * w.partial
    return Sizes(
        moves=b.groups * jnp.concatenate([bursts[None], size[1:]]),
        sums=b.groups * jnp.stack([full, 2 * full, full + size[1, 3]]),
        fresh=b.groups * fresh,
    )


def _l1_shares(w: Widths, b: Blocks) -> tuple[Scalar, Scalar, Scalar]:
    """([A and B] copies of a block in L1, parts of C that come back there, rows of bias there)."""
    lone = jnp.all(b.span.trips[1:] <= 1, axis=0)  # [axis]: one pass in one L2 block in its L3 block
    active_m, active_n, active_k = b.span.active[1]
    # A block that outlasts every L3 block of the third axis serves all compute tiles that ever need it.
    copies = jnp.where(lone[:2] & lone[2] & w.lasts, w.most, jnp.stack([active_n, active_m]))
    _, k2, k1 = b.along_k
    other_l3, other_l2 = b.advanced
    in_pass = k1 > 0
    visited_here = other_l2 | in_pass
    # The last L3 block may give a share of K to compute tiles that had none before: nothing of theirs comes back.
    fresh_l3 = other_l3 & (k2 == 0) & ~in_pass
    begun = jnp.where(fresh_l3, jnp.minimum(active_k, w.first_k), active_k)
    return copies, jnp.where(visited_here, begun, 1.0), active_m


def _conv_input(op: Any, p: Plan, w: Widths, b: Blocks) -> tuple[Scalar, Scalar]:
    """(bytes of bursts, bytes of input rows that were not in an earlier block) of a convolution's L3 block of A."""
    width = jnp.maximum(op.out_w, 1)
    first = nearest_whole(b.span.within * p.tile3[0] / width)
    first -= op.out_h * floor_div(first, op.out_h)
    count, channels = ceil_div(b.span.size[0, ::2], w.conv_units)
    start = jnp.stack([first, 0 * first, 0 * first])
    rows, seen, together = block_rows(op, start, jnp.stack([count, jnp.maximum(first, 1), first + count]))
    new_rows = jnp.where(first > 0, together - seen, rows)
    width_a = w.operands[0]
    line = op.in_w * channels * width_a
    return rows * line + conv_padding(op, rows, channels, width_a, w.burst), new_rows * line
