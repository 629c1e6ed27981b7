"""`run`: carry out a program, instruction by instruction, on the numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kpu_jax.base.errors import DtypeError, KPUError, ShapeError, check_choice, shown
from kpu_jax.base.pytree import is_traced
from kpu_jax.base.validation import check_type
from kpu_jax.machine.arithmetic import Arithmetic, arithmetic
from kpu_jax.machine.block_mover import move
from kpu_jax.machine.compute import compute
from kpu_jax.machine.conversion import Conversion
from kpu_jax.machine.dma import results, transfer
from kpu_jax.machine.fabric import FABRICS, Fabric
from kpu_jax.machine.formats import as_array, format_of, format_with_bits, number_format
from kpu_jax.machine.geometry import matrices, result_shape
from kpu_jax.machine.state import ON_L3, OUTSIDE, Instruction, Output, State, instructions
from kpu_jax.machine.streamer import stream
from kpu_jax.machine.vector_engine import check_scale
from kpu_jax.machine.vector_work import INTEGER, OF_TWO, VectorWork, chain_of, positions_of, records_of
from kpu_jax.program import Opcode, Program
from kpu_jax.program.blocks import Blocks
from kpu_jax.program.structure import check_structure
from kpu_jax.workload.dtypes import FORMATS, NumberFormat, default_accumulator
from kpu_jax.workload.op import ACTIVATIONS, CONV, VECTOR


@dataclasses.dataclass(frozen=True)
class Run:
    """What a program did. Bytes by memory level and operand, as in a `Report`."""

    arrays: dict[str, np.ndarray]  # {"C": ...}
    reads: dict[str, dict[str, float]]  # [byte]
    writes: dict[str, dict[str, float]]  # [byte]
    high_water: dict[str, float]  # most bytes that blocks took at once, by memory level, all compute tiles together
    fired: np.ndarray  # [rows, cols] multiply-adds of each PE, summed over compute tiles
    switched: np.ndarray  # [rows, cols] those whose operands were both other than zero; the others were gated
    fabric_cycles: int  # that the passes took, each with its fill and drain: as the stepped grid counts them

    @property
    def macs(self) -> int:
        """Multiply-adds that the PEs did."""
        return int(self.fired.sum(dtype=np.int64))


def run(
    program: Program,
    arrays: Mapping[str, Any],
    *,
    c_dtype: Any = None,
    acc_dtype: Any = None,
    scale: Any = None,
    c_scale: Any = None,
    fabric: str = "stepped",
    conversions: Mapping[str, Conversion] | None = None,
    function: str | Sequence[str] | None = None,
    positions: Any = None,
) -> Run:
    """Execute `program` on `arrays` {"A", "B", and "bias" if it has one}; C, byte counts and activity come back.

    A and B are [M, K] and [K, N], or [batch, ...] (a convolution: NHWC and HWIO), in number formats of the program's
    widths; the bias [N] is one number per column (a grouped convolution: per output channel), taken at accumulator
    width. The program knows widths, not formats: C and its accumulators take A's family unless `c_dtype`, `acc_dtype`
    say otherwise. `scale` multiplies the accumulators ahead of the activation, `c_scale` divides the result before it is
    rounded to C. `fabric`: "stepped" steps every PE every cycle, "tiles" gives the same numbers without activity.
    `conversions`: a mover quantises or dequantises "A" or "B" from the array's format to `dtype`, the program's, or "C"
    from the program's to `dtype`; bytes are those of the format that each memory holds (the program counts its own, and
    legality knows only those: `program.converted` counts, times and fits it at these widths).

    A vector operation's program takes "A" of as many elements, its last axis a row, and "B" for functions of two, which
    broadcasts. `function` is one of `vector_work.FUNCTIONS` or several in order, None the operation's activation; `scale`
    the factor of "scale"; `positions` are those of A's rows for "rotary", which broadcast to A's leading axes (None: 0, 1,
    2, ... along the last of these). A reduction is along A's last axis, and C lacks that.

    Exact: the numbers are those of the accumulation order of the schedule (`order`). For small programs: the
    interpreter takes about a millisecond per pass. Raises `ShapeError`, `DtypeError`, `QuantisationError`, `KPUError` for
    instructions that no machine could serve, and `places.MachineError` for a program that reads what is not there.
    """
    check_type("program", program, Program, "build one with kpu_jax.program.build")
    check_choice("fabric", fabric, FABRICS)
    for field, value in (("arrays", arrays), ("conversions", conversions)):
        if value is not None or field == "arrays":
            check_type(field, value, Mapping, "give a dict by operand")
    if is_traced(program, dict(arrays)):
        raise KPUError("machine.run works on concrete arrays; under jit, vmap and grad use machine.matmul")
    check_structure(program)
    op = program.op
    for name, value in (("scale", scale), ("c_scale", c_scale)):
        if value is not None:
            check_scale(name, value)
            if np.shape(value) not in ((), (int(op.n),)):
                raise ShapeError(f"{name} must be one number, or {int(op.n)}, one per column of C, got shape {np.shape(value)}")
    given = {name: np.asarray(as_array(name, value)) for name, value in arrays.items()}
    converted = _checked_conversions(program, given, conversions or {})
    blocks = Blocks(op, program.mapping, rows=int(program.rows), cols=int(program.cols), macs_per_pe=int(program.macs_per_pe))
    engines = _ENGINES
    if int(op.kind) == VECTOR:
        work, records, how, fc = _vector(op, given, converted, function, scale, positions, c_dtype)
        a, b, bias = records[None], np.zeros((1, 0, 0)), np.zeros((1, 1), how.dtype)
        output = Output(fc, "none", None, c_scale)
        engines = {**_ENGINES, Opcode.FABRIC_PASS: work.compute}
    else:
        for name, given_for in (("function", function), ("positions", positions)):
            if given_for is not None:
                raise KPUError(f"{name} = {shown(given_for)} belongs to a vector operation; this program is of a matrix product")
        a, b, bias, how, fc = _matrices(op, given, converted, c_dtype, acc_dtype)
        output = Output(fc, ACTIVATIONS[int(op.activation)], scale, c_scale)
    array = Fabric(how, blocks.dataflow, blocks.rows, blocks.cols, blocks.rate, fabric == "stepped")
    if "C" in converted:
        converted["C"].check("C", fc)
    state = State(program, blocks, array, output, a, b, bias, converted, _relative_widths(op, given, converted, fc))
    for instruction in instructions(program):
        if (act := engines.get(instruction.opcode)) is not None:
            act(state, instruction)
    counted, c = state.counters, results(state)
    return Run(
        arrays={"C": work.shaped(c, given["A"].shape) if int(op.kind) == VECTOR else result_shape(op, c, given["A"].ndim)},
        reads=counted.reads,
        writes=counted.writes,
        high_water=counted.high_water,
        fired=state.fired,
        switched=state.switched,
        fabric_cycles=state.fabric_cycles,
    )


_ENGINES: dict[Opcode, Callable[[State, Instruction], None]] = {
    **{opcode: transfer for opcode in Opcode if opcode.name.startswith(("HOST_", "DMA_"))},
    **{opcode: move for opcode in Opcode if opcode.name.startswith("BM_")},
    **{opcode: stream for opcode in Opcode if opcode.name.startswith("STR_")},
    Opcode.FABRIC_PASS: compute,
}  # the others take time, and change nothing


def _checked_conversions(
    program: Program, arrays: dict[str, np.ndarray], conversions: Mapping[str, Conversion]
) -> dict[str, Conversion]:
    """The conversions, each of an operand that passes its mover."""
    op = program.op
    for x, conversion in conversions.items():
        check_choice("a key of conversions", x, [*(x for x in "AB" if x in arrays), "C"])
        check_type(f"conversions[{x!r}]", conversion, Conversion, "make one with machine.Conversion(on, dtype, scale)")
        location = op.loc_a if int(op.kind) == VECTOR and x == "B" else getattr(op, f"loc_{x.lower()}")
        if conversion.on == "dma" and int(location) == ON_L3:
            raise KPUError(f"conversions[{x!r}]: the operand stays in L3, where no DMA engine moves it; convert it on the block_mover")
        if x == "C" and conversion.on == "streamer" and int(program.mapping.partition_k) > 1:
            raise KPUError("conversions['C']: K is cut over compute tiles: sums are complete only in L3; use block_mover or dma")
        if x != "C" and x in arrays:
            conversion.check(f"conversions[{x!r}]", format_of(x, arrays[x]))
    return dict(conversions)


def _relative_widths(
    op: Any, arrays: dict[str, np.ndarray], conversions: dict[str, Conversion], fc: NumberFormat
) -> dict[str, dict[str, float]]:
    """How wide converted operands are in the memories outside their mover, over the program's width (`State`)."""
    found: dict[str, dict[str, float]] = {}
    for x, conversion in conversions.items():
        inside, outside = (fc, conversion.format) if x == "C" else (conversion.format, format_of(x, arrays[x]))
        of, share = x, 1.0
        if int(op.kind) == VECTOR and x != "C":  # its A holds both operands
            of, share = "A", arrays[x].size * inside.bits / float(op.m * op.a_bits)
        widths = found.setdefault(of, {})
        for level in OUTSIDE[conversion.on]:
            widths[level] = widths.get(level, 1.0) + share * (outside.bits / inside.bits - 1)
    return found


