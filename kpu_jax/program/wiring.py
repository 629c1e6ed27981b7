"""A program as the executor's scan reads it: registers for the times that later instructions wait for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kpu_jax.program.durations import Kinds
from kpu_jax.program.isa import Engine, Need
from kpu_jax.program.program import NO_NEED, Program
from kpu_jax.program.structure import check_structure

SHORT = 8192  # programs up to here are padded generously, so that most of them share a compilation


class Wiring(NamedTuple):
    """What the scan needs of a program, apart from durations. Its state is [queues, registers, a zero, two sinks].

    Rows beyond the program's end do nothing: programs of similar length share one compilation.
    """

    reads: Any  # [row, wait] int32: the places in the state whose latest time is the start
    writes: Any  # [row, 2 or 3] int32: where the end of the hold, the completion (and the start) go
    kind: Any  # [row] int32 into `kinds`
    state: Any  # [place] zeros
    before: Any  # [row] int32: the instruction before on the same queue, -1 for none
    needs: Any  # [row, P] int32 as in the program
    need_kind: Any
    engine: Any  # [row] int32
    kinds: Kinds
    vector: Any  # bool: passes are a vector operation's


def wire(program: Program, *, kind_per_instruction: bool = False) -> Wiring:
    """Prepare a program for execution, on the host, by array operations only. Raises as `check_structure` does.

    A queue that has waited for an instruction never again waits for that one or earlier ones of the same engine and
    queue, and only times that somebody still waits for get a register; those of an engine take turns.
    `kind_per_instruction`: every instruction its own kind, for durations from outside (with one delay per engine).
    """
    check_structure(program)
    n = len(program)
    rows = _rounded(n)
    queue, queues = _numbered(program.queue)
    reader, source, started = _binding_needs(program, queue)
    registers, end_place, start_place = _registers(program, queue, reader, source, started, first=queues)
    places = _rounded(queues + registers + 3, least=128)
    zero, sink, other_sink = range(places - 3, places)

    counts = np.bincount(reader, minlength=n)
    widest = max(4, int(counts.max(initial=0)) + 1, program.needs.shape[1])
    reads = np.full((rows, _even(widest) if rows > SHORT else max(8, _even(widest))), zero, np.int32)
    reads[:n, 0] = queue
    column = 1 + np.arange(len(reader)) - np.repeat(np.cumsum(counts) - counts, counts)
    reads[reader, column] = np.where(started, start_place[source], end_place[source])
    writes = np.stack([queue, np.where(end_place < 0, sink, end_place)], axis=1)
    if started.any():
        writes = np.concatenate([writes, np.where(start_place < 0, other_sink, start_place)[:, None]], axis=1)
    nothing = np.array([sink, other_sink, zero - 1])[: writes.shape[1]]  # rows that do nothing start at 0
    kinds, kind = _kinds(program, kind_per_instruction)

    def padded(column: np.ndarray, fill: int) -> np.ndarray:
        tail = np.full((rows - n, *column.shape[1:]), fill, np.int32)
        return np.concatenate([column.astype(np.int32), tail])

    return Wiring(
        reads=reads,
        writes=np.concatenate([writes, np.broadcast_to(nothing, (rows - n, len(nothing)))]).astype(np.int32),
        kind=padded(kind, len(kinds.engine) - 1),
        state=np.zeros(places),
        before=padded(_before(queue), -1),
        needs=padded(_widened(program.needs, reads.shape[1], NO_NEED), NO_NEED),
        need_kind=padded(_widened(program.need_kind, reads.shape[1], Need.OPERAND), Need.OPERAND),
        engine=padded(program.engine, Engine.CONTROL),
        kinds=kinds,
        vector=np.asarray(int(program.op.kind) == 2),
    )


def _binding_needs(program: Program, queue: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(who waits, for whom, for its start only) without the waits that an earlier wait of the same queue implies."""
    reader, column = np.nonzero(program.needs != NO_NEED)
    source = program.needs[reader, column].astype(np.int64)
    started = program.need_kind[reader, column] == Need.START
    if not len(reader):
        return reader, source, started
    lane, lanes = _lanes(program, queue)
    group = (queue[reader] * lanes + lane[source]) * 2 + started
    numbered, groups = _numbered(group)
    order = np.argsort(numbered.astype(np.int16 if groups < 2**15 else np.int64), kind="stable")  # int16: linear time
    progress = group[order] * (len(program) + 1) + source[order] + 1
    implied = np.concatenate([[0], np.maximum.accumulate(progress)[:-1]]) >= progress
    keep = np.ones(len(order), bool)
    keep[order] = ~implied
    return reader[keep], source[keep], started[keep]


