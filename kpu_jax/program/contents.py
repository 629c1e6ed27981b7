"""Does a program do the work of its mapping: every pass, every move, each with the numbers of the block that it names?

The header's geometry says what there is to do. Between two passes moves may come in any order that the memories permit
(`residency`); which ones come there, and how often, is the mapping's. So every block of C leaves as often as it was worked
on, and what returns is what was written last. Waits, queues, labels and control instructions are the program's own.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from kpu_jax.base.errors import plain
from kpu_jax.program.blocks import AXES, Blocks, Step
from kpu_jax.program.build import assemble_moves
from kpu_jax.program.isa import Engine, Opcode
from kpu_jax.program.program import COLUMNS, HEADER, Program
from kpu_jax.program.schedule import Schedule
from kpu_jax.program.structure import trouble
from kpu_jax.program.text import instruction_text

FREE = ("opcode", "operand", "batch", "tile", "needs", "need_kind", "engine", "queue", "label")  # not numbers of the block
NUMBERS = tuple(name for name in COLUMNS if name not in FREE)


def check_passes(program: Program) -> None:
    """Raise a `KPUError` for the first pass that is not the mapping's next one, or if some are missing at the end."""
    rows = np.flatnonzero(program.opcode == Opcode.FABRIC_PASS)
    given = np.column_stack([program.batch[rows], program.tile[rows].reshape(-1, 9)]).tolist()
    raise_error = trouble(program)
    blocks = Blocks(program.op, program.mapping, **{name: int(getattr(program, name)) for name in ("rows", "cols", "macs_per_pe")})
    trips = (max(blocks.l3_trips(a), blocks.l2_trips(a, 0), blocks.pass_trips(a, 0, 0)) for a in AXES)
    if max(*trips, blocks.batch_steps()) > len(rows):  # before walking through what may be long
        raise_error(len(program) - 1, f"ends the program, and {len(rows)} passes do not cover the operation")
    steps = blocks.steps()
    for i, mine in zip(rows.tolist(), given, strict=True):
        step = next(steps, None)
        if step is None:
            raise_error(i, "is one pass more than the operation has")
        if tuple(mine) != step.indices():
            raise_error(i, f"is not the mapping's next pass, which is {_words(step)}")
    if (step := next(steps, None)) is not None:
        raise_error(len(program) - 1, f"ends the program, and passes are missing from {_words(step)} on")


def check_moves(program: Program) -> None:
    """Raise a `KPUError` for the first move that is missing, surplus, or has other numbers than its block (passes checked)."""
    header = {name: getattr(program, name) for name in HEADER}
    chip = {name: int(header[name]) for name in ("rows", "cols", "macs_per_pe", "burst")}
    expected = assemble_moves(Schedule(program.op, program.mapping, **chip), **header)
    mine, given = _work(program)
    theirs, wanted = _work(expected)
    if not np.array_equal(given, wanted):
        _raise_difference(program, expected)
    order = np.argsort(mine)
    for name in NUMBERS:
        has, must = getattr(program, name)[mine[order]], getattr(expected, name)[theirs[order]]
        different = np.flatnonzero(has != must)
        if len(different):
            first = different[0]
            what = f"has {name}={plain(has[first])}, where the block that it names makes {plain(must[first])}"
            trouble(program)(int(mine[order[first]]), what)


def _work(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """(instructions that do work, [work, 13] what they are), sorted by the latter: passes before, opcode, operand, batch, tile.

    The link to the host may run ahead of the passes. A prefetch is a load by another name.
    """
    rows = np.flatnonzero(program.engine != Engine.CONTROL)
    opcode, passes = program.opcode[rows], program.opcode == Opcode.FABRIC_PASS
    before = np.where(program.engine[rows] == Engine.HOST, 0, (np.cumsum(passes) - passes)[rows])
    opcode = np.where(opcode == Opcode.DMA_PREFETCH_TILE, Opcode.DMA_LOAD_TILE, opcode)
    what = np.column_stack([before, opcode, program.operand[rows], program.batch[rows], program.tile[rows].reshape(-1, 9)])
    order = np.lexsort(what.T[::-1])  # stable: the parts of K of one block stay in order
    return rows[order], what[order]


def _raise_difference(program: Program, expected: Program) -> None:
    """Name the first instruction that the mapping lacks, or where one of the mapping's is missing."""
    rows, given = _work(program)
    wanted = _work(expected)
    left = Counter(map(tuple, wanted[1].tolist()))
    for i, what in sorted(zip(rows.tolist(), map(tuple, given.tolist()), strict=True)):
        left[what] -= 1
        if left[what] < 0:
            trouble(program)(i, f"is not among the mapping's moves between the passes around it ({what[0]} before it)")
    theirs = zip(wanted[0].tolist(), map(tuple, wanted[1].tolist()), strict=True)
    missing, (before, *_) = min((i, what) for i, what in theirs if left[what] > 0)
    passes = np.flatnonzero(program.opcode == Opcode.FABRIC_PASS)
    i = int(passes[before]) if before < len(passes) else len(program) - 1
    lacking = " ".join(instruction_text(expected, missing).split()[1:])
    trouble(program)(i, f"comes before a move of the mapping that is missing, {lacking}")


def _words(step: Step) -> str:
    levels = (step.l3, step.l2, step.l1)
    return f"batch={step.batch} " + " ".join(f"t{'ijk'[AXES.index(a)]}={'.'.join(str(level[a]) for level in levels)}" for a in AXES)
