"""BlockMovers: blocks between L3 and the compute tiles' L2, as they are, transposed, or reshaped into windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from kpu_jax.machine.places import MachineError
from kpu_jax.machine.state import ON_L3, Fed, Instruction, State, Sum
from kpu_jax.program import Opcode
from kpu_jax.program.blocks import OPERAND_AXES


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
                values[group, rows.tile, cols.tile] = block.T if turned else block
    size = sum(v.size for v in values.values()) * state.blocks.bytes[x]
    receivers = round(ins.written / ins.read)
    state.counters.move(x, "l3", "l2", size, receivers)
    state.put(2, x, ins.key(2), Fed(values, receivers, size * receivers))


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
        return source.patches(m[rows], k[cols], source.rows(m) if held is None else held)
    if held is None:
        outer, inner = (state.geometry.l3_indices(a, ins.along(a)[0]) for a in OPERAND_AXES[x])
        return state.whole[x][element][np.ix_(outer[rows], inner[cols])]
    return held[rows, cols]


def _bias(state: State, ins: Instruction) -> None:
    held, groups = state.at[3, "bias"].get(ins.key(3)), state.geometry.groups(ins.batch)
    parts = state.geometry.l2_parts("n", *ins.along("n")[:2])
    values: dict[tuple[int, ...], Any] = {(g, part.tile): held.values[g,][part.span] for g in groups for part in parts}
    size = sum(v.size for v in values.values()) * state.blocks.acc_bytes
    receivers = round(ins.written / ins.read)
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
        state.counters.move("C", "", "l3", state.piece_bytes(piece))
        state.set_piece(3, target, place, piece)
    if not source:
        state.at[2, "C"].take(key)
