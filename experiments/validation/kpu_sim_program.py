"""Programs of the C++ simulator kpu-sim as `kpu.program.Program`s, with its durations.

Its rules, where they differ from ours: engines are assigned one by one, each its own queue; barriers wait for all of
them, and within a phase nothing waits for its operands; compute is charged to the feed of A's rows, as if Tj = Ti, and
has no fill and drain; edge tiles are clipped, and memories have no capacity; cycles of all engines are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

import kpu_jax as kpu
from kpu_jax.base.errors import KPUError, shown
from kpu_jax.program import MOST_INSTRUCTIONS, Engine, Need, Opcode, Operand, Program
from kpu_jax.program.program import NO_NEED, empty_columns


class Setting(NamedTuple):
    """One row of `kpu_sim_executor.csv`: a product, its tiles, and the machine."""

    M: int
    N: int
    K: int
    Ti: int
    Tj: int
    Tk: int
    systolic: int  # side of the array
    elem_size: int = 4  # [byte]
    tile_caching: int = 1  # a tile once loaded stays for ever
    channels: int = 4  # memory channels, each with its DMA engine
    block_movers: int = 4
    streamers: int = 4
    dma_bus: int = 64  # [byte/cycle]
    bm_bus: int = 64
    str_bus: int = 64


_SIDE, _ENGINES, _WIDTH = 2**20, 2**12, 2**20
MOST = {
    **dict.fromkeys(("M", "N", "K", "Ti", "Tj", "Tk", "systolic"), _SIDE),
    "elem_size": 2**10,
    **dict.fromkeys(("channels", "block_movers", "streamers"), _ENGINES),
    **dict.fromkeys(("dma_bus", "bm_bus", "str_bus"), _WIDTH),
}
"""The largest numbers of a setting."""
MOST_WAITS = 10**8  # entries of a table of instructions x engines


class Line(NamedTuple):
    """One instruction; `queue` is an engine of its class."""

    opcode: Opcode
    engine: Engine
    operand: Operand
    queue: int
    ti: int
    tj: int
    tk: int
    height: int
    width: int
    bytes: int
    cycles: int


def instruction_count(s: Setting) -> int:
    """Most instructions (and passes of the fabric) that the program of a setting can have."""
    mt, nt, kt = -(-s.M // s.Ti), -(-s.N // s.Tj), -(-s.K // s.Tk)
    return mt * nt * (8 * kt + 10) + 1


def check_setting(where: str, s: Setting) -> Setting:
    """The setting, or a `KPUError` that begins with `where` if its program is more than this computer should take on."""
    for name, high in MOST.items():
        if not 1 <= (value := getattr(s, name)) <= high:
            raise KPUError(f"{where}, {name} = {shown(value)}: must be an integer of at least 1 and at most {high}")
    count, engines = instruction_count(s), first_queues(s)[-1]
    if count > MOST_INSTRUCTIONS:
        raise KPUError(f"{where}: expands to up to {count:,} instructions, more than {MOST_INSTRUCTIONS:,}")
    if count * engines > MOST_WAITS:
        raise KPUError(f"{where}: {count:,} instructions on {engines:,} engines are too many at once: take larger tiles or fewer engines")
    h, w, d = min(s.Ti, s.M), min(s.Tj, s.N), min(s.Tk, s.K)
    longest = max(h * h * d, h * w, h * d, d * w) * max(4, s.elem_size)
    if count * longest > 2**53:
        raise KPUError(f"{where}: may take more than 2^53 cycles, up to which times are exact")
    return s


def lines(s: Setting) -> Iterator[Line]:
    """The program of a setting, instruction by instruction; a pass of the fabric follows the feed that it is part of."""
    mt, nt, kt = -(-s.M // s.Ti), -(-s.N // s.Tj), -(-s.K // s.Tk)
    half = max(1, s.channels // 2)
    of_b = max(1, s.channels - half)
    loaded: set[tuple[Operand, int, int]] = set()

    def tile(x: Operand, i: int, j: int, k: int) -> tuple[int, int, int]:
        """(channel, height, width) of a tile."""
        m, n, d = min(s.Ti, s.M - i * s.Ti), min(s.Tj, s.N - j * s.Tj), min(s.Tk, s.K - k * s.Tk)
        if x == Operand.A:
            return (i * kt + k) % half, m, d
        if x == Operand.B:
            return (half + (k * nt + j) % of_b) % s.channels, d, n
        return (i * nt + j) % half, m, n

    def dma(x: Operand, opcode: Opcode, i: int, j: int, k: int) -> Line:
        channel, h, w = tile(x, i, j, k)
        size = h * w * s.elem_size
        return Line(opcode, Engine.DMA, x, channel, i, j, k, h, w, size, _cycles(size, s.dma_bus))

    def move(x: Operand, i: int, j: int, k: int) -> Line:
        channel, h, w = tile(x, i, j, k)
        size = h * w * s.elem_size
        mover = channel % 4 % s.block_movers
        return Line(Opcode.BM_MOVE_TILE, Engine.BLOCK_MOVER, x, mover, i, j, k, h, w, size, _cycles(size, s.bm_bus))

    def stream(x: Operand, opcode: Opcode, i: int, j: int, k: int, compute: int = 0) -> Line:
        channel, h, w = tile(x, i, j, k)
        cycles = max(_cycles(4 * h * w, s.str_bus), compute)
        return Line(opcode, Engine.STREAMER, x, channel % 8 % s.streamers, i, j, k, h, w, 4 * h * w, cycles)

    def fetch(i: int, j: int, k: int) -> list[Operand]:
        """The operands whose tile has to be loaded."""
        missing = []
        for x, key in ((Operand.A, (Operand.A, i, k)), (Operand.B, (Operand.B, k, j))):
            if not s.tile_caching or key not in loaded:
                loaded.add(key)
                missing.append(x)
        return missing

    barrier = Line(Opcode.BARRIER, Engine.CONTROL, Operand.NONE, 0, -1, -1, -1, 0, 0, 0, 0)
    for i in range(mt):
        for j in range(nt):
            missing = fetch(i, j, 0)
            yield from (dma(x, Opcode.DMA_LOAD_TILE, i, j, 0) for x in missing)
            if missing:
                yield barrier
            yield from (move(x, i, j, 0) for x in (Operand.A, Operand.B))
            yield barrier
            for k in range(kt):
                if k + 1 < kt:
                    missing = fetch(i, j, k + 1)
                    yield from (dma(x, Opcode.DMA_LOAD_TILE, i, j, k + 1) for x in missing)
                    yield from (move(x, i, j, k + 1) for x in missing)
                _, h, t = tile(Operand.A, i, j, k)
                compute = -(-h * h * t // s.systolic**2)
                yield stream(Operand.A, Opcode.STR_FEED_ROWS, i, j, k, compute)
                yield Line(Opcode.FABRIC_PASS, Engine.FABRIC, Operand.C, 0, i, j, k, h, t, 0, compute)
                yield stream(Operand.B, Opcode.STR_FEED_COLS, i, j, k)
            yield barrier
            yield stream(Operand.C, Opcode.STR_DRAIN_OUTPUT, i, j, 0)
            yield dma(Operand.C, Opcode.DMA_STORE_TILE, i, j, 0)
            yield barrier
    yield barrier._replace(opcode=Opcode.HALT)


def _cycles(size: int, bus: int) -> int:
    return max(1, -(-size // bus))


def first_queues(s: Setting) -> tuple[int, ...]:
    """The first queue of each class of engines, from the DMA's on: queues are numbered class by class."""
    return tuple(itertools.accumulate((0, s.channels, s.block_movers, s.streamers, 1)))


