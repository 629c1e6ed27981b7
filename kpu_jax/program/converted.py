"""Programs whose movers convert: the bytes of each move at the width that its memories hold, and whether they fit.

A conversion changes no move, only how wide an operand's elements are in the memories beyond the mover that converts it.
So every column of bytes is that of the same schedule with elements as wide as in the memory where they are counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kpu_jax.base.compilation import ONCE, jit_for
from kpu_jax.base.errors import InfeasibleError, KPUError, check_choice
from kpu_jax.base.pytree import replace_path
from kpu_jax.base.validation import check_type
from kpu_jax.hardware import KPUConfig, check_config
from kpu_jax.mapping.legality import Needs, explain, needs
from kpu_jax.mapping.rate import rate_of
from kpu_jax.mapping.visits import lay_out
from kpu_jax.program.build import assemble_moves
from kpu_jax.program.isa import Engine, Opcode, Operand, route
from kpu_jax.program.program import HEADER, Program
from kpu_jax.program.schedule import Schedule
from kpu_jax.program.structure import check_chip, check_structure
from kpu_jax.workload.dtypes import parse_dtype
from kpu_jax.workload.op import VECTOR

OUTSIDE = {"dma": ("host", "dram"), "block_mover": ("host", "dram", "l3"), "streamer": ("host", "dram", "l3", "l2")}
"""Mover -> the memories beyond it, seen from the fabric."""
MOVERS = tuple(OUTSIDE)
LEVELS = ("dram", "l3", "l2")  # whose elements may differ from those of the fabric; the host's are external memory's


def converted(cfg: KPUConfig, program: Program, conversions: Mapping[str, tuple[str, Any]]) -> Program:
    """`program`, of a matrix product on chip `cfg`, with the bytes that it moves when movers convert its operands.

    `conversions`: operand "A", "B" or "C" -> (mover, number format beyond it): {"B": ("block_mover", "int4")} for weights
    that lie in L3 and external memory as int4. `kpu.program.execute` gives its time, `kpu.program.traffic` its bytes, which
    are those of `kpu.machine.run(program, ..., conversions=...)` on the program as it was. Exact; a transfer takes the
    time of the bytes on its side away from the fabric, and converting takes none.

    Raises `InfeasibleError` if blocks of these widths do not fit the chip, and `KPUError` for unknown operands, movers and
    formats, vector operations, and programs that do not fit the chip's array.
    """
    check_config(cfg)
    check_type("program", program, Program, "build one with kpu_jax.program.build")
    check_structure(program)
    check_chip(cfg, program)
    check_type("conversions", conversions, Mapping, "give a dict by operand")
    if int(program.op.kind) == VECTOR:
        raise KPUError("converted takes the program of a matrix product; a vector operation's operands share one width")
    ops = _ops(program, conversions)
    _check_fits(cfg, program, ops)
    header = {name: getattr(program, name) for name in HEADER}
    chip = {name: int(header[name]) for name in ("rows", "cols", "macs_per_pe", "burst")}
    columns = ("bytes", "burst_bytes", "read", "written")
    found = {name: getattr(program, name).copy() for name in columns}
    for level, op in ops.items():
        as_wide = assemble_moves(Schedule(op, program.mapping, **chip), **{**header, "op": op})
        if not np.array_equal(as_wide.opcode, program.opcode) or not np.array_equal(as_wide.tile, program.tile):
            raise KPUError("converted takes a program as it was built, not one with other moves")
        for code, x in set(zip(program.opcode.tolist(), program.operand.tolist(), strict=True)):
            source, target = ("dram" if memory == "host" else memory for memory in route(Opcode(code), Operand(x)))
            outer = target if x == Operand.C and _leaves(Opcode(code), source) else source
            rows = (program.opcode == code) & (program.operand == x) & (program.engine != Engine.FABRIC)
            for name, memory in (("read", source), ("written", target), ("bytes", outer), ("burst_bytes", outer)):
                if memory == level:
                    found[name][rows] = getattr(as_wide, name)[rows]
    return program.replace(**found)


def _leaves(code: Opcode, source: str) -> bool:
    """Is this move of C away from the fabric?"""
    return code in (Opcode.STR_DRAIN_OUTPUT, Opcode.BM_WRITEBACK_TILE, Opcode.BM_ACCUMULATE_TILE, Opcode.DMA_STORE_TILE) or (
        code == Opcode.BM_TRANSPOSE_TILE and source == "l2"
    )


def _ops(program: Program, conversions: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """The operation with elements as wide as in each memory."""
    ops = dict.fromkeys(LEVELS, program.op)
    for x, pair in conversions.items():
        check_choice("a key of conversions", x, ("A", "B", "C"))
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise KPUError(f"conversions[{x!r}] must be (mover, number format), got {pair!r}")
        mover = check_choice(f"conversions[{x!r}][0]", pair[0], MOVERS)
        if x == "C" and mover == "streamer" and int(program.mapping.partition_k) > 1:
            raise KPUError("conversions['C']: K is cut over compute tiles: sums are complete only in L3; use block_mover or dma")
        bits = parse_dtype(f"conversions[{x!r}][1]", pair[1]).bits
        for level in LEVELS:
            if level in OUTSIDE[mover]:
                ops[level] = replace_path(ops[level], f"{x.lower()}_bits", np.float64(bits))
    return ops


@jit_for(ONCE)
def _needs(cfg: Any, op: Any, rate_op: Any, mapping: Any) -> Needs:
    array = cfg.compute.processor_array
    return needs(cfg, op, mapping, lay_out(op, mapping, array.rows, array.cols, rate_of(cfg, rate_op)))


def _check_fits(cfg: KPUConfig, program: Program, ops: dict[str, Any]) -> None:
    """`InfeasibleError` for the first memory that blocks of its own width overflow."""
    with jax.enable_x64(True):
        of = {level: _needs(cfg, op, program.op, program.mapping) for level, op in (*ops.items(), ("l1", program.op))}
        level_of = {"external": "dram", "host": "dram", "l3": "l3", "l2": "l2"}
        own = of["l1"]
        need = {name: of[level_of.get(name, "l1")].need[name] for name in own.need}
        status, overflow = Needs(need, own.have).verdict
    if status:
        raise InfeasibleError(explain(float(status), float(overflow)))
