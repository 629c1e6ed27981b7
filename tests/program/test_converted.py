"""Programs whose movers convert: the bytes of a run that converts, the room they need, and the time that they take."""

from __future__ import annotations

import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.machine import Conversion, run
from kpu_jax.program import Opcode, Operand, build, converted, execute, traffic

CHIP = kpu.presets.edge_ai()
RNG = np.random.default_rng(6)
A, B = (RNG.standard_normal(shape).astype(np.float32) for shape in ((20, 24), (24, 18)))
TILES = {"l3_tile": (20, 9, 12), "l2_tile": (10, 9, 6), "l3_order": "kmn", "l2_order": "kmn"}


@pytest.mark.parametrize(("flow", "parts", "data_on"), [(0, 1, "external"), (1, 2, "host"), (2, 1, "external")])
def test_its_bytes_are_those_of_a_run_that_converts(flow, parts, data_on):
    op = kpu.Gemm(20, 18, 24, dtype="int8", data_on=data_on)
    program = build(CHIP, op, kpu.Mapping(dataflow=kpu.mapping.DATAFLOWS[flow], partition=(1, 1, 1, parts), **TILES))
    for movers in (("dma", "block_mover", "dma"), ("streamer", "dma", "block_mover"), ("block_mover", "streamer", "block_mover")):
        made = {x: Conversion(mover, "fp16" if x == "C" else "int8", 0.5) for x, mover in zip("ABC", movers, strict=True)}
        done = run(program, {"A": A, "B": B}, conversions=made, fabric="tiles", c_scale=9.0)
        beyond = {x: (mover, "fp16" if x == "C" else "fp32") for x, mover in zip("ABC", movers, strict=True)}
        counted = traffic(converted(CHIP, program, beyond))
        for kind, levels in (("read", done.reads), ("write", done.writes)):
            for level, row in levels.items():
                for x, size in row.items():
                    assert counted.get((kind, level, x), 0.0) == size, (movers, kind, level, x)
    same = converted(CHIP, program, {"A": ("dma", "int8"), "C": ("dma", "int8")})
    assert kpu.program.same_program(same, program)


def test_a_load_takes_the_time_of_its_bytes_beyond_the_mover():
    program = build(CHIP, kpu.Gemm(8, 16, 64, dtype="fp16"), kpu.Mapping(l3_tile=(8, 16, 64), l2_tile=(8, 16, 64)))
    load_b = int(np.flatnonzero((program.operand == Operand.B) & (program.opcode == Opcode.DMA_LOAD_TILE))[0])
    makespans, per_cycle = [], 2 * 100e9 / 750e6  # bytes, of two banks
    for beyond, size in (({}, 2048), ({"B": ("dma", "int4")}, 512), ({"B": ("streamer", "int4")}, 512)):
        timeline = execute(CHIP, converted(CHIP, program, beyond))
        assert timeline.end[load_b] - timeline.start[load_b] == pytest.approx(size / per_cycle)
        makespans.append(float(timeline.makespan))
    assert makespans[0] > makespans[1] > makespans[2]


def test_blocks_must_fit_at_the_width_that_a_memory_holds():
    op = kpu.Gemm(256, 256, 256, dtype="int8", c_dtype="int32")
    program = build(CHIP, op, kpu.Mapping(l3_tile=(64, 128, 256), l2_tile=(64, 64, 64)))
    converted(CHIP, program, {"A": ("dma", "fp32"), "B": ("dma", "fp32")})
    with pytest.raises(kpu.InfeasibleError, match="L3 overflows"):
        converted(CHIP, program, {"A": ("block_mover", "fp32"), "B": ("block_mover", "fp32")})


def test_what_cannot_be_converted_is_named():
    program = build(CHIP, kpu.Gemm(20, 18, 24), kpu.Mapping(partition=(1, 1, 1, 2), **TILES))
    for conversions, word in (
        ({"D": ("dma", "int8")}, "valid: A, B, C"),
        ({"A": ("cpu", "int8")}, "block_mover"),
        ({"A": ("dma", "int7")}, "int7"),
        ({"A": "int8"}, "mover, number format"),
        ({"C": ("streamer", "fp16")}, "complete only in L3"),
        ([1], "dict by operand"),
    ):
        with pytest.raises(kpu.KPUError, match=word):
            converted(CHIP, program, conversions)
    vector = build(CHIP, kpu.VectorOp(64), kpu.Mapping(l3_tile=(64, 1, 1), l2_tile=(64, 1, 1)))
    with pytest.raises(kpu.KPUError, match="vector"):
        converted(CHIP, vector, {})
