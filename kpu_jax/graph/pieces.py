"""The operations of a workload in their places: what each reads from which other, and what may stay on the chip."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import build
from kpu_jax.workload import LOCATIONS, VECTOR, Op, Origin, Tensor, Workload
from kpu_jax.workload.footprint import operand_bytes
from kpu_jax.workload.op import leaves

EXTERNAL, L3 = (float(LOCATIONS.index(name)) for name in ("external", "l3"))


class Places(NamedTuple):
    """Which operands of a piece live in L3 meanwhile, and what else occupies it."""

    a: bool = False
    b: bool = False
    c: bool = False  # the result stays there and is not written to external memory
    reserved: float = 0.0  # by results that this piece does not read from there [byte]


class Step(NamedTuple):
    """An operation that the chip runs, `times` one after the other."""

    name: str
    op: Op
    times: float


class Work(Protocol):
    """What a piece does, and what the exact model counts of its operands when they are in L3."""

    def held_bytes(self, operand: str) -> float:
        """Bytes of the whole operand A, B or C."""
        ...

    def steps(self, name: str, places: Places) -> tuple[Step, ...]:
        """The operations it comes to, with their operands in those places."""
        ...

    @property
    def macs(self) -> float:
        """Multiply-accumulates, all steps."""
        ...


class Beside(NamedTuple):
    """An array that a vector operation reads besides the results of others: a gain, a mask, a residual stream."""

    elements: float
    bytes: float


@dataclasses.dataclass(frozen=True)
class Single:
    """One operation. Of a vector operation A is what it reads of others' results; what is `beside` these comes from external
    memory: with them, or, when they are in L3, as a step before, which copies it there."""

    op: Op  # count 1
    beside: tuple[Beside, ...] = ()

    def held_bytes(self, operand: str) -> float:
        whole = float(self.op.batch * operand_bytes(self.op)["ABC".index(operand)])
        return whole - sum(b.bytes for b in self.beside) if operand == "A" else whole

    def steps(self, name: str, places: Places) -> tuple[Step, ...]:
        own = Step(name, placed(self.op, places), 1.0)
        if not (places.a and self.beside):
            return (own,)
        return fetch(f"{name}/besides", self.op, self.beside, places.reserved + self.held_bytes("A")), own

    @property
    def macs(self) -> float:
        return float(self.op.macs)


def fetch(name: str, reader: Op, arrays: Sequence[Beside], reserved: float) -> Step:
    """The copy of `arrays` from external memory to L3, through the vector engine: an upper bound on bringing them there."""
    elements = max(1.0, math.ceil(sum(a.elements for a in arrays)))
    bits = 8 * sum(a.bytes for a in arrays) / elements
    nothing = {f"vector_{kind}": 0.0 for kind in ("exp", "div", "sqrt")}
    op = changed(reader, m=elements, a_bits=bits, c_bits=bits, acc_bits=bits, activation=0.0, vector_simple=1.0, **nothing)
    return Step(name, placed(op, Places(c=True, reserved=reserved)), 1.0)


def placed(op: Op, places: Places) -> Op:
    """`op` with those operands in L3; others stay where they were."""
    moved = {f"loc_{x}": np.float64(L3) for x, there in zip("abc", places[:3], strict=True) if there}
    return changed(op, **moved, reserved_l3_bytes=op.reserved_l3_bytes + places.reserved)


def changed(op: Op, **fields: float) -> Op:
    """`op` with other leaves."""
    return build(Op, **{**leaves(op), **{name: np.float64(value) for name, value in fields.items()}})


@dataclasses.dataclass(frozen=True)
class Piece:
    """A node of the graph. Positions are those of the list of pieces, which is in execution order."""

    name: str
    work: Work
    reads: tuple[int, ...]  # pieces whose results it needs
    operands: Mapping[str, tuple[int, ...]]  # "A", "B": pieces whose results are all of the operand
    leaves: bool  # the caller, the host or a later iteration reads the result
    repeats: float = 1.0
    loops: tuple[str, ...] = ()
    origin: Origin = Origin()
    parts: tuple[int, ...] = ()  # the workload's operations that it does

    @property
    def op(self) -> Op | None:
        """The operation of a piece that is a single one."""
        return self.work.op if isinstance(self.work, Single) else None

    @property
    def result_bytes(self) -> float:
        """Bytes of its result."""
        return self.work.held_bytes("C")

    def runs_with(self, other: Piece) -> bool:
        """Whether both run in the same iterations, so that what one leaves in L3 the other finds."""
        return self.loops == other.loops and self.repeats == other.repeats


def readers_of(pieces: Sequence[Piece]) -> list[list[int]]:
    """Piece -> the pieces that read its result, in order."""
    readers: list[list[int]] = [[] for _ in pieces]
    for i, piece in enumerate(pieces):
        for source in dict.fromkeys(piece.reads):
            readers[source].append(i)
    return readers


def pieces_of(workload: Workload) -> list[Piece]:
    """One piece per operation of `workload`.

    Where a front end recorded the arrays (`origins`), operands are matched with them; else by size: a fabric
    operation's first predecessor is A and its second B if their bytes agree, or all of them together are A. What is
    not matched is read from external memory. Raises `KPUError` if an operation reads a later one, or itself.
    """
    sources = [tuple(int(p) for p in row if p >= 0) for row in np.asarray(workload.predecessors)]
    for i, before in enumerate(sources):
        for p in before:
            if p >= i:
                late = workload.names[p] if p < len(sources) else f"operation {p}, which does not exist"
                raise KPUError(
                    f"workload.predecessors: {workload.names[i]!r} (operation {i}) reads {late!r}, which does not come before "
                    "it: the graph is cyclic or out of order; list every operation after those that it reads"
                )
    outward = _outward(workload, sources)
    singles = [workload.row(row) for row in range(workload.rows)]
    pieces: list[Piece] = []
    for i, row in enumerate(workload.row_of):
        op = changed(singles[row], count=1.0)
        origin = workload.origins[i] if workload.origins else Origin()
        piece = Piece(
            workload.names[i], Single(op), sources[i], {}, outward[i] or op.loc_c != EXTERNAL,
            float(workload.repeats[i]) if workload.repeats else 1.0, origin.loops, origin, (i,),
        )  # fmt: skip
        if origin.reads and op.kind == VECTOR:
            piece = _with_results(piece, op, pieces)
        else:
            matched = _by_arrays(op, origin) if origin.reads else _by_size(op, sources[i], pieces)
            outside = {x for x, place in zip("AB", (op.loc_a, op.loc_b), strict=True) if place != EXTERNAL}
            operands = {
                x: made for x, made in matched.items() if x not in outside and all(pieces[p].runs_with(piece) for p in made)
            }
            piece = dataclasses.replace(piece, operands=operands)
        pieces.append(piece)
    return pieces


def _with_results(piece: Piece, op: Op, pieces: Sequence[Piece]) -> Piece:
    """A vector operation whose A is the results that it reads in the same iteration; all else is beside them."""
    made, beside = [], []
    for t in piece.origin.reads:
        if op.loc_a == EXTERNAL and _is_result(t) and pieces[t.producers[0]].runs_with(piece):
            made.append(t.producers[0])
        else:
            beside.append(Beside(float(math.prod(t.shape)), t.bytes))
    return dataclasses.replace(piece, work=Single(op, tuple(beside)), operands={"A": tuple(made)}) if made else piece


def _is_result(t: Tensor) -> bool:
    """Whether an array is the whole work of one operation of the same iteration."""
    return len(t.producers) == 1 and not (t.host or t.carried or t.name)


def _outward(workload: Workload, sources: Iterable[tuple[int, ...]]) -> list[bool]:
    """Operation -> whether someone beside the operations behind it reads its result."""
    read = {p for before in sources for p in before}
    outward = [i not in read for i in range(len(workload))]
    for origin in workload.origins:
        for tensor in origin.reads:
            for p in tensor.producers if tensor.carried else ():
                outward[p] = True
    for work in workload.host_work:
        for tensor in work.origin.reads:
            for p in tensor.producers:
                outward[p] = True
    for i, origin in enumerate(workload.origins):
        outward[i] |= any(t.result for t in origin.writes)
    return outward


def _by_arrays(op: Op, origin: Origin) -> dict[str, tuple[int, ...]]:
    """Operand -> the operations that make all of it, from the arrays of a front end, which are A's, then B's."""
    made = [t.producers if _is_result(t) else () for t in origin.reads]
    if len(made) == 1:  # the other one is a constant, or both are (parts of) one array
        elements, sizes = math.prod(origin.reads[0].shape), _elements(op)
        agree = "AB" if elements >= sum(sizes) else [x for x, size in zip("AB", sizes, strict=True) if size == elements]
        return dict.fromkeys(agree, made[0]) if made[0] else {}
    return {x: one for x, one in zip("AB", made, strict=False) if one}


def _elements(op: Op) -> tuple[float, float]:
    """Elements of the whole A (of a convolution its input) and B."""
    size_a, size_b, _ = operand_bytes(changed(op, a_bits=8.0, b_bits=8.0, density_a=1.0, density_b=1.0))
    return float(op.batch * size_a), float(op.batch * size_b)


def _by_size(op: Op, before: tuple[int, ...], pieces: Sequence[Piece]) -> dict[str, tuple[int, ...]]:
    """Operand -> the operations that make all of it, of a workload made by hand."""
    sizes = [pieces[p].result_bytes for p in before]
    a, b = (Single(op).held_bytes(x) for x in "AB")
    if before and math.isclose(sum(sizes), a, rel_tol=1e-9):
        return {"A": before}
    if op.kind == VECTOR:
        return {}
    operands = {"A": before[:1]} if before and math.isclose(sizes[0], a, rel_tol=1e-9) else {}
    if len(before) > 1 and math.isclose(sizes[1], b, rel_tol=1e-9):
        operands["B"] = before[1:2]
    return operands
