"""The data-movement instruction set of the KPU: opcodes, the engines that serve them, and what each one moves.

Opcodes are those of kpu-sim's instruction set, plus four for what its executor left implicit: transfers between host
and external memory, the fabric's passes, and the addition of parts of K in L3.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Engine(IntEnum):
    """Engine classes; all engines of a class serve an instruction as one gang."""

    HOST = 0  # the link to the host; its transfers hold the memory channels, and so the DMA's queue
    DMA = 1
    BLOCK_MOVER = 2
    STREAMER = 3
    FABRIC = 4
    CONTROL = 5  # takes no time


class Operand(IntEnum):
    """The matrix whose block an instruction moves."""

    NONE = 0
    A = 1
    B = 2
    C = 3
    BIAS = 4


class Need(IntEnum):
    """What an instruction waits for in one that it needs."""

    OPERAND = 0  # its completion: data that this one reads
    BUFFER = 1  # its completion: the place that this one writes becomes free
    START = 2  # its start only


class Opcode(IntEnum):
    """What an instruction does; `INSTRUCTIONS` describes each."""

    NOP = 0
    HALT = 1
    BARRIER = 2
    WAIT_DMA = 3
    WAIT_BM = 4
    WAIT_STR = 5
    SIGNAL = 6
    SET_TILE_SIZE = 7
    SET_BUFFER = 8
    SET_STRIDE = 9
    LOOP_BEGIN = 10
    LOOP_END = 11
    HOST_LOAD_TILE = 16
    HOST_STORE_TILE = 17
    DMA_LOAD_TILE = 18
    DMA_PREFETCH_TILE = 19
    DMA_STORE_TILE = 20
    BM_MOVE_TILE = 21
    BM_TRANSPOSE_TILE = 22
    BM_RESHAPE_TILE = 23
    BM_WRITEBACK_TILE = 24
    BM_ACCUMULATE_TILE = 25
    STR_FEED_ROWS = 26
    STR_FEED_COLS = 27
    STR_BROADCAST_ROW = 28
    STR_BROADCAST_COL = 29
    STR_DRAIN_OUTPUT = 30
    FABRIC_PASS = 31


class Instruction(NamedTuple):
    """One line of the instruction table."""

    engine: Engine
    source: str  # memory that it reads; "" for none
    target: str  # memory that it writes
    meaning: str


_CONTROL = {
    Opcode.NOP: "nothing",
    Opcode.HALT: "the program ends",
    Opcode.BARRIER: "what needs it starts after everything that it needs",
    Opcode.WAIT_DMA: "as BARRIER, for DMA transfers",
    Opcode.WAIT_BM: "as BARRIER, for block moves",
    Opcode.WAIT_STR: "as BARRIER, for streams",
    Opcode.SIGNAL: "a named point in time",
    Opcode.SET_TILE_SIZE: "setting; programs here carry sizes with every instruction",
    Opcode.SET_BUFFER: "setting; programs here carry places as prerequisites",
    Opcode.SET_STRIDE: "setting; programs here carry whole bursts as bytes",
    Opcode.LOOP_BEGIN: "loop; programs here are written out",
    Opcode.LOOP_END: "loop; programs here are written out",
}
# What each opcode does: the engine that serves it, from which memory to which.
INSTRUCTIONS: dict[Opcode, Instruction] = {
    **{opcode: Instruction(Engine.CONTROL, "", "", meaning) for opcode, meaning in _CONTROL.items()},
    Opcode.HOST_LOAD_TILE: Instruction(Engine.HOST, "host", "dram", "a block from the host (ours)"),
    Opcode.HOST_STORE_TILE: Instruction(Engine.HOST, "dram", "host", "a block of results to the host (ours)"),
    Opcode.DMA_LOAD_TILE: Instruction(Engine.DMA, "dram", "l3", "a block for immediate use"),
    Opcode.DMA_PREFETCH_TILE: Instruction(Engine.DMA, "dram", "l3", "a block into the second place, ahead of use"),
    Opcode.DMA_STORE_TILE: Instruction(Engine.DMA, "l3", "dram", "a block of C"),
    Opcode.BM_MOVE_TILE: Instruction(Engine.BLOCK_MOVER, "l3", "l2", "a block as it is"),
    Opcode.BM_TRANSPOSE_TILE: Instruction(Engine.BLOCK_MOVER, "l3", "l2", "a block transposed; C leaves, L2 to L3"),
    Opcode.BM_RESHAPE_TILE: Instruction(Engine.BLOCK_MOVER, "l3", "l2", "a convolution's windows as rows (im2col)"),
    Opcode.BM_WRITEBACK_TILE: Instruction(Engine.BLOCK_MOVER, "l2", "l3", "a block of C"),
    Opcode.BM_ACCUMULATE_TILE: Instruction(Engine.BLOCK_MOVER, "l2", "l3", "a part of K of C: read L3, add, write (ours)"),
    Opcode.STR_FEED_ROWS: Instruction(Engine.STREAMER, "l2", "l1", "the operand on the array's rows"),
    Opcode.STR_FEED_COLS: Instruction(Engine.STREAMER, "l2", "l1", "the operand on the array's columns"),
    Opcode.STR_BROADCAST_ROW: Instruction(Engine.STREAMER, "l2", "l1", "one value per row, to all columns"),
    Opcode.STR_BROADCAST_COL: Instruction(Engine.STREAMER, "l2", "l1", "one value per column, to all rows: the bias"),
    Opcode.STR_DRAIN_OUTPUT: Instruction(Engine.STREAMER, "l1", "l2", "results, with bias and activation on the way"),
    Opcode.FABRIC_PASS: Instruction(Engine.FABRIC, "l1", "l1", "the array, or the vector engine, computes (ours)"),
}
LOOPS = (Opcode.LOOP_BEGIN, Opcode.LOOP_END)  # in the set, and not in programs: those are written out
QUEUE = tuple({Engine.HOST: Engine.DMA}.get(engine, engine).value for engine in Engine)
"""[engine]: the in-order queue that serves it."""


def route(opcode: Opcode, operand: Operand) -> tuple[str, str]:
    """(source, target) memory of an instruction; a transposed C is on its way out."""
    entry = INSTRUCTIONS[opcode]
    if opcode == Opcode.BM_TRANSPOSE_TILE and operand == Operand.C:
        return entry.target, entry.source
    return entry.source, entry.target