def _expect(arrays: dict[str, np.ndarray], wanted: set[str]) -> None:
    if set(arrays) != wanted:
        raise ShapeError(f"arrays must hold {', '.join(sorted(wanted))} for this program, got {', '.join(map(str, arrays)) or 'none'}")


def _matrices(
    op: Any, arrays: dict[str, np.ndarray], conversions: dict[str, Conversion], c_dtype: Any, acc_dtype: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Arithmetic, NumberFormat]:
    """A, B and bias of a matrix product as the PEs take them (an operand to be converted as it comes), how they compute, C's format."""
    _expect(arrays, {"A", "B"} | ({"bias"} if op.has_bias else set()))
    own = {x: conversions[x].format if x in conversions else format_of(x, arrays[x]) for x in "AB"}
    fc, acc = _formats(op, own["A"], own["B"], c_dtype, acc_dtype)
    how = arithmetic(own["A"], own["B"], acc)
    a, b = matrices(op, arrays["A"], arrays["B"])
    bias = np.zeros((int(op.batch), int(op.n)), how.dtype)
    if op.has_bias:
        grouped = int(op.kind) == CONV
        shape = (bias.size,) if grouped else (int(op.n),)
        if arrays["bias"].shape != shape:
            raise ShapeError(f"arrays['bias'] must have shape {shape}, got {arrays['bias'].shape}")
        if format_of("bias", arrays["bias"]).is_float and not how.is_float:
            raise DtypeError(f"arrays['bias'] is added to integer sums: it must be integers, got {arrays['bias'].dtype}")
        bias[:] = arrays["bias"].reshape(bias.shape) if grouped else arrays["bias"]
    registers = (x if name in conversions else x.astype(how.dtype) for name, x in (("A", a), ("B", b)))
    return *registers, bias, how, fc  # type: ignore[return-value]


