"""What the memories hold while a program runs, and when it is moved."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kpu_jax.base.errors import KPUError, check_number
from kpu_jax.base.validation import check_type
from kpu_jax.program import INSTRUCTIONS, Engine, Opcode, Operand, Program, Timeline
from kpu_jax.program.isa import route
from kpu_jax.program.residency import DEPTH, INWARDS
from kpu_jax.program.stays import changes

MEMORIES = ("l3", "l2", "l1")
MATRICES = (Operand.A, Operand.B, Operand.C)
_AXES_OF = {Operand.A: (0, 2), Operand.B: (2, 1), Operand.C: (0, 1)}  # of (M, N, K)


class Stay(NamedTuple):
    """The stays of blocks in memories, columns [stay]."""

    memory: np.ndarray  # index into `MEMORIES`
    operand: np.ndarray  # isa.Operand
    place: np.ndarray  # 0, or 1 for the second of a double-buffered operand
    start: np.ndarray  # its first bytes begin to arrive, or are made [fabric cycles]
    end: np.ndarray  # it is last read, or has left [fabric cycles]
    bytes: np.ndarray  # of all compute tiles together


def stays(program: Program, timeline: Timeline) -> Stay:
    """Every stay of a block of A, B and C in L3, L2 and L1, from a program and its times (`execute`). Host only.

    A stay lasts from the start of the first instruction that writes the block to the completion of the last one that
    touches it. Sizes are those of the moves (whole blocks; what lies in padding is not moved and does not count).
    The bias and operands that live in L3 throughout are left out. Raises `KPUError` for a timeline of another program.
    """
    check_type("program", program, Program, "build one with kpu.program.build")
    check_type("timeline", timeline, Timeline, "run the program: kpu.program.execute(chip, program)")
    if len(timeline.start) != len(program):
        raise KPUError(f"the timeline is of {len(timeline.start)} instructions, the program has {len(program)}: run this program")
    passes = program.opcode == Opcode.FABRIC_PASS
    steps = np.column_stack([program.batch[passes], program.tile[passes].reshape(-1, 9)])
    passed = np.cumsum(passes) - passes  # [instruction] passes before it
    m = program.mapping
    double = {"l3": m.double_l3, "l2": m.double_l2, "l1": m.double_l1}
    parts = []
    for index, memory in enumerate(MEMORIES):
        places = 1 + int(double[memory])
        for operand in MATRICES:
            own = [0] + [1 + i for i in range(3 * DEPTH[memory]) if i % 3 in _AXES_OF[operand]]
            visit = np.cumsum(changes(steps[:, own])) - 1 if len(steps) else np.zeros(0, int)
            found = _stays_of(program, timeline, memory, operand, visit, passed, passes)
            n = len(found[0])
            parts.append((np.full(n, index), np.full(n, operand.value), found[0] % places, *found[1:]))
    return Stay(*map(np.concatenate, zip(*parts, strict=True)))


def _stays_of(
    program: Program, timeline: Timeline, memory: str, operand: Operand, visit: np.ndarray, passed: np.ndarray, passes: np.ndarray
) -> tuple[np.ndarray, ...]:
    """(visit, start, end, bytes) of every stay of one operand in one memory."""
    begin, end = np.full(len(visit), np.inf), np.full(len(visit), -np.inf)
    sizes: list[dict[tuple[int, ...], float]] = [{} for _ in visit]  # by direction and piece
    if memory == "l1":  # passes read A and B there, and make C
        np.maximum.at(end, visit, timeline.done[passes])
        if operand == Operand.C:
            np.minimum.at(begin, visit, timeline.start[passes])
    for i in np.flatnonzero(program.operand == operand.value):
        opcode = Opcode(int(program.opcode[i]))
        if INSTRUCTIONS[opcode].engine in (Engine.CONTROL, Engine.FABRIC):
            continue
        source, target = route(opcode, operand)
        if memory not in (source, target):
            continue
        inwards = INWARDS.index(source) < INWARDS.index(target)
        v = int(visit[passed[i] - (not inwards)])
        end[v] = max(end[v], timeline.done[i])
        if memory == target:
            begin[v] = min(begin[v], timeline.start[i])
        if memory == target or not inwards:  # moves inwards out of a memory read parts of a block, and some of them often
            piece = 2 * (memory == target) + inwards, *program.tile[i].ravel().tolist()
            sizes[v][piece] = max(sizes[v].get(piece, 0.0), float(program.written[i] if memory == target else program.read[i]))
    held = np.array([_largest(pieces) for pieces in sizes])
    real = np.flatnonzero((held > 0) & np.isfinite(begin))
    return real, begin[real], np.maximum(end[real], begin[real]), held[real]


def _largest(pieces: dict[tuple[int, ...], float]) -> float:
    """The bytes of a block by the way of moving it that shows most of it."""
    totals: dict[int, float] = {}
    for (way, *_), size in pieces.items():
        totals[way] = totals.get(way, 0.0) + size
    return max(totals.values(), default=0.0)


class Grid(NamedTuple):
    """Quantities over time: rows named, columns between `edges`."""

    rows: list[str]
    edges: np.ndarray  # [bin + 1] fabric cycles
    values: np.ndarray  # [row, bin]


def occupancy(program: Program, timeline: Timeline, bins: int = 200) -> Grid:
    """Mean bytes held in each of `bins` equal parts of the run, by memory, operand and place (a bank of a double buffer)."""
    found = stays(program, timeline)
    edges = _edges(timeline, bins)
    keys = sorted(set(zip(found.memory.tolist(), found.operand.tolist(), found.place.tolist(), strict=True)))
    double = {(memory, operand) for memory, operand, place in keys if place}
    names = [
        f"{MEMORIES[memory].upper()} {Operand(operand).name}" + (f", place {place + 1}" if (memory, operand) in double else "")
        for memory, operand, place in keys
    ]
    values = np.zeros((len(keys), len(edges) - 1))
    for row, key in enumerate(keys):
        own = (found.memory == key[0]) & (found.operand == key[1]) & (found.place == key[2])
        values[row] = _spread(found.start[own], found.end[own], found.bytes[own] * (found.end - found.start)[own], edges)
    return Grid(names, edges, values)


def movement(program: Program, timeline: Timeline, bins: int = 200) -> Grid:
    """Mean bytes per fabric cycle that each path between memories carries, by operand, in each of `bins` equal parts."""
    check_type("program", program, Program, "build one with kpu.program.build")
    check_type("timeline", timeline, Timeline, "run the program: kpu.program.execute(chip, program)")
    edges = _edges(timeline, bins)
    routes: dict[tuple[int, int, str], list[int]] = {}
    for i in range(len(program)):
        opcode, operand = Opcode(int(program.opcode[i])), Operand(int(program.operand[i]))
        if INSTRUCTIONS[opcode].engine in (Engine.CONTROL, Engine.FABRIC):
            continue
        source, target = route(opcode, operand)
        routes.setdefault((INSTRUCTIONS[opcode].engine.value, operand.value, f"{source.upper()} to {target.upper()}"), []).append(i)
    names, values = [], np.zeros((len(routes), len(edges) - 1))
    for row, key in enumerate(sorted(routes)):
        own = np.array(routes[key])
        names.append(f"{key[2]}, {Operand(key[1]).name}")
        values[row] = _spread(timeline.start[own], timeline.end[own], program.bytes[own], edges)
    return Grid(names, edges, values)


def _edges(timeline: Timeline, bins: int) -> np.ndarray:
    count = int(check_number("bins", bins, "parts of the run", low=1, high=1e5, integer=True))
    if not float(timeline.makespan) > 0:
        raise KPUError("nothing takes any time in this run: there is nothing to show over time")
    return np.linspace(0.0, float(timeline.makespan), count + 1)


def _spread(start: np.ndarray, end: np.ndarray, amount: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """[bin] amounts, each spread evenly over its interval, per cycle."""
    length = np.maximum(end - start, np.finfo(float).tiny)
    before = np.clip((edges[:, None] - start) / length, 0.0, 1.0) @ amount
    return np.diff(before) / np.diff(edges)
