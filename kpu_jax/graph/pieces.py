"""The operations of a workload in their places: what each reads from which other, and what may stay on the chip."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import build
from kpu_jax.workload import LOCATIONS, VECTOR, Op, Origin, Workload
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


@dataclasses.dataclass(frozen=True)
class Single:
    """One operation as it is."""

    op: Op  # count 1

    def held_bytes(self, operand: str) -> float:
        return float(self.op.batch * operand_bytes(self.op)["ABC".index(operand)])

    def steps(self, name: str, places: Places) -> tuple[Step, ...]:
        return (Step(name, placed(self.op, places), 1.0),)

    @property
    def macs(self) -> float:
        return float(self.op.macs)


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
        matched = _by_arrays(op, origin) if origin.reads else _by_size(op, sources[i], pieces)
        outside = {x for x, place in zip("AB", (op.loc_a, op.loc_b), strict=True) if place != EXTERNAL}
        operands = {
            x: made for x, made in matched.items() if x not in outside and all(pieces[p].runs_with(piece) for p in made)
        }
        pieces.append(dataclasses.replace(piece, operands=operands))
    return pieces


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
    made = [t.producers if len(t.producers) == 1 and not (t.host or t.carried or t.name) else () for t in origin.reads]
    if op.kind == VECTOR:
        return {"A": tuple(p for one in made for p in one)} if all(made) else {}
    if len(made) == 1:  # the other one is a constant, or both are one array
        elements = math.prod(origin.reads[0].shape)
        agree = [x for x, size in zip("AB", _elements(op), strict=True) if size == elements]
        return {agree[0]: made[0]} if len(agree) == 1 and made[0] else {}
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