def _formats(op: Any, fa: NumberFormat, fb: NumberFormat, c_dtype: Any, acc_dtype: Any) -> tuple[NumberFormat, NumberFormat]:
    """The formats of C and the accumulators, of the widths that the operation has, as A and B must be."""
    like = fa if fa.is_float else fb
    wide = default_accumulator(like)
    fc = format_with_bits(float(op.c_bits), like) if c_dtype is None else number_format("c_dtype", c_dtype)
    acc = format_with_bits(float(op.acc_bits), wide) if acc_dtype is None else number_format("acc_dtype", acc_dtype)
    for name, fmt, bits in (("A", fa, op.a_bits), ("B", fb, op.b_bits), ("C", fc, op.c_bits), ("the accumulators", acc, op.acc_bits)):
        if fmt.bits != int(bits):
            raise DtypeError(f"{name}: the program moves elements of {int(bits)} bits, {fmt.name} has {fmt.bits}")
    return fc, acc


def _vector(
    op: Any, arrays: dict[str, np.ndarray], conversions: dict[str, Conversion], function: Any, scale: Any, positions: Any, c_dtype: Any
) -> tuple[VectorWork, np.ndarray, Arithmetic, NumberFormat]:
    """A vector operation's work, its records [elements, 1], how it computes, and C's format."""
    chain = chain_of(op, function)
    _expect(arrays, {"A", "B"} if chain[0] in OF_TWO else {"A"})
    if (scale is None) == ("scale" in chain) or np.ndim(scale):
        raise KPUError(f'"scale" among the functions takes one number scale=, and no other does: got {shown(scale)} for {", ".join(chain)}')
    formats = {x: conversions[x].format if x in conversions else format_of(x, arrays[x]) for x in arrays}
    bits = sum(float(arrays[x].size * formats[x].bits) for x in arrays)
    expected = float(op.m * op.a_bits)
    if not np.isclose(bits, expected, rtol=1e-9):
        raise DtypeError(f"arrays: the program moves {expected:g} bits of operands, those given have {bits:g}")
    integer = not any(f.is_float for f in formats.values()) and all(name in INTEGER for name in chain)
    how = Arithmetic(not integer, number_format("", "int32" if integer else "fp32"))
    records = records_of(op, arrays, {x: arrays[x].dtype if x in conversions else how.dtype for x in arrays})
    shape = arrays["A"].shape
    work = VectorWork(chain, shape[-1], scale, positions_of(chain, shape, positions))
    width = float(op.c_bits) * (work.row if work.reduces else 1)
    widths = {f.bits for f in FORMATS if f.is_float == formats["A"].is_float}
    if not any(np.isclose(width, known, rtol=1e-9) for known in widths):
        raise DtypeError(f"C: the program moves {float(op.c_bits):g} bits per element of A, which is no result of {', '.join(chain)}")
    fc = format_with_bits(round(width), formats["A"]) if c_dtype is None else number_format("c_dtype", c_dtype)
    if fc.bits != round(width):
        raise DtypeError(f"C: the program moves elements of {round(width)} bits, {fc.name} has {fc.bits}")
    return work, records, how, fc
