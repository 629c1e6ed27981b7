"""`check_program`: does a program make sense, and can a chip run it?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import is_traced
from kpu_jax.base.validation import check_type
from kpu_jax.hardware import KPUConfig, check_config, derived
from kpu_jax.mapping import check_mapping
from kpu_jax.mapping.legality import explain
from kpu_jax.program.build import rate_of_chip, verdict
from kpu_jax.program.header import ARRAY
from kpu_jax.program.isa import INSTRUCTIONS, LOOPS, Engine, Need, Opcode, Operand
from kpu_jax.program.program import COLUMNS, NO_BLOCK, NO_NEED, Program
from kpu_jax.program.residency import Capacity, Residency
from kpu_jax.program.text import instruction_text
from kpu_jax.workload import check_op
from kpu_jax.workload.footprint import operand_bytes

_MEMORIES = {"L3": ("l3",), "L2": ("l2",), "an L1": ("l1",), "the chip has too few L1": ("l1",)}


def check_program(cfg: KPUConfig, program: Program) -> None:
    """Raise a `KPUError` unless chip `cfg` can run `program`, with the number and the text of the instruction at fault.

    Columns of the wrong shape or kind, and numbers that mean nothing; engines, compute tiles or an array that the chip
    lacks; prerequisites that come later, which in program order would be waited for for ever; blocks that are read before
    they were loaded, or without waiting for it; memories that overflow: by their blocks' bytes, or because a block
    takes the place of one still in use. Host only; some ten microseconds per instruction.
    """
    check_config(cfg)
    check_type("the program", program, Program, "make one with kpu.program.build")
    if is_traced(cfg, program) or np.ndim(cfg.compute.tile_count):
        raise KPUError("check_program takes one concrete chip and program, outside jit, vmap and grad")
    check_op(program.op)
    check_mapping(program.mapping)
    _check_shapes(program)
    _check_numbers(program)
    _check_order(program)
    _check_engines(cfg, program)
    _check_fit(cfg, program)
    tiles = int(np.prod(program.mapping.partition))
    resident = sum(_resident_bytes(program.op)) + float(program.op.reserved_l3_bytes)
    capacity = Capacity(float(derived.l3_capacity_bytes(cfg)) - resident, float(derived.l2_capacity_bytes(cfg)) // tiles)
    Residency(program, capacity, _trouble(program)).check()


def _trouble(program: Program) -> Callable[[int, str], None]:
    def raise_error(i: int, what: str) -> None:
        raise KPUError(f"instruction {i} {what}: {instruction_text(program, i)}")

    return raise_error


def _check_shapes(program: Program) -> None:
    n = np.size(program.opcode)
    table = (n, np.shape(program.needs)[-1] if np.ndim(program.needs) == 2 else 1)
    shapes = {"tile": (n, 3, 3), "needs": table, "need_kind": table}
    for name, dtype in COLUMNS.items():
        column, shape = getattr(program, name), shapes.get(name, (n,))
        if not isinstance(column, np.ndarray) or column.dtype != dtype:
            raise KPUError(f"program.{name} must be a NumPy array of {np.dtype(dtype)}, got {getattr(column, 'dtype', type(column))}")
        if column.shape != shape:
            raise KPUError(f"program.{name} has the shape {column.shape}, expected {shape} for {n} instructions")
    if not n:
        raise KPUError("the program has no instructions")
    for name in ARRAY:
        value = np.asarray(getattr(program, name))
        if value.shape != () or not value >= 1 or value != np.floor(value):
            raise KPUError(f"program.{name} must be an integer of at least 1, got {value}")
    if len(set(program.labels)) != len(program.labels):
        raise KPUError("program.labels holds a label twice")


def _check_numbers(program: Program) -> None:
    """Numbers that mean something, by column."""
    known = np.isin(program.opcode, list(INSTRUCTIONS))
    engine_of = np.array([INSTRUCTIONS[Opcode(c)].engine if c in INSTRUCTIONS else -1 for c in range(max(Opcode) + 1)])
    valid = program.needs != NO_NEED
    rules: list[tuple[str, Any]] = [
        ("has an unknown opcode", known),
        ("is a loop, and programs here are written out", ~np.isin(program.opcode, LOOPS)),
        ("has an unknown operand", np.isin(program.operand, list(Operand))),
        ("has an engine that does not serve its opcode", engine_of[np.where(known, program.opcode, 0)] == program.engine),
        ("has a need of an unknown kind", np.all(~valid | np.isin(program.need_kind, list(Need)), axis=1)),
        ("has a label that is not in the table", (program.label >= 0) & (program.label < max(1, len(program.labels)))),
        ("has an index below -1", np.all(program.tile >= NO_BLOCK, axis=(1, 2))),
    ]
    for name, dtype in COLUMNS.items():
        column = getattr(program, name)
        if dtype is np.float64:
            rules.append((f"has {name} that is not a finite number of at least 0", np.isfinite(column) & (column >= 0)))
        elif name in ("batch", "height", "width", "queue"):
            rules.append((f"has a negative {name}", column >= 0))
    moves = (program.engine != Engine.CONTROL) & (program.engine != Engine.FABRIC)
    rules.append(("moves no operand", ~moves | (program.operand != Operand.NONE)))
    _apply(program, rules)


def _check_order(program: Program) -> None:
    own = np.arange(len(program))[:, None]
    rules = [
        ("needs an instruction that does not exist", np.all((program.needs >= NO_NEED) & (program.needs < len(program)), axis=1)),
        ("needs itself", np.all(program.needs != own, axis=1)),
        (
            "needs a later one, and queues serve in program order: they would wait for each other for ever",
            np.all(program.needs <= own, axis=1),
        ),
    ]
    _apply(program, rules)


def _check_engines(cfg: KPUConfig, program: Program) -> None:
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
        _, first, queue = np.unique(program.queue[rows], return_index=True, return_inverse=True)
        if len(first) > count:
            i = int(np.sort(rows[first])[int(count)])
            what = f"is on queue {program.queue[i]}, number {len(first)} of {engine.name}, of which the chip has {int(count)}"
            _trouble(program)(i, what)
    array = cfg.compute.processor_array
    chip = {"rows": array.rows, "cols": array.cols, "macs_per_pe": rate_of_chip(cfg, program.op)}
    different = [f"{name} {int(getattr(program, name))} (the chip has {int(v)})" for name, v in chip.items() if getattr(program, name) != v]
    passes = np.flatnonzero(program.opcode == Opcode.FABRIC_PASS)
    if different and len(passes):
        _trouble(program)(int(passes[0]), f"is for an array of {', '.join(different)}")


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
        _trouble(program)(int(rows[0]) if len(rows) else 0, f"does not fit the chip: {why}")


def _resident_bytes(op: Any) -> list[float]:
    """Bytes of the operands that lie in L3 throughout."""
    places = zip((op.loc_a, op.loc_b, op.loc_c), operand_bytes(op), strict=True)
    return [float(op.batch * size) for location, size in places if location == 2]


def _apply(program: Program, rules: list[tuple[str, Any]]) -> None:
    """Raise for the first instruction that breaks one of the rules [n] bool."""
    broken = [(int(np.argmin(good)), what) for what, good in rules if not np.all(good)]
    if broken:
        _trouble(program)(*min(broken, key=lambda item: item[0]))
