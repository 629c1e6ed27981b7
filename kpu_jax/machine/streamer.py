"""Streamers: passes' blocks from L2 to the stream buffers, and results back through the vector engine."""

from __future__ import annotations

from typing import Any

from kpu_jax.machine.places import MachineError
from kpu_jax.machine.state import Fed, Instruction, State, Sum
from kpu_jax.program import Opcode
from kpu_jax.program.blocks import OPERAND_AXES
from kpu_jax.workload.op import VECTOR


def stream(state: State, ins: Instruction) -> None:
    """Carry out a STR_ instruction."""
    if ins.opcode == Opcode.STR_DRAIN_OUTPUT:
        _drain(state, ins)
    elif ins.operand == "C":
        _partial_sums_return(state, ins)
    elif ins.operand == "bias":
        _bias(state, ins)
    else:
        _operand(state, ins)


def _operand(state: State, ins: Instruction) -> None:
    """A or B to the compute tiles' stream buffers."""
    x, held = ins.operand, state.at[2, ins.operand].get(ins.key(2))
    expected = ((Opcode.STR_FEED_ROWS, Opcode.STR_FEED_COLS), (Opcode.STR_FEED_COLS, Opcode.STR_FEED_ROWS))
    on_cols = (x == "B") != (state.blocks.dataflow == 2)  # input-stationary, A stands on the columns
    if ins.opcode != expected[0][on_cols]:
        raise MachineError(f"{ins.opcode.name} feeds {x} to the wrong side of the array")
    outer, inner = (state.geometry.pass_parts(a, *ins.along(a)) for a in OPERAND_AXES[x])
    turned = x == "A" and state.blocks.dataflow != 0 and state.blocks.kind != VECTOR
    values: dict[tuple[int, ...], Any] = {}
    for group in state.geometry.groups(ins.batch):
        for rows in outer:
            for cols in inner:
                block = held.values[group, rows.tile, cols.tile]
                part = block[cols.span, rows.span].T if turned else block[rows.span, cols.span]
                values[group, rows.tile, cols.tile] = state.passing("streamer", x, part)
    elements = sum(v.size for v in values.values())
    receivers = ins.copies(ins.read, elements * state.blocks.bytes[x])
    if receivers > held.receivers:
        raise MachineError(f"{ins.opcode.name} feeds {x} to {receivers} compute tiles, of which {held.receivers} have it in L2")
    written = state.carry(x, "l2", "l1", elements * receivers)
    state.put(1, x, ins.key(1), Fed(values, receivers, written))


def _bias(state: State, ins: Instruction) -> None:
    held, parts = state.at[2, "bias"].get(ins.key(2)), state.geometry.pass_parts("n", *ins.along("n"))
    values: dict[tuple[int, ...], Any] = {
        (g, part.tile): held.values[g, part.tile][part.span] for g in state.geometry.groups(ins.batch) for part in parts
    }
    size = sum(v.size for v in values.values()) * state.blocks.acc_bytes
    receivers = ins.copies(ins.read, size)
    state.counters.move("bias", "l2", "l1", size * receivers)
    state.put(1, "bias", ins.key(1), Fed(values, receivers, size * receivers))


def _partial_sums_return(state: State, ins: Instruction) -> None:
    """C back to L1, to those compute tiles along K that go on summing."""
    (_, _, m1), (_, _, n1) = ins.along("m"), ins.along("n")
    source = {s: piece for s, piece in state.at[2, "C"].get(ins.key(2)).items() if s[:2] == (m1, n1)}
    of_one_part = sum(state.piece_bytes(piece) for s, piece in source.items() if s[-1] == 0)
    parts = round(ins.read / of_one_part) if of_one_part else 0
    bag = state.bag(1, ins.key(1))
    for spot, piece in source.items():
        if spot[-1] < parts:
            state.counters.move("C", "l2", "l1", state.piece_bytes(piece))
            state.set_piece(1, bag, spot[2:], piece)


def _drain(state: State, ins: Instruction) -> None:
    """C to L2: bias added by the first compute tile along K, complete sums through the vector engine."""
    key, move = ins.key(1), state.counters.move
    if state.accumulating is not None and state.accumulating[0] == key:
        bag = state.bag(1, key)
        for tile, piece in state.accumulating[1].items():
            move("C", "pe", "l1", state.piece_bytes(piece))
            state.set_piece(1, bag, tile, piece)
        state.accumulating = None
    target = state.bag(2, ins.key(2))
    (_, _, m1), (n3, n2, n1) = ins.along("m"), ins.along("n")
    spans = {p.tile: p.span for p in state.geometry.l2_parts("n", n3, n2)}
    inside = {p.tile: p.span for p in state.geometry.pass_parts("n", n3, n2, n1)}
    columns = state.geometry.l3_indices("n", n3)
    for tile, piece in state.take_bag(1, key).items():
        group, tm, tn, tk = tile
        move("C", "l1", "", state.piece_bytes(piece))
        if ins.biased and tk == 0:
            bias = state.at[1, "bias"].get(ins.key(1, "n"))
            move("bias", "l1", "", piece.values.shape[1] * state.blocks.acc_bytes)
            piece = Sum(state.add(piece.values, bias.values[group, tn]), piece.k)
        piece = state.leaving("streamer", state.deliver(piece, columns[spans[tn]][inside[tn]]))
        move("C", "", "l2", state.piece_bytes(piece))
        state.set_piece(2, target, (m1, n1, *tile), piece)
