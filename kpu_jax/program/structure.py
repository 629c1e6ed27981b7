"""What every program must be before anything runs it: instructions that exist, numbers, prerequisites that come before.

Array operations only, a fraction of a microsecond per instruction. Whether the blocks move as they should is
`check_program`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from kpu_jax.base.errors import KPUError
from kpu_jax.hardware import KPUConfig
from kpu_jax.mapping import check_mapping
from kpu_jax.program.build import ENGINE_OF, rate_of_chip
from kpu_jax.program.columns import check_columns
from kpu_jax.program.isa import LOOPS, Engine, Need, Opcode, Operand
from kpu_jax.program.program import COLUMNS, NO_BLOCK, NO_NEED, Program
from kpu_jax.program.text import instruction_text
from kpu_jax.workload import check_op

Trouble = Callable[[int, str], NoReturn]


def check_structure(program: Any) -> None:
    """Raise a `KPUError` for the first instruction that no machine could serve, with its number and text.

    Columns of the wrong shape or kind; unknown opcodes, operands and kinds of needs; numbers that are negative or not
    finite; needs of instructions that do not exist or come later, which in program order would be waited for for ever.
    """
    check_columns(program)
    check_op(program.op)
    check_mapping(program.mapping)
    broken = [(int(np.argmin(good)), what) for what, good in (*_numbers(program), *_order(program)) if not np.all(good)]
    if broken:
        trouble(program)(*min(broken, key=lambda item: item[0]))


def check_chip(cfg: KPUConfig, program: Program) -> None:
    """Raise a `KPUError` for the first instruction whose engine, array or bursts are not those of chip `cfg`."""
    move = cfg.data_movement
    have = {
        Engine.HOST: cfg.host_memory.region_count,
        Engine.DMA: move.dma_engine_count,
        Engine.BLOCK_MOVER: move.block_mover_count,
        Engine.STREAMER: move.streamer_count,
        Engine.FABRIC: cfg.compute.tile_count,
    }
    for engine, count in have.items():
        rows = np.flatnonzero(program.engine == engine)
        queue, first = np.unique(program.queue[rows], return_index=True)
        if len(queue) > count:
            i = int(np.sort(rows[first])[int(count)])
            what = f"is on queue {program.queue[i]}, number {len(queue)} of {engine.name}, of which the chip has {int(count)}"
            trouble(program)(i, what)
    array = cfg.compute.processor_array
    shape = {"rows": array.rows, "cols": array.cols, "macs_per_pe": rate_of_chip(cfg, program.op)}
    _check_made_for(program, Engine.FABRIC, "an array", shape)
    _check_made_for(program, Engine.DMA, "a memory", {"burst": cfg.buses.burst_bytes})


def _check_made_for(program: Program, engine: Engine, what: str, chip: dict[str, Any]) -> None:
    """Do the instructions of an engine class have the chip's numbers in them?"""
    different = [f"{name} {int(getattr(program, name))} (the chip has {int(v)})" for name, v in chip.items() if getattr(program, name) != v]
    rows = np.flatnonzero(program.engine == engine)
    if different and len(rows):
        trouble(program)(int(rows[0]), f"is for {what} of {', '.join(different)}")


def trouble(program: Program) -> Trouble:
    """A function that raises: (instruction, what is wrong with it)."""

    def raise_error(i: int, what: str) -> NoReturn:
        raise KPUError(f"instruction {i} {what}: {instruction_text(program, i)}")

    return raise_error


def _numbers(program: Program) -> list[tuple[str, Any]]:
    """Numbers that mean something: (what is wrong, [n] bool: it is not)."""
    served = ENGINE_OF[np.clip(program.opcode, 0, len(ENGINE_OF) - 1)]
    known = (program.opcode >= 0) & (program.opcode < len(ENGINE_OF)) & (served >= 0)
    after_halt = np.cumsum(program.opcode == Opcode.HALT) > (program.opcode == Opcode.HALT)
    moves = (program.engine != Engine.CONTROL) & (program.engine != Engine.FABRIC)
    rules: list[tuple[str, Any]] = [
        ("has an unknown opcode", known),
        ("is a loop, and programs here are written out", ~np.isin(program.opcode, LOOPS)),
        ("has an unknown operand", (program.operand >= 0) & (program.operand < len(Operand))),
        ("has an engine that does not serve its opcode", served == program.engine),
        ("has a need of an unknown kind", _all((program.needs == NO_NEED) | ((program.need_kind >= 0) & (program.need_kind < len(Need))))),
        ("has a label that is not in the table", (program.label >= 0) & (program.label < max(1, len(program.labels)))),
        ("has an index below -1", _all(program.tile >= NO_BLOCK)),
        ("moves no operand", ~moves | (program.operand != Operand.NONE)),
        ("comes after HALT, which ends the program", ~after_halt),
    ]
    for name, dtype in COLUMNS.items():
        column = getattr(program, name)
        if dtype is np.float64:
            rules.append((f"has {name} that is not a finite number of at least 0", np.isfinite(column) & (column >= 0)))
        elif name in ("batch", "height", "width", "queue"):
            rules.append((f"has a negative {name}", column >= 0))
    return rules


def _order(program: Program) -> list[tuple[str, Any]]:
    own = np.arange(len(program))[:, None]
    return [
        ("needs an instruction that does not exist", _all((program.needs >= NO_NEED) & (program.needs < len(program)))),
        ("needs itself", _all(program.needs != own)),
        ("needs a later one, and queues serve in program order: they would wait for each other for ever", _all(program.needs <= own)),
    ]


def _all(table: np.ndarray) -> np.ndarray:
    """[n] bool: all entries of a row of [n, ...]."""
    return np.all(table.reshape(len(table), -1), axis=1)