def program_of(s: Setting) -> tuple[Program, np.ndarray]:
    """(the program, [n] how long each instruction holds its engine [cycles])."""
    table = np.fromiter(itertools.chain.from_iterable(lines(s)), np.int64).reshape(-1, len(Line._fields))
    n = len(table)
    opcode, engine, operand, queue, ti, tj, tk, height, width, size, hold = table.T
    first = np.array([0, *first_queues(s)])
    columns = empty_columns(n, 1)
    columns |= {"opcode": opcode, "engine": engine, "operand": operand, "queue": queue + first[engine], "height": height, "width": width}
    columns["tile"][:, 0] = np.stack([ti, tj, tk], axis=1)
    columns |= {"bytes": size, "burst_bytes": size, "read": size, "written": size}
    columns["needs"], columns["need_kind"] = _needs(opcode, columns["queue"])
    columns = {name: np.asarray(column, dtype=empty_columns(0, 1)[name].dtype) for name, column in columns.items()}
    whole = kpu.Mapping(l3_tile=(s.Ti, s.Tj, s.Tk), l2_tile=(s.Ti, s.Tj, s.Tk))
    chip = {"rows": s.systolic, "cols": s.systolic, "macs_per_pe": 1, "burst": 1}
    header = {name: np.float64(value) for name, value in chip.items()}
    return Program(op=kpu.Gemm(s.M, s.N, s.K).plain(), mapping=whole, **header, **columns, labels=("",)), hold


def _needs(opcode: np.ndarray, queue: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Barriers wait for the last instruction of every queue since the barrier before, everything else for that barrier."""
    barriers = np.flatnonzero((opcode == Opcode.BARRIER) | (opcode == Opcode.HALT))
    phase = np.searchsorted(barriers, np.arange(len(opcode)))
    before = np.where(phase > 0, barriers[phase - 1], NO_NEED)
    needs = np.full((len(opcode), int(queue.max()) + 1), NO_NEED)
    kinds = np.full_like(needs, Need.OPERAND)
    needs[:, 0] = before
    passes = np.flatnonzero(opcode == Opcode.FABRIC_PASS)
    needs[passes, 1], kinds[passes, 1] = passes - 1, Need.START
    ends = barriers[phase]
    ordinary = np.setdiff1d(np.arange(len(opcode)), barriers, assume_unique=True)
    needs[barriers] = NO_NEED
    needs[ends[ordinary], queue[ordinary]] = ordinary  # of several of a queue the last one stays
    return needs[:, np.any(needs != NO_NEED, axis=0)], kinds[:, np.any(needs != NO_NEED, axis=0)]
