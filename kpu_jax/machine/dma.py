"""DMA and the link to the host: whole L3 blocks between host, external memory and L3."""

from __future__ import annotations

from typing import Any

import numpy as np

from kpu_jax.machine.formats import storage
from kpu_jax.machine.places import MachineError
from kpu_jax.machine.state import AXES, ON_HOST, ON_L3, Bag, Fed, Instruction, State
from kpu_jax.program import Opcode
from kpu_jax.program.blocks import OPERAND_AXES


def transfer(state: State, ins: Instruction) -> None:
    """Carry out a HOST_ or DMA_ instruction."""
    if ins.operand == "C":
        _results(state, ins)
    elif ins.operand == "bias":
        _bias(state, ins)
    elif ins.opcode == Opcode.HOST_LOAD_TILE:
        fresh = {item: size for item, size in _extent(state, ins).items() if item not in state.arrived}
        state.arrived |= set(fresh)
        state.carry(ins.operand, "host", "dram", sum(fresh.values()))
    else:
        _operand(state, ins)


def _indices(state: State, ins: Instruction) -> list[np.ndarray]:
    """Elements along the operand's two axes that its L3 block holds."""
    return [state.geometry.l3_indices(a, ins.along(a)[0]) for a in OPERAND_AXES[ins.operand]]


def _extent(state: State, ins: Instruction) -> dict[tuple, int]:
    """What an L3 block of A or B is made of outside the chip, and its elements: input rows by channel, or one whole block."""
    rows, cols = _indices(state, ins)
    found: dict[tuple, int] = {}
    for element in state.geometry.groups(ins.batch).values():
        if ins.operand == "A" and state.inputs:
            source = state.inputs[element]
            for place in source.rows(rows):
                found |= {(element, *place, int(c)): int(state.op.in_w) for c in source.channels(cols)}
        else:
            found[ins.operand, element, ins.key(3)] = len(rows) * len(cols)
    return found


def _operand(state: State, ins: Instruction) -> None:
    x, (rows, cols) = ins.operand, _indices(state, ins)
    extent = _extent(state, ins)
    if state.location[x] == ON_HOST and not state.arrived >= set(extent):
        raise MachineError(f"{ins.opcode.name} loads a block of {x} that the host has not sent")
    values: dict[tuple[int, ...], Any] = {}
    for group, element in state.geometry.groups(ins.batch).items():
        if x == "A" and state.inputs:
            values[group,] = state.inputs[element].rows(rows)
        else:
            values[group,] = state.passing("dma", x, state.whole[x][element][np.ix_(rows, cols)])
    written = state.carry(x, "dram", "l3", sum(extent.values()))
    state.put(3, x, ins.key(3), Fed(values, 1, written))


def _bias(state: State, ins: Instruction) -> None:
    columns = state.geometry.l3_indices("n", ins.along("n")[0])
    groups = state.geometry.groups(ins.batch)
    size = len(groups) * len(columns) * state.blocks.acc_bytes
    state.counters.move("bias", "dram", "l3", size)
    state.put(3, "bias", ins.key(3), Fed({(g,): state.bias[e][columns] for g, e in groups.items()}, 1, size))


def _results(state: State, ins: Instruction) -> None:
    """C: results and spilled partial sums leave L3, partial sums come back."""
    key, move = ins.key(3), state.counters.move
    if ins.opcode == Opcode.DMA_STORE_TILE:
        bag = state.take_bag(3, key)
        move("C", "l3", "", sum(map(state.piece_bytes, bag.values())))
        bag = Bag({spot: state.leaving("dma", piece) for spot, piece in bag.items()})
        move("C", "", "dram", sum(map(state.piece_bytes, bag.values())))
        state.outside.put(key, bag)
    elif ins.opcode == Opcode.HOST_STORE_TILE:
        move("C", "dram", "host", sum(map(state.piece_bytes, state.outside.get(key).values())))
    else:
        back = state.bag(3, key)
        for spot, piece in state.outside.take(key).items():
            move("C", "dram", "l3", state.piece_bytes(piece))
            state.set_piece(3, back, spot, piece)


def results(state: State) -> np.ndarray:
    """C [batch, M, N] in its format, from where it ended; `MachineError` if a piece is missing or not complete."""
    b, geometry = state.blocks, state.geometry
    places = state.at[3, "C"] if state.location["C"] == ON_L3 else state.outside
    fmt = state.conversions["C"].format if "C" in state.conversions else state.output.fmt
    c = np.zeros((b.batch, b.size["m"], b.size["n"]), storage(fmt))
    written = np.zeros(c.shape, bool)
    for key, bag in places.items():
        batch, m3, n3 = key[0], key[1 + AXES.index("m")], key[1 + AXES.index("n")]
        groups = geometry.groups(batch)
        for spot, piece in bag.items():
            at = np.ix_(*geometry.whole_indices((m3, n3), spot))
            if not piece.complete:
                raise MachineError(f"the program ends with {piece.k} of {b.size['k']} products of C's block {key}")
            c[groups[spot[4]]][at] = piece.values
            written[groups[spot[4]]][at] = True
    if not written.all():
        raise MachineError(f"the program ends with {int((~written).sum())} of {written.size} elements of C not stored")
    return c
