"""How often each operand's blocks move into each level: the residency rule in closed form.

A block moves in if and only if its coordinates differ from the operand's previous block at that level.
Each operand has two relevant axes x, y and one irrelevant axis u. Walking the loops, a block of (x, y) is
moved in once, or once per L3 block of u, per L2 block of u, or per pass of u, depending on which loops of
x and y that really iterate lie inside u's loop at each level. So the elements of an operand are counted by how
long they stay, and each count weighed by how often u's loop replaces them. Sums over the classes of
`mapping.axes` are exact for every edge.
"""

from __future__ import annotations

import functools
import itertools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div
from kpu_jax.mapping.axes import UNBOUNDED, Axis, count_axis
from kpu_jax.mapping.input_rows import InputRows, count_rows
from kpu_jax.mapping.mapping import ORDERS, PASS_ORDERS
from kpu_jax.workload.footprint import element_bytes

Scalar = jax.Array
OPERAND_AXES = {"A": ("m", "k", "n"), "B": ("k", "n", "m"), "C": ("m", "n", "k")}  # relevant, relevant, irrelevant


class Visits(NamedTuple):
    """Elements of one operand moved in at each level, per batch element."""

    times: Scalar  # how often all of it moves into L3
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
    widths: tuple[Scalar, Scalar, Scalar, Scalar]  # of an element of A, B, C and the accumulator [byte]
    input_rows: InputRows  # of a convolution


class _Inside:
    """Is the loop of one axis inside that of another? By the code of an order in a table of orders, outermost first."""

    def __init__(self, code: Scalar, orders: tuple[str, ...]) -> None:
        self._chosen = [code == i for i in range(len(orders))]
        self._orders = orders

    def __call__(self, x: str, u: str) -> Scalar:
        """Is the loop of x inside u's? An axis without a loop is inside of none."""
        inside = [u in order and x in order[order.index(u) + 1 :] for order in self._orders]
        return functools.reduce(operator.or_, itertools.compress(self._chosen, inside))


class _Rows(NamedTuple):
    """Elements along an axis: those that no loop at a level changes, and those that its loop does."""

    still: Scalar
    moving: Scalar


class _Levels(NamedTuple):
    """The elements along an axis, by the loops that change them."""

    l2_blocks: _Rows  # all elements: alone in their L3 block, or not
    whole_blocks: _Rows  # the same of those whose L2 block is one pass
    passes: _Rows  # all elements: alone in their L2 block, or not


def _levels(axis: Axis, size: Scalar) -> _Levels:
    alone = alone_one_pass = one_pass = jnp.zeros(())
    for c in (axis.body, axis.last):
        single = c.l2_trips <= 1
        short = c.count * (jnp.where(c.body_passes <= 1, c.body_rows, 0.0) + jnp.where(c.last_passes <= 1, c.last_rows, 0.0))
        one_pass += short
        alone_one_pass += jnp.where(single, short, 0.0)
        alone += jnp.where(single, c.count * c.size, 0.0)
    return _Levels(
        _Rows(alone, size - alone), _Rows(alone_one_pass, one_pass - alone_one_pass), _Rows(one_pass, size - one_pass)
    )


def _split(x: _Rows, y: _Rows, x_inside: Scalar, y_inside: Scalar) -> tuple[Scalar, Scalar]:
    """Elements of the blocks that loops change: (only by loops outside u's, also by a loop inside u's).

    The first stay for all turns of u's loop at this level, the second come again in each.
    """
    inner_x, inner_y = jnp.where(x_inside, x.moving, 0.0), jnp.where(y_inside, y.moving, 0.0)
    outer_x, outer_y = x.moving - inner_x, y.moving - inner_y
    outside = outer_x * (y.still + outer_y) + x.still * outer_y
    inside = inner_x * (y.still + y.moving) + (x.still + outer_x) * inner_y
    return outside, inside


class _Stays(NamedTuple):
    """Elements of an operand by how long they stay at a level, or what one move-in counts for."""

    for_ever: Scalar | float  # in all L3 blocks, unless a loop of x or y over L3 blocks is inside u's
    l3_block: Scalar
    l2_block: Scalar


