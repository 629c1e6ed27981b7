"""`build`: from a chip, an operation and a mapping to the program that carries it out."""

from __future__ import annotations

import contextlib
import gc
import itertools
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from kpu_jax.base.compilation import ONCE, jit_for
from kpu_jax.base.errors import InfeasibleError, KPUError
from kpu_jax.base.pytree import is_traced
from kpu_jax.hardware import KPUConfig, check_config
from kpu_jax.mapping import Mapping, check_mapping
from kpu_jax.mapping.legality import explain, needs
from kpu_jax.mapping.rate import rate_of
from kpu_jax.mapping.visits import lay_out
from kpu_jax.program.isa import INSTRUCTIONS, QUEUE, Opcode
from kpu_jax.program.moves import Move
from kpu_jax.program.program import COLUMNS, Program, empty_columns
from kpu_jax.program.schedule import Schedule
from kpu_jax.workload import Op, check_op

MOST_INSTRUCTIONS = 4_000_000  # of a program that is written out; `simulate` needs none
ENGINE_OF = np.array([INSTRUCTIONS[Opcode(i)].engine if i in INSTRUCTIONS else -1 for i in range(max(Opcode) + 1)], np.int32)
_CHUNK = 1 << 16
_SAME = tuple(name for name in COLUMNS if name in Move.__slots__ and name not in ("tile", "needs", "label"))  # type: ignore[attr-defined]


def build(cfg: KPUConfig, gemm: Op, mapping: Mapping) -> Program:
    """The program of `gemm` (a `Gemm`, `Conv` or `VectorOp`) under `mapping` on chip `cfg`: every instruction, once.

    Written out in plain Python, some ten microseconds per instruction: for looking at, running and checking; `kpu.simulate`
    gives the same time and traffic in closed form at any size. `gemm.count` repeats are not written out.
    Raises `KPUError` for arguments of the wrong kind and for more than 4,000,000 instructions, `InfeasibleError`
    if the mapping does not fit the chip.
    """
    cfg, op, mapping = checked(cfg, gemm, mapping)
    array = cfg.compute.processor_array
    chip = {"rows": array.rows, "cols": array.cols, "macs_per_pe": rate_of_chip(cfg, op), "burst": cfg.buses.burst_bytes}
    schedule = Schedule(op, mapping, **{name: int(v) for name, v in chip.items()}, most=MOST_INSTRUCTIONS)
    with _no_collections():
        return assemble_moves(schedule, op=op, mapping=mapping, **{name: np.float64(v) for name, v in chip.items()})


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Without Python's search for reference cycles: there are none, and it takes a third of the time of a large program."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def checked(cfg: KPUConfig, gemm: Op, mapping: Mapping) -> tuple[KPUConfig, Op, Mapping]:
    """The arguments with NumPy float64 leaves; raises as `build` does."""
    check_config(cfg)
    check_op(gemm)
    check_mapping(mapping)
    if is_traced(cfg, gemm, mapping):
        raise KPUError("a program is built on the host, outside jit, vmap and grad")
    arguments = cfg, gemm.plain(), mapping
    if any(np.ndim(leaf) for leaf in jax.tree.leaves(arguments)):
        raise KPUError("a program is of one chip, operation and mapping; these are stacked: take one of them")
    cfg, op, mapping = jax.tree.map(lambda v: np.asarray(v, np.float64)[()], arguments)
    with jax.enable_x64(True):
        status, overflow = verdict(cfg, op, mapping)
    if status:
        raise InfeasibleError(explain(float(status), float(overflow)))
    return cfg, op, mapping


def rate_of_chip(cfg: KPUConfig, op: Op) -> float:
    """Multiply-adds of a PE per cycle for `op`."""
    with jax.enable_x64(True):
        return float(rate_of(cfg, op))


@jit_for(ONCE)
def verdict(cfg: Any, op: Any, mapping: Any) -> Any:
    """(status, overflow) of the mapping on the chip, as `mapping.legality` has them."""
    array = cfg.compute.processor_array
    layout = lay_out(op, mapping, array.rows, array.cols, rate_of(cfg, op))
    return needs(cfg, op, mapping, layout).verdict


def assemble_moves(schedule: Iterable[Move], **header: Any) -> Program:
    """The program of these moves, and HALT at the end."""
    labels: dict[str, int] = {}
    chunks = []
    moves = itertools.chain(schedule, [Move(Opcode.HALT, label="end")])
    while chunk := list(itertools.islice(moves, _CHUNK)):
        chunks.append(_columns(chunk, labels))
        if sum(len(part["opcode"]) for part in chunks) > MOST_INSTRUCTIONS:
            raise KPUError(
                f"this mapping expands to more than {MOST_INSTRUCTIONS:,} instructions: use kpu.simulate, whose exact time "
                "and traffic do not expand it, or larger tiles"
            )
    widest = max(part["needs"].shape[1] for part in chunks)
    for part in chunks:
        missing = ((0, 0), (0, widest - part["needs"].shape[1]))
        part["needs"] = np.pad(part["needs"], missing, constant_values=-1)
        part["need_kind"] = np.pad(part["need_kind"], missing)
    columns = {name: np.concatenate([part[name] for part in chunks]) for name in COLUMNS}
    return Program(**header, **columns, labels=tuple(labels))


def _columns(moves: list[Move], labels: dict[str, int]) -> dict[str, np.ndarray]:
    """The columns of some moves; labels that are new get the next number."""
    n = len(moves)
    columns = empty_columns(n, max(1, max(len(move.needs) for move in moves)))
    for name in _SAME:
        columns[name][:] = np.fromiter(map(operator.attrgetter(name), moves), COLUMNS[name], n)
    columns["tile"][:] = np.fromiter(_flat(move.tile for move in moves), np.int32, 9 * n).reshape(n, 3, 3)
    columns["engine"] = ENGINE_OF[columns["opcode"]]
    columns["queue"] = np.array(QUEUE, np.int32)[columns["engine"]]
    columns["label"][:] = np.fromiter((labels.setdefault(move.label, len(labels)) for move in moves), np.int32, n)
    counts = np.fromiter((len(move.needs) for move in moves), np.int64, n)
    total = int(counts.sum())
    pairs = np.fromiter(_flat(need for move in moves for need in move.needs), np.int32, 2 * total).reshape(total, 2)
    row = np.repeat(np.arange(n), counts)
    place = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    columns["needs"][row, place], columns["need_kind"][row, place] = pairs[:, 0], pairs[:, 1]
    return columns


def _flat(rows: Iterable[tuple[int, ...]]) -> Iterator[int]:
    return itertools.chain.from_iterable(rows)

