"""What a machine holds while a program runs, and the instruction as its engines read it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kpu_jax.machine.arithmetic import Arithmetic
from kpu_jax.machine.conversion import Conversion
from kpu_jax.machine.fabric import Fabric, elementwise
from kpu_jax.machine.formats import storage
from kpu_jax.machine.geometry import Geometry, Input
from kpu_jax.machine.places import Counters, MachineError, Places
from kpu_jax.machine.vector_engine import delivered
from kpu_jax.program import Opcode, Operand, Program
from kpu_jax.program.blocks import Blocks
from kpu_jax.workload.dtypes import NumberFormat
from kpu_jax.workload.op import CONV

ON_HOST, ON_DRAM, ON_L3 = range(3)  # codes of where an operand lies
AXES = "mnk"
LEVEL_NAME = {3: "l3", 2: "l2", 1: "l1"}
OUTSIDE = {"dma": ("host", "dram"), "block_mover": ("host", "dram", "l3"), "streamer": ("host", "dram", "l3", "l2")}  # of a mover
Key = tuple[int, ...]  # of a block: batch step, then indices (M, N, K) at L3, L2 and the pass as far as it goes, -1 where it has none
Index = tuple[int, int, int]
Tile = tuple[int, int, int, int]  # batch group, and the compute tile's place along M, N, K


class Instruction(NamedTuple):
    """One row of a program."""

    opcode: Opcode
    operand: str  # A, B, C, bias, or NONE for a pass
    batch: int
    blocks: tuple[Index, Index, Index]  # block indices (M, N, K) at L3, L2 and the pass
    read: float  # bytes at the source; with `written`: how many copies a multicast makes
    written: float
    biased: bool  # the bias is added on the way

    def key(self, level: int, axes: Iterable[str] = AXES) -> Key:
        """Coordinates at a level of the block that it moves, or of another that lies along only some of its axes."""
        return self.batch, *(v if a in axes else -1 for row in self.blocks[: 4 - level] for a, v in zip(AXES, row, strict=True))

    def copies(self, size: float, one: float) -> int:
        """How many receivers `size` bytes are for, of `one` each."""
        if one <= 0 or round(size / one) < 1:
            raise MachineError(f"{self.opcode.name} brings {size:g} bytes of {self.operand}, where a receiver takes {one:g}")
        return round(size / one)

    def along(self, a: str) -> tuple[int, int, int]:
        """Indices along an axis: of the L3 block, the L2 block, the pass."""
        l3, l2, l1 = (row[AXES.index(a)] for row in self.blocks)
        return l3, l2, l1


def instructions(program: Program) -> Iterable[Instruction]:
    """The rows of a program up to its end."""
    columns = ("opcode", "operand", "batch", "tile", "read", "written", "bias_lanes")
    rows = zip(*(np.asarray(getattr(program, name)).tolist() for name in columns), strict=True)
    for code, operand, batch, tile, read, written, bias_lanes in rows:
        if code == Opcode.HALT:
            return
        name = "bias" if operand == Operand.BIAS else Operand(operand).name
        yield Instruction(Opcode(code), name, batch, tuple(map(tuple, tile)), read, written, bias_lanes > 0)  # type: ignore[arg-type]


class Output(NamedTuple):
    """What the vector engine makes of complete sums."""

    fmt: NumberFormat
    activation: str
    scale: Any
    c_scale: Any


@dataclasses.dataclass(frozen=True)
class Sum:
    """A piece of C: partial sums at accumulator width, or the result in C's format."""

    values: np.ndarray  # [m, n]
    k: int  # products in each sum
    complete: bool = False
    converted: bool = False  # by a mover, on its way out


class Fed(NamedTuple):
    """A block of A, B or the bias in a memory, by (group, compute tile along its axes), and who has a copy of each."""

    values: dict[tuple[int, ...], Any]
    receivers: int  # compute tiles along the axis that the operand lacks
    bytes: float


class Bag(dict[Any, Sum]):
    """Pieces of a block of C by where they lie in it."""


