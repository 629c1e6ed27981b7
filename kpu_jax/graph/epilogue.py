"""Bias and activation in the producing product: element-wise work that the vector engine does while C drains.

A vector operation joins the matrix product or convolution before it if it alone reads that result, gives as many
elements, reads besides only vectors of one element per column (or scalars), and is at most a scale and shift per
column, one of the `ACTIVATIONS` (a clip is a ReLU that saturates), and a change of number format. Then the result goes
to memory once, activated. A shift is the operation's bias; a scale costs nothing of its own: it is part of the drain's
(de)quantisation, or of the weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kpu_jax.graph.pieces import Piece, Single, changed, readers_of
from kpu_jax.workload import ACTIVATIONS, VECTOR, Op, Origin

_AFFINE = frozenset("add add_any sub mul neg convert_element_type copy".split())
_ON_COLUMNS = frozenset("rsqrt sqrt div integer_pow square".split())  # of normalisations, allowed on vectors only
_SHIFTS = frozenset("add add_any sub max min".split())  # by a vector; max(x, b) is max(x - b, 0) + b
_LINEAR = frozenset("add add_any sub".split())  # also of an array and itself
# The primitives that tell an activation apart, and those of them where the array meets itself -> its name.
_SIGNS: dict[tuple[frozenset[str], tuple[str, ...]], str] = {
    (frozenset(signs.split()), tuple(sorted(meetings.split()))): name
    for name, written in {
        "none": [("", "")],
        # The bound above of a clip is where the change of number format saturates.
        "relu": [("max", ""), ("max min", ""), ("clamp", ""), ("clamp max", "")],
        "leaky_relu": [("ge select_n", "select_n"), ("gt select_n", "select_n"), ("max", "max")],
        "tanh": [("tanh", "")],
        "sigmoid": [("logistic", "")],
        "silu": [("logistic", "mul")],
        "gelu": [
            ("tanh integer_pow", "integer_pow mul"), ("tanh", "mul mul mul"), ("tanh square", "square mul mul"),
            *((erf, "mul") for erf in ("erf", "erfc", "erf div", "erfc div")),
        ],
    }.items()
    for signs, meetings in written
}  # fmt: skip


class Fused(NamedTuple):
    """A vector operation that a product's drain does."""

    vector: str  # its name
    into: str  # the product's
    activation: str
    bias: bool


class _Epilogue(NamedTuple):
    activation: str
    bias: bool
    bits: float  # of the result


def fuse_epilogues(pieces: Sequence[Piece], pays: Callable[[Piece, Piece, Piece], bool]) -> tuple[list[Piece], list[Fused]]:
    """The graph with every epilogue joined to its product where `pays(product, vector, joined)`, and the list of them."""
    readers = readers_of(pieces)
    joined: dict[int, Piece] = {}  # position of a vector operation -> what stands there now
    gone: set[int] = set()
    fused: list[Fused] = []
    for i, vector in enumerate(pieces):
        if vector.op is None or vector.op.kind != VECTOR:
            continue
        for p in vector.reads:
            product = joined.get(p, pieces[p])
            if product.op is None or product.op.kind == VECTOR or product.leaves or readers[p] != [i] or not product.runs_with(vector):
                continue
            found = _epilogue(product, p, vector)
            if found is None:
                continue
            together = _join(product, p, vector, found)
            if pays(product, vector, together):
                joined[i] = together
                gone.add(p)
                fused.append(Fused(vector.name, product.name, found.activation, found.bias))
                break
    return without(pieces, joined, gone), fused


def without(pieces: Sequence[Piece], replaced: dict[int, Piece], gone: set[int]) -> list[Piece]:
    """The pieces with some `replaced` and others `gone`, positions renumbered."""
    number = {old: new for new, old in enumerate(i for i in range(len(pieces)) if i not in gone)}
    kept = []
    for old in number:
        piece = replaced.get(old, pieces[old])
        operands = {x: tuple(number[p] for p in made) for x, made in piece.operands.items()}
        kept.append(dataclasses.replace(piece, reads=tuple(number[p] for p in piece.reads), operands=operands))
    return kept


