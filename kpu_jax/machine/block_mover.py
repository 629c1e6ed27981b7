"""BlockMovers: blocks between L3 and the compute tiles' L2, as they are, transposed, reshaped or shuffled.

Programs transpose and reshape into windows; the ISA has no instruction that shuffles, so `move_block` does it alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, ShapeError, check_choice, shown
from kpu_jax.machine.formats import number_format
from kpu_jax.machine.memory import Memory, array_bytes, read_array, write_array
from kpu_jax.machine.places import MachineError
from kpu_jax.machine.state import ON_L3, Fed, Instruction, State, Sum
from kpu_jax.program import Opcode
from kpu_jax.program.blocks import OPERAND_AXES

ARRANGEMENTS = ("identity", "transpose", "reshape", "shuffle")


def move(state: State, ins: Instruction) -> None:
    """Carry out a BM_ instruction."""
    if ins.operand == "C" and ins.opcode == Opcode.BM_MOVE_TILE:
        _partial_sums_return(state, ins)
    elif ins.operand == "C":
        _write_back(state, ins)
    elif ins.operand == "bias":
        _bias(state, ins)
    else:
        _operand(state, ins)


def _operand(state: State, ins: Instruction) -> None:
    """A or B to the compute tiles. A stands row by row of M output-stationary, else of K, as the array takes it."""
    x = ins.operand
    outer, inner = OPERAND_AXES[x]
    parts = [state.geometry.l2_parts(a, *ins.along(a)[:2]) for a in (outer, inner)]
    turned = ins.opcode == Opcode.BM_TRANSPOSE_TILE or (ins.opcode == Opcode.BM_RESHAPE_TILE and state.blocks.dataflow != 0)
    values: dict[tuple[int, ...], Any] = {}
    for group, element in state.geometry.groups(ins.batch).items():
        for rows in parts[0]:
            for cols in parts[1]:
                block = _cut(state, ins, group, element, rows.span, cols.span)
                block = state.passing("block_mover", x, block)
                values[group, rows.tile, cols.tile] = block.T if turned else block
    receivers = ins.copies(ins.written, ins.read)
    written = state.carry(x, "l3", "l2", sum(v.size for v in values.values()), receivers)
    state.put(2, x, ins.key(2), Fed(values, receivers, written))


def _cut(state: State, ins: Instruction, group: int, element: int, rows: slice, cols: slice) -> np.ndarray:
    """A compute tile's part of an L3 block."""
    x = ins.operand
    resident = state.location[x] == ON_L3
    held = None if resident else state.at[3, x].get(ins.key(3)).values[group,]
    if x == "A" and state.inputs:
        if ins.opcode != Opcode.BM_RESHAPE_TILE:
            raise MachineError(f"{ins.opcode.name} moves a convolution's input, which must be reshaped into windows")
        m, k = (state.geometry.l3_indices(a, ins.along(a)[0]) for a in "mk")
        source = state.inputs[element]
        windows = source.patches(m[rows], k[cols], source.rows(m) if held is None else held)
        return state.passing("dma", x, windows)  # which brought whole rows of it
    if held is None:
        outer, inner = (state.geometry.l3_indices(a, ins.along(a)[0]) for a in OPERAND_AXES[x])
        return state.whole[x][element][np.ix_(outer[rows], inner[cols])]
    return held[rows, cols]


def _bias(state: State, ins: Instruction) -> None:
    held, groups = state.at[3, "bias"].get(ins.key(3)), state.geometry.groups(ins.batch)
    parts = state.geometry.l2_parts("n", *ins.along("n")[:2])
    values: dict[tuple[int, ...], Any] = {(g, part.tile): held.values[g,][part.span] for g in groups for part in parts}
    size = sum(v.size for v in values.values()) * state.blocks.acc_bytes
    receivers = ins.copies(ins.written, ins.read)
    state.counters.move("bias", "l3", "l2", size, receivers)
    state.put(2, "bias", ins.key(2), Fed(values, receivers, size * receivers))


def _partial_sums_return(state: State, ins: Instruction) -> None:
    """C back to L2, to the first compute tile along K: it carries on from the sum, the others start afresh."""
    m2, n2 = ins.along("m")[1], ins.along("n")[1]
    bag = state.bag(2, ins.key(2))
    for (m, n, m1, n1, group, tm, tn), piece in state.at[3, "C"].get(ins.key(3)).items():
        if (m, n) == (m2, n2):
            state.counters.move("C", "l3", "l2", state.piece_bytes(piece))
            state.set_piece(2, bag, (m1, n1, group, tm, tn, 0), piece)