def _total(weights: _Stays, stays: _Stays) -> Scalar:
    """All move-ins, weighed."""
    return weights.for_ever * stays.for_ever + weights.l3_block * stays.l3_block + weights.l2_block * stays.l2_block


def _stays(x: _Levels, y: _Levels, inside_l2: tuple[Scalar, Scalar], inside_pass: tuple[Scalar, Scalar]) -> tuple[_Stays, _Stays, Scalar]:
    """(in L2, in L1, in L1 for one pass only). `inside_*`: are the loops of (x, y) at that level inside u's?"""
    outside, inside = _split(x.l2_blocks, y.l2_blocks, *inside_l2)
    in_l2 = _Stays(x.l2_blocks.still * y.l2_blocks.still, outside, inside)
    outside, inside = _split(x.whole_blocks, y.whole_blocks, *inside_l2)
    for_l2_block, for_pass = _split(x.passes, y.passes, *inside_pass)
    return in_l2, _Stays(x.whole_blocks.still * y.whole_blocks.still, outside, inside + for_l2_block), for_pass


def pass_sizes(op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """Elements along (m, n, k) that one fabric pass covers; `UNBOUNDED` along the axis that streams."""
    flow, fabric = mapping.dataflow, op.kind < 2
    m = jnp.where(fabric & (flow != 1), jnp.where(flow == 0, rows, cols), UNBOUNDED)
    n = jnp.where(fabric & (flow != 2), cols, UNBOUNDED)
    k = jnp.where(fabric & (flow != 0), rows * rate, UNBOUNDED)
    return m, n, k


def lay_out(op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar) -> Layout:
    """Count the schedule of `op` under `mapping` on arrays of rows x cols PEs at `rate` MACs per cycle."""
    image = op.out_h * op.out_w
    units = (jnp.where((op.kind == 1) & (mapping.l3_m < image), image, op.m), op.n, op.k)
    sizes = {a: getattr(op, a) for a in "mnk"}
    tiles = (mapping.l3_tile, mapping.l2_tile, mapping.partition[1:], pass_sizes(op, mapping, rows, cols, rate))
    axes = {a: count_axis(size, *cut) for (a, size), *cut in zip(sizes.items(), units, *tiles, strict=True)}
    levels = {a: _levels(axis, sizes[a]) for a, axis in axes.items()}
    inside_l3, inside_l2 = _Inside(mapping.l3_order, ORDERS), _Inside(mapping.l2_order, ORDERS)
    inside_pass = _Inside(mapping.pass_order, PASS_ORDERS)
    visits: dict[str, Visits] = {}
    for operand, (x, y, u) in OPERAND_AXES.items():
        wraps = (inside_l3(x, u) & (axes[x].l3_trips > 1)) | (inside_l3(y, u) & (axes[y].l3_trips > 1))
        in_l2, in_l1, one_pass = _stays(
            levels[x], levels[y], (inside_l2(x, u), inside_l2(y, u)), (inside_pass(x, u), inside_pass(y, u))
        )
        axis = axes[u]
        times = jnp.where(wraps, axis.l3_trips, 1.0)
        receivers = _Stays(jnp.where(wraps, axis.l3_pairs, axis.tiles), axis.l3_pairs, axis.l2_pairs)
        visits[operand] = Visits(
            times=times,
            l3=sizes[x] * sizes[y] * times,
            l2_reads=_total(_Stays(times, axis.l3_trips, axis.l2_blocks), in_l2),
            l2=_total(receivers, in_l2),
            l1=_total(receivers, in_l1) + axis.pass_pairs * one_pass,
        )
        if operand == "C":
            alone = [jnp.where(t == 1, 1.0, 0.0) for t in (axis.tiles, axis.last.active, axis.last.last_active)]
            c_final = _total(_Stays(jnp.where(wraps, alone[1], alone[0]), alone[1], alone[2]), in_l2)
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
        out_of_place=visits["C"].l2 - op.m * op.n,
        widths=element_bytes(op),
        input_rows=count_rows(op, mapping.l3_m, axes["m"].body.size),
    )