def _join(product: Piece, position: int, vector: Piece, found: _Epilogue) -> Piece:
    assert product.op is not None and vector.op is not None
    op = changed(
        product.op,
        has_bias=max(float(product.op.has_bias), float(found.bias)),
        activation=ACTIVATIONS.index(found.activation) or product.op.activation,
        c_bits=found.bits,
        loc_c=vector.op.loc_c,
    )
    others = tuple(p for p in vector.reads if p != position)
    return dataclasses.replace(
        product, work=Single(op), reads=tuple(dict.fromkeys((*product.reads, *others))), leaves=vector.leaves,
        parts=(*product.parts, *vector.parts),
    )  # fmt: skip


def _epilogue(product: Piece, position: int, vector: Piece) -> _Epilogue | None:
    """What of `vector` the drain of `product` does; None if that is not all of it."""
    assert product.op is not None and vector.op is not None
    found = _traced(product, vector) if vector.origin.reads else _by_hand(product, position, vector)
    has_activation = product.op.activation > 0
    if found is None or (has_activation and (found.bias or found.activation != "none")) or (product.op.has_bias and found.bias):
        return None
    return found


def _size(op: Op) -> float:
    """Elements of C."""
    return float(op.batch * op.m * op.n)


def _traced(product: Piece, vector: Piece) -> _Epilogue | None:
    """What a group of primitives is, by the arrays that it reads and writes."""
    op, origin = product.op, vector.origin
    assert op is not None and vector.op is not None
    elements, columns = _size(op), {float(op.n), float(op.batch * op.n)}
    own = [t for t in origin.reads if t.producers == (product.parts[-1],) and not t.carried and not t.host and not t.name]
    others = [t for t in origin.reads if t not in own]
    if len(own) != 1 or len(origin.writes) != 1:
        return None
    sizes = [float(math.prod(t.shape)) for t in others]
    made_here = any(t.producers or t.host for t in others)
    if any(size not in columns | {1.0} for size in sizes) or (elements in columns and made_here):
        return None
    whole = (float(math.prod(own[0].shape)), float(math.prod(origin.writes[0].shape)), float(vector.op.m))
    if whole != (elements,) * 3:
        return None
    per_column = bool(columns & set(sizes))
    activation = _activation(origin, per_column, vector.op)
    if activation is None:
        return None
    shifts = bool(others) and not _SHIFTS.isdisjoint(origin.primitives)
    return _Epilogue(activation, shifts, 8 * origin.writes[0].bytes / elements)


def _activation(origin: Origin, per_column: bool, op: Op) -> str | None:
    """The activation that a group of primitives is, besides scales and shifts."""
    special = frozenset(origin.primitives) - _AFFINE
    meetings = tuple(sorted(p for p in origin.meets_itself if p not in _LINEAR))
    name = _SIGNS.get((special, meetings))
    if name is None and per_column and op.vector_sqrt + op.vector_div < 1:  # fewer than one per element
        name = _SIGNS.get((special - _ON_COLUMNS, meetings))
    return None if name == "relu" and origin.primitives.count("max") > 1 else name


def _by_hand(product: Piece, position: int, vector: Piece) -> _Epilogue | None:
    """A `VectorOp` of one input, or of one and a vector as wide as C, that is an activation, a scale or a shift."""
    op, work = product.op, vector.op
    assert op is not None and work is not None
    if work.m != _size(op) or work.vector_exp or work.vector_div or work.vector_sqrt or work.c_bits % 1:
        return None
    extra = Single(work).held_bytes("A") - product.result_bytes
    width = product.result_bytes / _size(op)
    bias = math.isclose(extra, float(op.n) * width, rel_tol=1e-6)
    if not bias and abs(extra) > 1e-6 * product.result_bytes:
        return None
    if work.vector_simple > 1 or vector.reads != (position,):
        return None
    return _Epilogue(ACTIVATIONS[int(work.activation)], bias, float(work.c_bits))
