"""`check_program`: does a program make sense, can a chip run it, and does it compute what it says?"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import is_traced
from kpu_jax.hardware import KPUConfig, check_config, derived
from kpu_jax.mapping.legality import explain
from kpu_jax.program.build import verdict
from kpu_jax.program.contents import check_moves, check_passes
from kpu_jax.program.isa import INSTRUCTIONS
from kpu_jax.program.program import Program
from kpu_jax.program.residency import Capacity, Residency
from kpu_jax.program.structure import check_chip, check_structure, trouble
from kpu_jax.workload.footprint import operand_bytes

_MEMORIES = {"L3": ("l3",), "L2": ("l2",), "an L1": ("l1",), "the chip has too few L1": ("l1",)}


def check_program(cfg: KPUConfig, program: Program) -> None:
    """Raise a `KPUError` unless chip `cfg` can run `program`, with the number and the text of the instruction at fault.

    Columns of the wrong shape or kind, numbers that mean nothing, prerequisites that come later, engines, compute tiles or
    an array that the chip lacks (all that `execute` checks too); passes that are not the mapping's; blocks that are read
    before they were loaded, or without waiting for it; memories that overflow: by their blocks' bytes, or because a block
    takes the place of one still in use; moves that the operation needs and that are missing, surplus moves, and bytes, rows
    or MACs that are not those of the block that is named. Host only; some eighty microseconds per instruction.
    """
    check_config(cfg)
    if is_traced(cfg) or np.ndim(cfg.compute.tile_count):
        raise KPUError("check_program takes one concrete chip, outside jit, vmap and grad")
    check_structure(program)
    check_chip(cfg, program)
    _check_fit(cfg, program)
    check_passes(program)
    tiles = int(np.prod(program.mapping.partition))
    resident = sum(_resident_bytes(program.op)) + float(program.op.reserved_l3_bytes)
    capacity = Capacity(float(derived.l3_capacity_bytes(cfg)) - resident, float(derived.l2_capacity_bytes(cfg)) // tiles)
    Residency(program, capacity, trouble(program)).check()
    check_moves(program)


def _check_fit(cfg: KPUConfig, program: Program) -> None:
    """The mapping that the program was built from fits the chip."""
    arguments = jax.tree.map(lambda v: np.asarray(v, np.float64)[()], (cfg, program.op, program.mapping))
    with jax.enable_x64(True):
        status, overflow = verdict(*arguments)
    if status:
        why = explain(float(status), float(overflow))
        memory = next((m[0] for words, m in _MEMORIES.items() if why.startswith(words)), "l1")
        touching = [opcode for opcode, entry in INSTRUCTIONS.items() if entry.target == memory]
        rows = np.flatnonzero(np.isin(program.opcode, touching))
        trouble(program)(int(rows[0]) if len(rows) else 0, f"does not fit the chip: {why}")


def _resident_bytes(op: Any) -> list[float]:
    """Bytes of the operands that lie in L3 throughout."""
    places = zip((op.loc_a, op.loc_b, op.loc_c), operand_bytes(op), strict=True)
    return [float(op.batch * size) for location, size in places if location == 2]
