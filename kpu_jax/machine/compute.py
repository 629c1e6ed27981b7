"""Fabric passes: every compute tile's array on the blocks in its stream buffers."""

from __future__ import annotations

import itertools

from kpu_jax.machine.fabric import Pass, run_pass
from kpu_jax.machine.places import MachineError
from kpu_jax.machine.state import AXES, Bag, Instruction, State, Sum
from kpu_jax.program.blocks import OPERAND_AXES


def compute(state: State, ins: Instruction) -> None:
    """Carry out a FABRIC_PASS."""
    blocks, move = state.blocks, state.counters.move
    a, b = (state.at[1, x].get(ins.key(1, OPERAND_AXES[x])) for x in "AB")
    key = ins.key(1, OPERAND_AXES["C"])
    sums = state.bag(1, key)
    stays = "CBA"[blocks.dataflow]
    if stays == "C":
        _begin(state, key, sums)
    elif state.stationary != (held := ins.key(1, OPERAND_AXES[stays])):
        move(stays, "l1", "pe", (a if stays == "A" else b).bytes)
        state.stationary = held
    parts = {axis: [p.tile for p in state.geometry.pass_parts(axis, *ins.along(axis))] for axis in AXES}
    tiles = list(itertools.product(state.geometry.groups(ins.batch), parts["m"], parts["n"], parts["k"]))
    in_pe = state.accumulating[1] if state.accumulating else Bag()
    work = []
    for group, tm, tn, tk in tiles:
        for x, fed, receiver in (("A", a, tn), ("B", b, tm)):
            if receiver >= fed.receivers:
                raise MachineError(f"compute tile {(group, tm, tn, tk)} works on {x} and did not get it: {fed.receivers} copies were made")
        begun = in_pe.get((group, tm, tn, tk))
        work.append(Pass(a.values[group, tm, tk], b.values[group, tk, tn], begun.values if begun else None))
    done = run_pass(state.fabric, work)
    state.fired += done.fired
    state.switched += done.switched
    state.fabric_cycles += done.cycles
    for tile, job, values in zip(tiles, work, done.sums, strict=True):
        (m, k), n = job.a.shape, job.b.shape[1]
        for x, size in (("A", m * k), ("B", k * n)):
            if x != stays:
                move(x, "l1", "pe", size * blocks.bytes[x])
        if stays == "C":
            before = in_pe.get(tile)
            in_pe[tile] = Sum(values, k + (before.k if before else 0))
            continue
        piece = Sum(values, k)
        move("C", "pe", "l1", state.piece_bytes(piece))
        if tile in sums:
            move("C", "l1", "", state.piece_bytes(sums[tile]))
            piece = Sum(state.add(sums[tile].values, values), sums[tile].k + k)
        state.set_piece(1, sums, tile, piece)


def _begin(state: State, key: tuple[int, ...], returned: Bag) -> None:
    """Output-stationary: another block of C comes to the PEs, with the partial sums that came back to L1."""
    if state.accumulating is not None and state.accumulating[0] == key:
        return
    if state.accumulating is not None:
        raise MachineError(f"the accumulators of C's block {state.accumulating[0]} are overwritten before they are drained")
    state.accumulating = key, Bag()
    for tile, piece in returned.items():
        state.counters.move("C", "l1", "pe", state.piece_bytes(piece))
        state.accumulating[1][tile] = piece
