"""In which order a schedule adds the K products of one element of C.

Every element is a list of chains. A chain takes k after k in ascending order, one multiply-add each. Output-
stationary, it starts from what the compute tile has summed so far, for accumulators stay in the PE or come back to
it. Weight- and input-stationary, it is one pass: it starts from zero at the top of a column, and what leaves at the
bottom is added to what L1 holds. Parts of K on several compute tiles are summed apart, and added in ascending order
whenever C leaves L2: then the first of them carries on from the sum, the others start afresh.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kpu_jax.program.blocks import Blocks


class Order(NamedTuple):
    """The chains of an element of C, in order; arrays with one entry per chain."""

    k: Any  # [chain, longest] int32: which k's, the first `length` of each
    length: Any  # [chain] int32
    in_place: Any  # [] bool: a chain starts from its part's sum (output-stationary), not from zero
    opens: Any  # [chain] bool: the first of a part
    carries_on: Any  # [chain] bool: ... which starts from the sum of all parts so far, not from nothing
    closes: Any  # [chain] bool: the last of a part, which then
    adds: Any  # [chain] bool: ... is added to the sum of all parts so far, or replaces it
    biased: Any  # [chain] bool: the bias is added to the part first


Bounds = tuple[tuple[int, int], tuple[int, int]]  # of a rectangle of C: (first, end) of its rows, and of its columns


def k_indices(op: Any, blocks: Blocks, i: int) -> np.ndarray:
    """The k's of L3 block i along K, in its own order: for a convolution (r, s, channel of the slice)."""
    first, size = i * blocks.tile3["k"], blocks.l3_size("k", i)
    if blocks.kind != 1:
        return np.arange(first, first + size)
    window = int(op.kernel_h) * int(op.kernel_w)
    channels = first // window + np.arange(size // window)
    return (np.arange(window)[:, None] * int(op.channels) + channels).ravel()


def regions_of(op: Any, blocks: Blocks) -> tuple[tuple[Bounds, ...], tuple[Order, ...]]:
    """The rectangles of C whose elements share an order, row by row, and the order of each."""
    if blocks.parts["k"] == 1:  # where C is meanwhile makes no difference
        return (((0, blocks.size["m"]), (0, blocks.size["n"])),), (_order(op, blocks, ""),)
    pairs = list(itertools.product(_runs(blocks, "m"), _runs(blocks, "n")))
    bounds = tuple((rows, cols) for (rows, _), (cols, _) in pairs)
    return bounds, tuple(_order(op, blocks, several_m + several_n) for (_, several_m), (_, several_n) in pairs)


def one_chain(m: int, n: int, k: int) -> tuple[tuple[Bounds, ...], tuple[Order, ...]]:
    """The order of a schedule without parts of K, output-stationary: every k in one chain."""
    yes, no = np.ones(1, bool), np.zeros(1, bool)
    ks, length = np.arange(k, dtype=np.int32)[None], np.array([k], np.int32)
    return (((0, m), (0, n)),), (Order(ks, length, np.array(True), opens=yes, carries_on=no, closes=yes, adds=no, biased=yes),)


def _runs(blocks: Blocks, a: str) -> list[tuple[tuple[int, int], str]]:
    """Elements along an axis in runs of L3 blocks that are one L2 block each ("") or several (the axis' name)."""
    starts = np.cumsum([0] + [blocks.l3_size(a, i) for i in range(blocks.l3_trips(a))])
    several = [a if blocks.l2_trips(a, i) > 1 else "" for i in range(blocks.l3_trips(a))]
    runs = [list(run) for _, run in itertools.groupby(range(len(several)), lambda i: several[i])]
    return [((int(starts[run[0]]), int(starts[run[-1] + 1])), several[run[0]]) for run in runs]


def _order(op: Any, blocks: Blocks, several: str) -> Order:
    """The order where the L3 block's share of C is several L2 blocks along the axes `several`."""
    stays = list(_stays(blocks, several))
    rows = []
    for s, stay in enumerate(stays):
        for tile in range(blocks.parts["k"]):
            passes = list(_passes(op, blocks, stay, tile))
            for p, ks in enumerate(passes):
                first, last, own = p == 0, p == len(passes) - 1, tile == 0
                rows.append((ks, first, first and own and s > 0, last, last and not own, last and own and s == len(stays) - 1))
    chains, *flags = zip(*rows, strict=True)
    k = np.zeros((len(chains), max(len(ks) for ks in chains)), np.int32)
    for row, ks in zip(k, chains, strict=True):
        row[: len(ks)] = ks
    length = np.array([len(ks) for ks in chains], np.int32)
    return Order(k, length, np.array(blocks.dataflow == 0), *(np.array(flag) for flag in flags))


def _stays(blocks: Blocks, several: str) -> Iterator[list[tuple[int, int]]]:
    """C's stays in L2: the (L3, L2) blocks along K of each."""
    order3, order2, _ = blocks.orders
    per_l3 = [[(i, j) for j in range(blocks.l2_trips("k", i))] for i in range(blocks.l3_trips("k"))]
    another_l3 = any(blocks.l3_trips(a) > 1 for a in order3[order3.index("k") + 1 :])
    another_l2 = any(a in several for a in order2[order2.index("k") + 1 :])
    if another_l2:  # between two blocks of K comes another block of C
        yield from ([block] for block in itertools.chain.from_iterable(per_l3))
    elif several or another_l3:
        yield from per_l3
    else:
        yield list(itertools.chain.from_iterable(per_l3))


def _passes(op: Any, blocks: Blocks, stay: list[tuple[int, int]], tile: int) -> Iterator[np.ndarray]:
    """The k's of each chain of compute tile `tile` along K in one stay of C in L2."""
    pieces = []
    for i, j in stay:
        part = -(-blocks.l3_size("k", i) // blocks.parts["k"])
        first = tile * part + j * blocks.tile2["k"]
        pieces.append(k_indices(op, blocks, i)[first : first + blocks.l2_size("k", i, j, tile)])
    if blocks.dataflow == 0:
        pieces = [np.concatenate(pieces)]
    for piece in pieces:
        depth = blocks.pass_size["k"] if blocks.dataflow else len(piece)
        for first in range(0, len(piece), max(depth, 1)):
            yield piece[first : first + depth]