def _numbered(codes: np.ndarray) -> tuple[np.ndarray, int]:
    """(codes of at least 0, numbered in their order without gaps; how many there are)."""
    if int(codes.max()) > len(codes) + 2**16:
        different, numbered = np.unique(codes, return_inverse=True)
        return numbered, len(different)
    numbers = np.cumsum(np.bincount(codes) > 0)  # in linear time
    return (numbers - 1)[codes], int(numbers[-1])


def _lanes(program: Program, queue: np.ndarray) -> tuple[np.ndarray, int]:
    """([n] the pair of queue and engine, whose instructions start and complete in order; how many there are)."""
    return _numbered(queue * len(Engine) + program.engine)


def _registers(
    program: Program, queue: np.ndarray, reader: np.ndarray, source: np.ndarray, started: np.ndarray, *, first: int
) -> tuple[int, np.ndarray, np.ndarray]:
    """(registers, [n] place of the completion, [n] place of the start), -1 for what nobody waits for."""
    lane, lanes = _lanes(program, queue)
    group = lane[source] * 2 + started
    count = 0
    places = np.full((2, len(program)), -1, np.int64)
    for number in range(2 * lanes):
        waits = np.flatnonzero(group == number)
        if not len(waits):
            continue
        waited_for = np.zeros(len(program) + 1, bool)
        waited_for[source[waits] + 1] = True
        rank = np.cumsum(waited_for)  # [i]: how many of those come before instruction i
        ring = int(np.max(rank[reader[waits]] - rank[source[waits]]))  # results that are waited for at once
        mine = np.flatnonzero(waited_for[1:])
        places[number % 2, mine] = first + count + np.arange(len(mine)) % ring
        count += ring
    return count, places[0], places[1]


def _kinds(program: Program, one_each: bool) -> tuple[Kinds, np.ndarray]:
    """(the different kinds of instructions and, last, one that does nothing; [n] the kind of each)."""
    columns = [np.asarray(getattr(program, name), np.float64) for name in Kinds._fields]
    if one_each:
        example = kind = np.arange(len(program))
    else:
        bits = np.stack(columns).view(np.uint64)
        odd = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F], np.uint64)
        mixed = np.bitwise_xor.reduce((bits ^ (bits >> np.uint64(29))) * odd[:, None], axis=0)
        _, example, kind = np.unique(mixed, return_index=True, return_inverse=True)
        if not all(np.array_equal(c[example][kind], c) for c in columns):  # two kinds with the same hash
            _, example, kind = np.unique(np.stack(columns), axis=1, return_index=True, return_inverse=True)
    length = _rounded(len(example) + 1, least=64)
    fill = [float(Engine.CONTROL), *[0.0] * (len(columns) - 1)]
    tables = [np.concatenate([c[example], np.full(length - len(example), f)]) for c, f in zip(columns, fill, strict=True)]
    return Kinds(tables[0].astype(np.int32), *tables[1:]), kind.ravel()


def _before(queue: np.ndarray) -> np.ndarray:
    """[n] the instruction before on the same queue, -1 for none."""
    order = np.argsort(queue, kind="stable")
    before = np.full(len(queue), -1)
    same = queue[order[1:]] == queue[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    return before


def _widened(table: np.ndarray, width: int, fill: int) -> np.ndarray:
    """A table [n, P] with more columns."""
    return np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=fill)


def _even(n: int) -> int:
    return n + n % 2


def _rounded(n: int, least: int = 1024) -> int:
    """A length of at least n that many lengths share: a power of two, above `SHORT` a quarter of one."""
    power = max(least, 1 << (n - 1).bit_length())
    step = power // 8 if power > SHORT else power
    return -(-n // step) * step
