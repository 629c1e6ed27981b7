"""How often each operand's blocks move into each level: the residency rule in closed form.

A block moves in if and only if its coordinates differ from the operand's previous block at that level.
Each operand has two relevant axes x, y and one irrelevant axis u. Walking the loops, a block of (x, y) is
moved in once, or once per L3 block of u, per L2 block of u, or per pass of u, depending on which loops of
x and y that really iterate lie inside u's loop at each level. Summing elements over the classes of
`mapping.axes` gives exact totals for every edge.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div
from kpu_jax.mapping.axes import UNBOUNDED, Axis, count_axis

Scalar = jax.Array
OPERAND_AXES = {"A": ("m", "k", "n"), "B": ("k", "n", "m"), "C": ("m", "n", "k")}  # relevant, relevant, irrelevant


class Weights(NamedTuple):
    """What one move-in counts for, by how long the block stays: for ever, an L3 block, an L2 block, a pass of u."""

    always: Any
    l3: Any
    l2: Any
    l1: Any


class Visits(NamedTuple):
    """Elements of one operand moved in at each level, per batch element."""

    l3: Scalar  # into L3
    l2_reads: Scalar  # out of L3, a block shared by several compute tiles once (multicast)
    l2: Scalar  # into L2, once per receiving compute tile
    l1: Scalar  # into L1, every compute tile its own


class Layout(NamedTuple):
    """A mapping of one operation, counted. All leaves traceable."""

    m: Axis
    n: Axis
    k: Axis
    A: Visits
    B: Visits
    C: Visits
    c_final: Scalar  # elements of C whose last stay in L2 involves one compute tile along K only
    batch_steps: Scalar
    groups: Scalar  # compute-tile groups that work on different batch elements at once
    tiles_used: Scalar
    out_of_place: Scalar  # elements of C that leave L2 partial, over all visits (0: C leaves L2 complete)


def _inside(code: Scalar) -> dict[tuple[str, str], Scalar]:
    """inside[x, u]: the loop of x is inside that of u, for a code of `ORDERS`."""
    m_first, mk, nk = (code == 0) | (code == 1) | (code == 4), code <= 2, (code == 0) | (code == 2) | (code == 3)
    pairs = {("n", "m"): m_first, ("k", "m"): mk, ("k", "n"): nk}
    return {**pairs, **{(u, x): ~flag for (x, u), flag in pairs.items()}}


def _inside_pass(code: Scalar) -> dict[tuple[str, str], Scalar]:
    """The same for a code of `PASS_ORDERS`; an axis without a pass loop never counts."""
    pairs = {("n", "m"): code == 0, ("n", "k"): code == 2, ("m", "k"): code == 4}
    return {**pairs, **{(u, x): ~flag for (x, u), flag in pairs.items()}}


class _Rows(NamedTuple):
    """Elements along an axis by whether their L2 block is alone in its L3 block, and their pass in its L2 block."""

    alone: Scalar  # one L2 block, one pass
    blocks: Scalar  # several L2 blocks, one pass each
    passes: Scalar  # several passes
    l2_alone: Scalar  # one L2 block per L3 block
    l2_blocks: Scalar


def _rows(axis: Axis) -> _Rows:
    alone = blocks = passes = l2_alone = l2_blocks = jnp.zeros(())
    for c in (axis.body, axis.last):
        single = c.l2_trips <= 1
        for rows, trips in ((c.body_rows, c.body_passes), (c.last_rows, c.last_passes)):
            elements = c.count * rows
            one = trips <= 1
            alone += jnp.where(one & single, elements, 0.0)
            blocks += jnp.where(one & ~single, elements, 0.0)
            passes += jnp.where(one, 0.0, elements)
        l2_alone += jnp.where(single, c.count * c.size, 0.0)
        l2_blocks += jnp.where(single, 0.0, c.count * c.size)
    return _Rows(alone, blocks, passes, l2_alone, l2_blocks)


def _pairs(xs: tuple[Scalar, Scalar], ys: tuple[Scalar, Scalar], single: Any, x_in: Scalar, y_in: Scalar, inner: Any, outer: Any):
    """Sum over (single, multiple) x (single, multiple): `inner` where a multiple axis lies inside u, else `outer`."""
    fx, fy = jnp.where(x_in, inner, outer), jnp.where(y_in, inner, outer)
    both = jnp.where(x_in | y_in, inner, outer)
    return xs[0] * ys[0] * single + xs[1] * ys[0] * fx + xs[0] * ys[1] * fy + xs[1] * ys[1] * both


def _visits(x: str, y: str, u: str, axes: dict[str, Axis], rows: dict[str, _Rows], orders: Any) -> Any:
    """Function (Weights) -> (elements into L2, elements into L1) for the operand with these axes."""
    in3, in2, in1 = orders
    wraps = (in3[x, u] & (axes[x].l3_trips > 1)) | (in3[y, u] & (axes[y].l3_trips > 1))
    none = jnp.zeros((), bool)
    in1_x, in1_y = in1.get((x, u), none), in1.get((y, u), none)

    def totals(w: Weights) -> tuple[Scalar, Scalar]:
        stays = jnp.where(wraps, w.l3, w.always)
        rx, ry = rows[x], rows[y]
        to_l2 = _pairs((rx.l2_alone, rx.l2_blocks), (ry.l2_alone, ry.l2_blocks), stays, in2[x, u], in2[y, u], w.l2, w.l3)
        unbroken = _pairs((rx.alone, rx.blocks), (ry.alone, ry.blocks), stays, in2[x, u], in2[y, u], w.l2, w.l3)
        singles = (rx.alone + rx.blocks, ry.alone + ry.blocks)
        to_l1 = unbroken + _pairs((singles[0], rx.passes), (singles[1], ry.passes), 0.0, in1_x, in1_y, w.l1, w.l2)
        return to_l2, to_l1

    return wraps, totals


def pass_sizes(op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """Elements along (m, n, k) that one fabric pass covers; `UNBOUNDED` along the axis that streams."""
    flow, fabric = mapping.dataflow, op.kind < 2
    m = jnp.where(fabric & (flow != 1), jnp.where(flow == 0, rows, cols), UNBOUNDED)
    n = jnp.where(fabric & (flow != 2), cols, UNBOUNDED)
    k = jnp.where(fabric & (flow != 0), rows * rate, UNBOUNDED)
    return m, n, k


def lay_out(op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar) -> Layout:
    """Count the schedule of `op` under `mapping` on arrays of rows x cols PEs at `rate` MACs per cycle."""
    pm, pn, pk = pass_sizes(op, mapping, rows, cols, rate)
    image = op.out_h * op.out_w
    unit_m = jnp.where((op.kind == 1) & (mapping.l3_m < image), image, op.m)
    axes = {
        "m": count_axis(op.m, unit_m, mapping.l3_m, mapping.l2_m, mapping.partition_m, pm),
        "n": count_axis(op.n, op.n, mapping.l3_n, mapping.l2_n, mapping.partition_n, pn),
        "k": count_axis(op.k, op.k, mapping.l3_k, mapping.l2_k, mapping.partition_k, pk),
    }
    sums = {a: _rows(axis) for a, axis in axes.items()}
    orders = (_inside(mapping.l3_order), _inside(mapping.l2_order), _inside_pass(mapping.pass_order))
    visits: dict[str, Visits] = {}
    c_final = out_of_place = jnp.zeros(())
    for operand, (x, y, u) in OPERAND_AXES.items():
        wraps, totals = _visits(x, y, u, axes, sums, orders)
        axis = axes[u]
        once, _ = totals(Weights(1.0, axis.l3_trips, axis.l2_blocks, axis.passes))
        receivers = totals(Weights(axis.tiles, axis.l3_pairs, axis.l2_pairs, axis.pass_pairs))
        elements = axes_elements(op, operand)
        l3 = elements * jnp.where(wraps, axis.l3_trips, 1.0)
        visits[operand] = Visits(l3, once, *receivers)
        if operand == "C":
            alone = [jnp.where(t == 1, 1.0, 0.0) for t in (axis.tiles, axis.last.active, axis.last.last_active)]
            c_final, _ = totals(Weights(alone[0], alone[1], alone[2], 0.0))
            out_of_place = receivers[0] - elements
    batch_steps = ceil_div(op.batch, mapping.partition_b)
    return Layout(
        m=axes["m"],
        n=axes["n"],
        k=axes["k"],
        A=visits["A"],
        B=visits["B"],
        C=visits["C"],
        c_final=c_final,
        batch_steps=batch_steps,
        groups=ceil_div(op.batch, batch_steps),
        tiles_used=mapping.partition_b * mapping.partition_m * mapping.partition_n * mapping.partition_k,
        out_of_place=out_of_place,
    )


def axes_elements(op: Any, operand: str) -> Scalar:
    """Elements of an operand, per batch element."""
    x, y, _ = OPERAND_AXES[operand]
    return getattr(op, x) * getattr(op, y)
