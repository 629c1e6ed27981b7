"""`kpu.program.build` and `execute` as users call them: opcodes, guards, one chip or many, gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cases import small_case

import kpu_jax as kpu
from kpu_jax.base.errors import InfeasibleError, KPUError
from kpu_jax.program import Engine, Need, Opcode, Operand, Program, build, cycles, execute, wire
from kpu_jax.program.program import COLUMNS

CFG = kpu.presets.edge_ai()
WS = {"dataflow": "weight_stationary", "l3_tile": (48, 32, 64), "l2_tile": (24, 32, 32)}


def counts(program):
    return {Opcode(code).name: int(n) for code, n in zip(*np.unique(program.opcode, return_counts=True), strict=True)}


@pytest.mark.parametrize(
    ("op", "mapping"),
    [
        (kpu.Gemm(96, 64, 128, dtype="int8", bias=True, activation="gelu"), kpu.Mapping(l3_tile=(48, 32, 64), l2_tile=(24, 32, 32))),
        (kpu.Gemm(96, 64, 128, dtype="bf16", data_on="host", batch=3), kpu.Mapping(**WS, partition=(1, 1, 1, 2))),
        (
            kpu.Conv(1, 12, 12, 8, 16, 3, padding=1, dtype="int8"),
            kpu.Mapping(dataflow="input_stationary", l3_tile=(48, 16, 72), l2_tile=(24, 16, 36)),
        ),
        (kpu.VectorOp(5000, function="softmax", dtype="fp16"), kpu.Mapping(l3_tile=(2048, 1, 1), l2_tile=(512, 1, 1))),
    ],
)
def test_programs_agree_with_simulate(op, mapping):
    program = build(CFG, op, mapping)
    report = kpu.simulate(CFG, op, mapping).check()
    timeline = execute(CFG, program)
    assert timeline.makespan == pytest.approx(float(report.cycles), rel=len(program) * 2.0**-52)
    for level, rows in (("dram", Engine.DMA), ("l2", Engine.STREAMER)):
        mine = program.engine == rows
        moved = {x: program.read[mine & (program.operand == Operand[x])].sum() for x in "AB"}
        assert all(moved[x] == report.reads[level][x] for x in "AB"), level
    assert program.macs.sum() == (report.macs if op.kind < 2 else 0)
    assert all(column.dtype == COLUMNS[name] for name, column in program.columns().items())
    kpu.program.check_program(CFG, program)
    for engine, busy in timeline.busy_by_engine().items():
        idle = sum(timeline.idle_by_reason().get(engine, {}).values())
        assert busy + idle == pytest.approx(timeline.makespan) or not np.any(program.engine == Engine[engine.upper()])


def test_opcodes_follow_the_dataflow():
    gemm = kpu.Gemm(32, 32, 64, dtype="int8", bias=True)
    tiles = {"l3_tile": (32, 32, 32), "l2_tile": (16, 16, 16)}
    flows = {flow: build(CFG, gemm, kpu.Mapping(dataflow=flow, **tiles)) for flow in ("output_stationary", "weight_stationary")}
    flows["input_stationary"] = build(CFG, gemm, kpu.Mapping(dataflow="input_stationary", **tiles))
    for flow, program in flows.items():
        transposed = program.operand[program.opcode == Opcode.BM_TRANSPOSE_TILE]
        expected = {"output_stationary": set(), "weight_stationary": {Operand.A}, "input_stationary": {Operand.A, Operand.C}}
        assert set(transposed.tolist()) == expected[flow]
        on_rows = set(program.operand[program.opcode == Opcode.STR_FEED_ROWS].tolist())
        assert on_rows == {Operand.B if flow == "input_stationary" else Operand.A}
        assert counts(program)["HALT"] == 1 and program.opcode[-1] == Opcode.HALT
        assert counts(program)["DMA_PREFETCH_TILE"] > 0 and counts(program)["STR_BROADCAST_COL"] > 0
    single = build(CFG, gemm, kpu.Mapping(buffering=("single",) * 3, **tiles))
    assert "DMA_PREFETCH_TILE" not in counts(single)
    parts = build(CFG, gemm, kpu.Mapping(partition=(1, 1, 1, 2), **tiles))
    assert counts(parts)["BM_ACCUMULATE_TILE"] == counts(parts)["BM_WRITEBACK_TILE"]


def test_prerequisites_are_earlier_and_one_per_engine():
    for seed in range(20):
        program = small_case(np.random.default_rng((24, seed))).program()
        for i, needs in enumerate(program.needs):
            needs = needs[needs >= 0]
            assert (needs < i).all() and len(set(program.engine[needs].tolist())) == len(needs)
        assert set(program.need_kind[program.needs >= 0].tolist()) <= {Need.OPERAND, Need.BUFFER}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((CFG, kpu.Gemm(4096, 4096, 4096), kpu.Mapping(l3_tile=(8, 8, 8), l2_tile=(8, 8, 8))), KPUError, "use kpu.simulate"),
        ((CFG, kpu.Gemm(64, 64, 64), kpu.Mapping(**WS, partition=(9, 1, 1, 1))), InfeasibleError, "compute tiles"),
        ((CFG, kpu.Gemm(64, 64, 64), "mapping"), KPUError, "must be a Mapping"),
        ((CFG, "gemm", kpu.Mapping(**WS)), KPUError, "must be an Op"),
        (("edge_ai", kpu.Gemm(64, 64, 64), kpu.Mapping(**WS)), KPUError, "KPUConfig"),
        ((jax.tree.map(lambda v: np.stack([v, v]), CFG), kpu.Gemm(64, 64, 64), kpu.Mapping(**WS)), KPUError, "stacked"),
    ],
)
def test_build_says_why_not(arguments, error, words):
    with pytest.raises(error, match=words):
        build(*arguments)


def test_execute_says_why_not():
    program = build(CFG, kpu.Gemm(16, 16, 16), kpu.Mapping(l3_tile=(16, 16, 16), l2_tile=(16, 16, 16)))
    with pytest.raises(KPUError, match="kpu.program.build"):
        execute(CFG, "program")
    with pytest.raises(KPUError, match="one concrete chip"):
        execute(jax.tree.map(lambda v: np.stack([v, v]), CFG), program)


GEMM, MAPPING = kpu.Gemm(64, 48, 40, dtype="int8", bias=True), kpu.Mapping(l3_tile=(32, 16, 40), l2_tile=(16, 16, 20))


def test_one_program_on_many_chips():
    program = build(CFG, GEMM, MAPPING)
    speeds = [100.0, 250.0, 777.0]
    chips = [CFG.replace({"clocks.dma_mhz": mhz}) for mhz in speeds]
    stacked = jax.tree.map(lambda *v: np.stack(v), *chips)
    with jax.enable_x64(True):
        many = jax.jit(jax.vmap(cycles, in_axes=(0, None, None, None)))(stacked, program.op, program.mapping.dataflow, wire(program))
    assert many.tolist() == [float(execute(chip, program).makespan) for chip in chips]


def test_gradient_of_the_executed_time_is_that_of_its_finite_difference():
    program = build(CFG, GEMM, MAPPING)
    wiring = wire(program)

    def time(latency):
        chip = jax.tree.map(jnp.asarray, CFG)
        chip = kpu.replace_path(chip, "latency.external_ns", latency)
        return cycles(chip, program.op, program.mapping.dataflow, wiring)

    def both(latency):
        return jax.grad(time)(latency), jax.jvp(time, (latency,), (jnp.ones_like(latency),))[1]

    with jax.enable_x64(True):
        slope, ahead = map(float, jax.jit(both)(60.0))
        value = jax.jit(time)
        step = float(value(60.01) - value(59.99)) / 0.02
    assert slope > 0 and slope == pytest.approx(step, rel=1e-6) and ahead == pytest.approx(slope, rel=1e-12)


def test_a_program_is_a_pytree_of_arrays():
    program = build(CFG, GEMM, MAPPING)
    leaves, tree = jax.tree.flatten(program)
    assert all(isinstance(leaf, (np.ndarray, np.float64)) for leaf in leaves)
    again = jax.tree.unflatten(tree, leaves)
    assert isinstance(again, Program) and kpu.program.same_program(program, again)
    assert f"{len(program):,} instructions" in repr(program)
