"""Programs on the machine: the numbers of the plain model, the bytes of the closed form, the cycles of the fabric."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from machine_cases import FEW, NAMED, Job, delivered_by_numpy, job, plain_matrices, plain_result

import kpu_jax as kpu
from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.base.errors import DtypeError, KPUError, QuantisationError, ShapeError
from kpu_jax.machine import MachineError, run
from kpu_jax.machine.arithmetic import arithmetic
from kpu_jax.machine.formats import format_of
from kpu_jax.machine.geometry import result_shape
from kpu_jax.machine.matmul import Formats, multiply
from kpu_jax.machine.order import regions_of
from kpu_jax.machine.places import LEVELS, OPERANDS
from kpu_jax.mapping.visits import lay_out
from kpu_jax.model.traffic import count_traffic
from kpu_jax.program import Engine, Opcode, Operand, build
from kpu_jax.program.blocks import Blocks
from kpu_jax.workload import ACTIVATIONS


@jit_for(BATCH)
def closed_form(op, mapping, rows, cols, rate, burst):
    traffic = count_traffic(op, mapping, lay_out(op, mapping, rows, cols, rate), burst)
    return traffic.reads, traffic.writes


def by_tile_path(job: Job) -> np.ndarray:
    """C by the path for whole matrices."""
    case, op = job.case, job.case.op
    bounds, orders = regions_of(op, Blocks(op, case.mapping, rows=case.rows, cols=case.cols, macs_per_pe=case.rate))
    fa, fb = (format_of(x, job.arrays[x]) for x in "AB")
    formats = Formats(fa, fb, job.c, arithmetic(fa, fb, job.acc))
    options = {"orders": orders, "bounds": bounds, "formats": formats, "activation": ACTIVATIONS[int(op.activation)]}
    a, b = plain_matrices(job)
    bias = job.arrays.get("bias", np.zeros(int(op.batch * op.n) if op.kind == 1 else int(op.n), formats.how.dtype))
    if op.kind == 1 and op.has_bias:  # one per output channel
        each = bias.reshape(len(a), -1)
        c = np.concatenate([multiply(a[i : i + 1], b[i : i + 1], each[i], None, None, **options) for i in range(len(a))])
    else:
        c = np.asarray(multiply(a, b, bias[: int(op.n)], None, None, **options))
    return result_shape(op, c, job.arrays["A"].ndim)


def complaints(job: Job) -> list[str]:
    """Everything in which the stepped run differs from what it should be."""
    case, op = job.case, job.case.op
    stepped, tiles = job.run(run, "stepped"), job.run(run, "tiles")
    c = stepped.arrays["C"]
    found = []
    for name, other in (("tile passes", tiles.arrays["C"]), ("tile path", by_tile_path(job))):
        if c.tobytes() != np.ascontiguousarray(other).tobytes():
            found.append(f"{name}: {(c != other).mean():.0%} differ")
    if op.activation in (0, 1):
        plain = result_shape(op, delivered_by_numpy(job, plain_result(job)), job.arrays["A"].ndim)
        if not np.array_equal(c.astype(np.float64), plain.astype(np.float64)):
            found.append(f"plain model: {(c != plain).mean():.0%} differ")
    with jax.enable_x64(True):
        reads, writes = jax.tree.map(float, closed_form(*case.numbers()))
    for kind, ours, tiled, theirs in (("read", stepped.reads, tiles.reads, reads), ("written", stepped.writes, tiles.writes, writes)):
        for level in LEVELS:
            for x in OPERANDS:
                if not ours[level][x] == tiled[level][x] == theirs[level][x]:
                    found.append(f"{x} {kind} at {level}: {ours[level][x]} {tiled[level][x]} {theirs[level][x]}")
    macs = int(op.batch * op.m * op.n * op.k)
    if stepped.macs != macs or (stepped.switched > stepped.fired).any():
        found.append(f"{stepped.macs} of {macs} multiply-adds")
    a, b = plain_matrices(job)
    switching = int((np.count_nonzero(a, axis=1) * np.count_nonzero(b, axis=2)).sum())
    if stepped.switched.sum() != switching:
        found.append(f"{stepped.switched.sum()} of {switching} multiply-adds switch")
    passes = job.program.opcode == Opcode.FABRIC_PASS
    beyond = case.rows + case.cols - 2 + (case.rows if case.mapping.dataflow else 0)
    if stepped.fabric_cycles != int((job.program.stream[passes] + beyond).sum()):
        found.append(f"{stepped.fabric_cycles} cycles")
    return found


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(FEW, FEW + 500), marks=pytest.mark.long)], ids=["few", "many"])
def test_a_run_is_the_plain_model_and_counts_every_byte(seeds):
    failed, activations = {}, 0
    for seed in seeds:
        case = job(seed)
        activations += int(case.case.op.activation > 1)
        if wrong := complaints(case):
            failed[seed] = wrong, case.case
    print(f"{len(seeds)} programs, {activations} with an activation that has no independent model")
    assert not failed, f"{len(failed)} of {len(seeds)}: {next(iter(failed.items()))}"


def test_chains_of_one_product_that_carry_on_from_a_sum_are_fused():
    assert not complaints(job(FEW + 183)), "K is cut into parts of one element, output-stationary"


CHIP = kpu.presets.minimal()
GEMM = kpu.Gemm(20, 18, 24, dtype="int8", c_dtype="int32")
MAPPING = kpu.Mapping(l3_tile=(20, 9, 24), l2_tile=(10, 9, 12))
RNG = np.random.default_rng(3)
A, B = (RNG.integers(-128, 128, shape).astype(np.int8) for shape in ((20, 24), (24, 18)))


def test_a_program_built_for_a_chip_gives_numpys_product():
    done = run(build(CHIP, GEMM, MAPPING), {"A": A, "B": B})
    np.testing.assert_array_equal(done.arrays["C"], A.astype(np.int32) @ B.astype(np.int32))
    report = kpu.simulate(CHIP, GEMM, MAPPING)
    assert done.reads == report.reads and done.writes == report.writes
    assert done.fired.shape == (8, 8) and done.macs == GEMM.macs


def test_requantisation_rounds_to_even_and_saturates():
    op = kpu.Gemm(20, 18, 24, dtype="int8", bias=True, activation="relu")
    bias = RNG.integers(-5000, 5000, 18).astype(np.int32)
    scale = np.linspace(0.001, 0.02, 18).astype(np.float32)
    done = run(build(CHIP, op, MAPPING), {"A": A, "B": B, "bias": bias}, scale=scale, fabric="tiles")
    sums = (A.astype(np.int32) @ B.astype(np.int32) + bias).astype(np.float32)
    np.testing.assert_array_equal(done.arrays["C"], np.clip(np.rint(np.maximum(sums * scale, 0)), -128, 127).astype(np.int8))
    assert (done.arrays["C"] == 127).any()


@pytest.mark.parametrize("dataflow", kpu.mapping.DATAFLOWS)
@pytest.mark.parametrize("data_on", ["external", "host", "l3"])
def test_blocks_fit_where_legality_says_they_do(dataflow, data_on):
    op = kpu.Gemm(20, 18, 24, dtype="int8", c_dtype="int32", data_on=data_on)
    mapping = kpu.Mapping(l3_tile=(20, 9, 12), l2_tile=(10, 9, 6), dataflow=dataflow, l3_order="kmn", l2_order="kmn")
    done = run(build(CHIP, op, mapping), {"A": A, "B": B}, fabric="tiles")
    np.testing.assert_array_equal(done.arrays["C"], A.astype(np.int32) @ B.astype(np.int32))
    layout = lay_out(op, mapping, 8.0, 8.0, 4.0)
    need = kpu.mapping.legality.needs(CHIP, op, mapping, layout).need
    resident = (A.size + B.size) * (data_on == "l3")
    assert 0 < done.high_water["l3"] + resident <= need["l3"]
    assert 0 < done.high_water["l2"] <= need["l2"]


def test_a_wrong_program_is_found_out():
    program = build(CHIP, GEMM, MAPPING)
    loads = np.flatnonzero((program.opcode == Opcode.DMA_LOAD_TILE) | (program.opcode == Opcode.DMA_PREFETCH_TILE))
    drains, feeds = (np.flatnonzero(program.opcode == code) for code in (Opcode.STR_DRAIN_OUTPUT, Opcode.STR_FEED_ROWS))
    first_b = loads[program.operand[loads] == Operand.B][0]
    for row in (loads[0], loads[-1], drains[0]):
        opcode, engine = program.opcode.copy(), program.engine.copy()
        opcode[row], engine[row] = Opcode.NOP, Engine.CONTROL
        with pytest.raises(MachineError):
            run(program.replace(opcode=opcode, engine=engine), {"A": A, "B": B}, fabric="tiles")
    for column, row, value, kind, word in (
        ("tile", loads[-1], program.tile[first_b], MachineError, "is read and is not there"),
        ("tile", loads[0], 40, MachineError, "L3 block 40 along M, where there are 1"),
        ("read", feeds[0], 0, MachineError, "brings 0 bytes of A"),
        ("read", feeds[0], np.nan, KPUError, "finite"),
        ("operand", loads[0], 0, KPUError, "moves no operand"),
        ("opcode", loads[0], 99, KPUError, "unknown opcode"),
    ):
        changed = getattr(program, column).copy()
        changed[row] = value
        with pytest.raises(kind, match=word):
            run(program.replace(**{column: changed}), {"A": A, "B": B}, fabric="tiles")


@pytest.mark.parametrize(
    ("arrays", "options", "kind", "word"),
    [
        ({"A": A}, {}, ShapeError, "A, B"),
        ({"A": A, "B": B, "bias": B[0]}, {}, ShapeError, "A, B"),
        ({"A": A[:, :20], "B": B}, {}, ShapeError, r"\(20, 24\)"),
        ({"A": A.astype(np.int16), "B": B}, {}, DtypeError, "8 bits"),
        ({"A": A.astype(np.float64), "B": B}, {}, DtypeError, "float64"),
        ({"A": A, "B": B}, {"c_dtype": "int8"}, DtypeError, "32 bits"),
        ({"A": A, "B": B}, {"scale": float("nan")}, QuantisationError, "scale"),
        ({"A": A, "B": B}, {"fabric": "fast"}, KPUError, "stepped"),
        (None, {}, KPUError, "arrays"),
        ({"A": A, "B": None}, {}, DtypeError, "B"),
        ({"A": A, "B": [[1, 2], [3]]}, {}, DtypeError, "array of numbers"),
        ({"A": A, "B": B}, {"conversions": [1]}, KPUError, "conversions"),
        ({"A": A, "B": B}, {"scale": [0.1, 0.2]}, ShapeError, "18"),
        ({"A": A, "B": B}, {"scale": 1e-42}, QuantisationError, "scale"),
        ({"A": A, "B": B}, {"function": "add"}, KPUError, "vector operation"),
    ],
)
def test_wrong_arrays_are_named(arrays, options, kind, word):
    with pytest.raises(kind, match=word):
        run(build(CHIP, GEMM, MAPPING), arrays, **options)


def test_only_programs_with_numbers_run():
    with pytest.raises(KPUError, match="program must be"):
        run(GEMM, {"A": A, "B": B})
    vector = build(CHIP, kpu.VectorOp(64), kpu.Mapping(l3_tile=(64, 1, 1), l2_tile=(64, 1, 1)))
    with pytest.raises(KPUError, match="vector"):
        run(vector, {"A": A, "B": B})
    assert NAMED["fp8"].bits == 8
