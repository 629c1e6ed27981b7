"""What a program reads and writes: sums over its instructions, the oracle of `model/traffic`."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from kpu_jax.program.isa import Opcode, Operand, route
from kpu_jax.program.program import Program
from kpu_jax.program.structure import check_structure


def traffic(program: Program) -> dict[tuple[str, str, str], float]:
    """Bytes by ("read" or "write", memory, operand), what is not 0: memories host, dram, l3, l2, l1, pe; operands A, B, C, bias.

    Raises `KPUError` as `check_structure` does.
    """
    check_structure(program)
    total: dict[tuple[str, str, str], float] = defaultdict(float)
    for code, x in sorted(set(zip(program.opcode.tolist(), program.operand.tolist(), strict=True))):
        rows = (program.opcode == code) & (program.operand == x)
        operand = "bias" if x == Operand.BIAS else Operand(x).name
        source, target = route(Opcode(code), Operand(x))
        total["read", source, operand] += np.sum(program.read[rows])
        total["write", target, operand] += np.sum(program.written[rows])
        total["read", target, "C"] += np.sum(program.reread[rows])
    total["read", "l1", "bias"] += np.sum(program.bias_read)
    for operand, column in (("A", program.pass_a), ("B", program.pass_b), ("C", program.pass_c_in)):
        total["read", "l1", operand] += np.sum(column)
        total["write", "pe", operand] += np.sum(column)
    total["read", "pe", "C"] += np.sum(program.pass_c_out)
    total["write", "l1", "C"] += np.sum(program.pass_c_out)
    return {where: float(size) for where, size in total.items() if size}