def _write_back(state: State, ins: Instruction) -> None:
    """C to L3: the first part of K as it is, each further one added to the sum there."""
    key, (_, m2, _), (_, n2, _) = ins.key(2), ins.along("m"), ins.along("n")
    source, target = state.at[2, "C"].get(key), state.bag(3, ins.key(3))
    part = min((spot[-1] for spot in source), default=0)
    adds = ins.opcode == Opcode.BM_ACCUMULATE_TILE
    if not source or adds != (part > 0):
        raise MachineError(f"{ins.opcode.name} comes when part {part} of K of C's block {key} is to be written back")
    columns = state.geometry.l3_indices("n", ins.along("n")[0])
    spans = {p.tile: p.span for p in state.geometry.l2_parts("n", *ins.along("n")[:2])}
    for spot in [s for s in source if s[-1] == part]:
        m1, n1, group, tm, tn, _ = spot
        piece, place = source[spot], (m2, n2, m1, n1, group, tm, tn)
        state.counters.move("C", "l2", "", state.piece_bytes(piece))
        state.set_piece(2, source, spot, None)
        if adds:
            before = target[place]
            state.counters.move("C", "l3", "", state.piece_bytes(before))
            total = Sum(state.add(before.values, piece.values), before.k + piece.k)
            own = state.geometry.pass_parts("n", *ins.along("n")[:2], n1)
            inside = next(p.span for p in own if p.tile == tn)
            piece = state.deliver(total, columns[spans[tn]][inside])
        piece = state.leaving("block_mover", piece)
        state.counters.move("C", "", "l3", state.piece_bytes(piece))
        state.set_piece(3, target, place, piece)
    if not source:
        state.at[2, "C"].take(key)


def shuffled(block: np.ndarray, order: Any, *, axis: int = 0, group: int = 1) -> np.ndarray:
    """A block [rows, columns] whose groups of `group` rows (or columns, `axis` 1) come in another order: i from `order[i]`.

    Channel shuffles, bit reversals, the even-odd split of a transform. A permutation: all bytes move once, none is lost.
    Raises `ShapeError` for a block that is no whole number of groups, and an order that is no permutation of them.
    """
    values = np.asarray(block)
    if values.ndim != 2 or axis not in (0, 1) or group < 1 or values.shape[axis] % group:
        raise ShapeError(f"a block to shuffle has two axes and a whole number of groups, got {values.shape}, axis {axis}, group {group}")
    count, wanted = values.shape[axis] // group, np.asarray(order)
    if wanted.shape != (count,) or not np.array_equal(np.sort(wanted), np.arange(count)):
        raise ShapeError(f"order must be a permutation of 0 to {count - 1}, one number per group, got {shown(order)}")
    places = (wanted.astype(np.int64)[:, None] * group + np.arange(group)).ravel()
    return np.take(values, places, axis=axis)


def arranged(block: np.ndarray, arrangement: str = "identity", **options: Any) -> np.ndarray:
    """A block as a BlockMover delivers it: "identity", "transpose", "reshape" (`to=` a shape, row-major) or "shuffle" (see `shuffled`)."""
    values = np.asarray(block)
    chosen = check_choice("arrangement", arrangement, ARRANGEMENTS)
    needed = {"reshape": {"to"}, "shuffle": {"order"}}.get(chosen, set())
    if needed - set(options) or set(options) - needed - ({"axis", "group"} if chosen == "shuffle" else set()):
        raise KPUError(f"arrangement = {chosen} takes {', '.join(needed) or 'no options'}, got {', '.join(options) or 'none'}")
    if chosen == "shuffle":
        return shuffled(values, **options)
    if chosen == "reshape":
        shape = tuple(options["to"])
        if any(size < 1 for size in shape) or int(np.prod(shape, dtype=np.int64)) != values.size:
            raise ShapeError(f"a block of {values.size} elements cannot be reshaped to {shape}")
        return values.reshape(shape)
    return values.T if chosen == "transpose" else values


def move_block(
    source: Memory, source_address: int, target: Memory, target_address: int, shape: tuple[int, ...], dtype: Any, **arrangement: Any
) -> tuple[Memory, int]:
    """(target memory after the move, bytes read at the source and as many written) of a block of `shape`, `arranged` on the way.

    Addresses are multiples of the element's bytes. Raises `AddressError`, `ShapeError`, `DtypeError`; memories are values,
    so those given stay as they were.
    """
    fmt = number_format("dtype", dtype)
    block = arranged(read_array(source, source_address, shape, fmt), **arrangement)
    return write_array(target, target_address, block, fmt), array_bytes(shape, fmt)