class State:
    """The memories of a running machine: which blocks they hold, and what was moved."""

    def __init__(
        self,
        program: Program,
        blocks: Blocks,
        fabric: Fabric,
        output: Output,
        a: np.ndarray,
        b: np.ndarray,
        bias: np.ndarray,
        conversions: dict[str, Conversion],
        relative: Mapping[str, Mapping[str, float]],
    ) -> None:
        """A per batch element (a convolution: its input), B [batch, K, N], bias [batch, N], as the PEs take them.

        An operand with a conversion is as it comes until the mover that converts it. `relative`: how wide its elements are
        in a memory before that (C: after), over the program's width; by operand and memory, 1 where not given.
        """
        op, mapping = program.op, program.mapping
        self.op, self.blocks, self.fabric, self.output = op, blocks, fabric, output
        self.geometry = Geometry(op, blocks)
        self.inputs = [Input(op, blocks, x) for x in a] if int(op.kind) == CONV else []
        self.whole = {"A": a, "B": b}
        self.bias = bias
        self.conversions = conversions
        self._relative = relative
        self.location = {"A": int(op.loc_a), "B": int(op.loc_b), "C": int(op.loc_c)}
        doubles = {3: mapping.double_l3, 2: mapping.double_l2, 1: mapping.double_l1}
        self.at: dict[tuple[int, str], Places[Any]] = {}
        for level, double in doubles.items():
            for x in "ABC":
                resident = level == 3 and self.location[x] == ON_L3
                self.at[level, x] = Places(f"{x} in {LEVEL_NAME[level]}", None if resident else 1 + int(double), precious=x == "C")
            self.at[level, "bias"] = Places(f"the bias in {LEVEL_NAME[level]}", None)
        self.outside: Places[Bag] = Places("C in external memory", None)
        self.arrived: set[tuple] = set()  # blocks, or rows of a convolution's input, that the host has sent
        self.accumulating: tuple[Key, Bag] | None = None  # output-stationary: what stands in the PEs
        self.stationary: Key | None = None  # weight-, input-stationary: the block whose elements stand in the PEs
        self.counters = Counters()
        self.fired = np.zeros((blocks.rows, blocks.cols), np.int64)
        self.switched = np.zeros((blocks.rows, blocks.cols), np.int64)
        self.fabric_cycles = 0

    def element_bytes(self, x: str, level: str) -> float:
        """Bytes of an element of A or B in a memory."""
        return self.blocks.bytes[x] * self._relative.get(x, {}).get(level, 1.0)

    def passing(self, mover: str, x: str, block: np.ndarray) -> np.ndarray:
        """A block of A or B, as the PEs take it, after a mover: converted if that is where it happens.

        A vector operation's A holds a record of all operands for each element.
        """
        if block.dtype.names:
            fields = {name: self.passing(mover, name, block[name]) for name in block.dtype.names}
            records = np.zeros(block.shape, [(name, values.dtype) for name, values in fields.items()])
            for name, values in fields.items():
                records[name] = values
            return records
        if x not in self.conversions or self.conversions[x].on != mover:
            return block
        return self.conversions[x](block).astype(self.fabric.how.dtype)

    def carry(self, x: str, source: str, target: str, elements: float, copies: int = 1) -> float:
        """Count a move of A or B; the bytes that it writes at the target, all copies together."""
        self.counters.move(x, source, "", elements * self.element_bytes(x, source))
        written = elements * self.element_bytes(x, target) * copies
        self.counters.move(x, "", target, written)
        return written

    def leaving(self, mover: str, piece: Sum) -> Sum:
        """A piece of C after a mover: converted if it is complete and that is where it happens."""
        conversion = self.conversions.get("C")
        if conversion is None or conversion.on != mover or not piece.complete or piece.converted:
            return piece
        return dataclasses.replace(piece, values=conversion(piece.values), converted=True)

    def piece_bytes(self, piece: Sum) -> float:
        """Bytes of a piece of C where it lies."""
        complete = self.element_bytes("C", "dram" if piece.converted else "pe")
        return piece.values.size * (complete if piece.complete else self.blocks.acc_bytes)

    def put(self, level: int, x: str, key: Key, block: Fed) -> None:
        """A block of A, B or the bias comes to a memory, in the place of another or its own."""
        gone = self.at[level, x].put(key, block)
        self.counters.hold(LEVEL_NAME[level], block.bytes - (gone.bytes if gone else 0.0))

    def bag(self, level: int, key: Key) -> Bag:
        """The pieces of a block of C in a memory; a place for it, if it has none."""
        places = self.at[level, "C"]
        if key not in places:
            places.put(key, Bag())
        return places.get(key)

    def set_piece(self, level: int, bag: Bag, spot: Any, piece: Sum | None) -> None:
        """A piece of C comes to (or, if None, leaves) its spot in a memory."""
        before = self.piece_bytes(bag[spot]) if spot in bag else 0.0
        self.counters.hold(LEVEL_NAME[level], (self.piece_bytes(piece) if piece else 0.0) - before)
        if piece is None:
            del bag[spot]
        else:
            bag[spot] = piece

    def take_bag(self, level: int, key: Key) -> Bag:
        """A block of C leaves a memory."""
        bag = self.at[level, "C"].take(key)
        self.counters.hold(LEVEL_NAME[level], -sum(map(self.piece_bytes, bag.values())))
        return bag

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The sum of two accumulators each, as the fabric's arithmetic has it."""
        return elementwise(_adder(self.fabric.how), x, np.broadcast_to(y, x.shape))

    def deliver(self, piece: Sum, columns: np.ndarray) -> Sum:
        """A piece of all of K through the vector engine; others as they are. `columns`: which of C's N it covers."""
        if piece.k < self.blocks.size["k"]:
            return piece
        out = self.output
        engine = _vector_engine(out.activation, out.fmt, out.scale is not None, out.c_scale is not None)
        scales = [
            np.broadcast_to(np.asarray(v, np.float32)[..., columns] if np.ndim(v) else np.float32(v), piece.values.shape)
            for v in (out.scale, out.c_scale)
            if v is not None
        ]
        values = elementwise(engine, piece.values, *scales)
        return Sum(values.astype(storage(out.fmt), copy=False), piece.k, complete=True)


@functools.cache
def _adder(how: Arithmetic) -> Any:
    return lambda x, y: how.add(x, y)


@functools.cache
def _vector_engine(activation: str, fmt: NumberFormat, scaled: bool, rescaled: bool) -> Any:
    def engine(acc: Any, *scales: Any) -> Any:
        given = iter(scales)
        scale, c_scale = next(given) if scaled else None, next(given) if rescaled else None
        return delivered(acc, activation, scale, fmt, c_scale)

    return engine
