"""`run`: carry out a program, instruction by instruction, on the numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kpu_jax.base.errors import DtypeError, KPUError, ShapeError, check_choice
from kpu_jax.base.pytree import is_traced
from kpu_jax.base.validation import check_type
from kpu_jax.machine.arithmetic import Arithmetic, arithmetic
from kpu_jax.machine.block_mover import move
from kpu_jax.machine.compute import compute
from kpu_jax.machine.dma import results, transfer
from kpu_jax.machine.fabric import FABRICS, Fabric
from kpu_jax.machine.formats import format_of, format_with_bits, number_format
from kpu_jax.machine.geometry import matrices, result_shape
from kpu_jax.machine.state import Instruction, Output, State, instructions
from kpu_jax.machine.streamer import stream
from kpu_jax.machine.vector_engine import check_scale
from kpu_jax.program import Opcode, Program
from kpu_jax.program.blocks import Blocks
from kpu_jax.workload.dtypes import NumberFormat, default_accumulator
from kpu_jax.workload.op import ACTIVATIONS, VECTOR


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
) -> Run:
    """Execute `program` on `arrays` {"A", "B", and "bias" if it has one}; C, byte counts and activity come back.

    A and B are [M, K] and [K, N], or [batch, ...] (a convolution: NHWC and HWIO), in number formats of the program's
    widths; the bias [N] is one number per column (a grouped convolution: per output channel), taken at accumulator
    width. The program knows widths, not formats: C and its accumulators take A's family unless `c_dtype`, `acc_dtype`
    say otherwise. `scale` multiplies the accumulators ahead of the activation, `c_scale` divides the result before it is
    rounded to C. `fabric`: "stepped" steps every PE every cycle, "tiles" gives the same numbers without activity.

    Exact: the numbers are those of the accumulation order of the schedule (`order`). For small programs: the
    interpreter takes about a millisecond per pass. Raises `ShapeError`, `DtypeError`, `QuantisationError`, and
    `places.MachineError` for a program that reads what is not there.
    """
    check_type("program", program, Program, "build one with kpu_jax.program.build")
    check_choice("fabric", fabric, FABRICS)
    if is_traced(program, dict(arrays)):
        raise KPUError("machine.run works on concrete arrays; under jit, vmap and grad use machine.matmul")
    op = program.op
    if int(op.kind) == VECTOR:
        raise KPUError("a vector operation's program says what moves, not which function it computes: there are no numbers to run")
    wanted = {"A", "B"} | ({"bias"} if op.has_bias else set())
    if set(arrays) != wanted:
        raise ShapeError(f"arrays must hold {', '.join(sorted(wanted))} for this program, got {', '.join(map(str, arrays)) or 'none'}")
    given = {name: np.asarray(value) for name, value in arrays.items()}
    fa, fb, fc, acc = _formats(op, given, c_dtype, acc_dtype)
    how = arithmetic(fa, fb, acc)
    for name, value in (("scale", scale), ("c_scale", c_scale)):
        if value is not None:
            check_scale(name, value)
    blocks = Blocks(op, program.mapping, rows=int(program.rows), cols=int(program.cols), macs_per_pe=int(program.macs_per_pe))
    a, b = matrices(op, given["A"], given["B"])
    bias = np.zeros((int(op.batch), int(op.n)), how.dtype)
    if op.has_bias:
        grouped = int(op.kind) == 1
        shape = (bias.size,) if grouped else (int(op.n),)
        if given["bias"].shape != shape:
            raise ShapeError(f"arrays['bias'] must have shape {shape}, got {given['bias'].shape}")
        if format_of("bias", given["bias"]).is_float and not how.is_float:
            raise DtypeError(f"arrays['bias'] is added to integer sums: it must be integers, got {given['bias'].dtype}")
        bias[:] = given["bias"].reshape(bias.shape) if grouped else given["bias"]
    array = Fabric(how, blocks.dataflow, blocks.rows, blocks.cols, blocks.rate, fabric == "stepped")
    output = Output(fc, ACTIVATIONS[int(op.activation)], scale, c_scale)
    state = State(program, blocks, array, output, _widened(how, a), _widened(how, b), bias)
    for instruction in instructions(program):
        if (act := _ENGINES.get(instruction.opcode)) is not None:
            act(state, instruction)
    counted = state.counters
    return Run(
        arrays={"C": result_shape(op, results(state), given["A"].ndim)},
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


def _widened(how: Arithmetic, x: np.ndarray) -> np.ndarray:
    """Operands as the PEs' registers hold them."""
    return x.astype(how.dtype)


def _formats(op: Any, arrays: dict[str, np.ndarray], c_dtype: Any, acc_dtype: Any) -> tuple[NumberFormat, ...]:
    """The formats of A, B, C and the accumulators, of the widths that the operation has."""
    fa, fb = format_of("A", arrays["A"]), format_of("B", arrays["B"])
    like = fa if fa.is_float else fb
    wide = default_accumulator(like)
    fc = format_with_bits(float(op.c_bits), like) if c_dtype is None else number_format("c_dtype", c_dtype)
    acc = format_with_bits(float(op.acc_bits), wide) if acc_dtype is None else number_format("acc_dtype", acc_dtype)
    for name, fmt, bits in (("A", fa, op.a_bits), ("B", fb, op.b_bits), ("C", fc, op.c_bits), ("the accumulators", acc, op.acc_bits)):
        if fmt.bits != int(bits):
            raise DtypeError(f"{name}: the program moves elements of {int(bits)} bits, {fmt.name} has {fmt.bits}")
    return fa, fb, fc, acc
