"""Every built program passes; broken ones are rejected with the instruction's number and text."""

from __future__ import annotations

import numpy as np
import pytest
from small_cases import small_case

import kpu_jax as kpu
from kpu_jax.base.errors import KPUError
from kpu_jax.program import Engine, Need, Opcode, Operand, check_program
from kpu_jax.program.text import instruction_text

ROOMY = {
    "compute.tile_count": 4096, "on_chip_memory.l3.tile_capacity_kb": 1024, "on_chip_memory.l2.bank_count": 2**17,
    "on_chip_memory.l1.buffer_count": 2**20,
}  # fmt: skip
SMALL = kpu.presets.minimal()
PROGRAM = kpu.program.build(SMALL, kpu.Gemm(20, 24, 40, dtype="int8", bias=True), kpu.Mapping(l3_tile=(16, 16, 16), l2_tile=(16, 8, 16)))


def roomy_chip(case):
    """A chip on which the case fits."""
    changes = {**ROOMY, "compute.processor_array": {"rows": case.rows, "cols": case.cols}, "buses.burst_bytes": case.burst}
    return kpu.presets.edge_ai().replace({**changes, **{f"precision.macs_{bits}": case.rate for bits in (32, 16, 8, 4)}})


def some_cases(count, seed):
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        case = small_case(rng)
        yield rng, case, roomy_chip(case), case.program()


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_every_built_program_passes(count):
    for _, case, cfg, program in some_cases(count, 20):
        check_program(cfg, program)
    check_program(SMALL, PROGRAM)


def known_at_start(program):
    """[n][n] bool: is it certain that an instruction is complete when another starts? Written apart from the validator."""
    n = len(program)
    complete = np.zeros((n, n), bool)
    last: dict[int, int] = {}
    for i in range(n):
        queue = int(program.queue[i])
        if queue in last:
            complete[i] |= complete[last[queue]]
        for need in program.needs[i]:
            if need >= 0:
                before = (program.queue == program.queue[need]) & (program.engine == program.engine[need])
                complete[i] |= complete[need]
                complete[i] |= before & (np.arange(n) <= need)
        last[queue] = i
    return complete


def test_a_prerequisite_that_orders_anything_is_missed():
    missed = tried = 0
    for rng, case, cfg, program in some_cases(40, 21):
        if len(program) > 400:
            continue
        certain = known_at_start(program)
        for i, p in rng.permutation(np.argwhere(program.needs >= 0))[:6]:
            needs = program.needs.copy()
            needs[i, p] = -1
            broken = program.replace(needs=needs)
            if np.array_equal(known_at_start(broken), certain):
                check_program(cfg, broken)  # other prerequisites imply it
                continue
            tried += 1
            try:
                check_program(cfg, broken)
                missed += 1
                print("missed", i, p, instruction_text(program, i), case)
            except KPUError as error:
                assert "without waiting for" in str(error)
    print(f"{missed} of {tried} missed")
    assert tried > 60 and missed == 0


def changed(program, i, **values):
    """The program with other entries in row i."""
    columns = {name: getattr(program, name).copy() for name in values}
    for name, value in values.items():
        columns[name][i] = value
    return program.replace(**columns)


def test_a_block_that_is_never_loaded_is_missed():
    tried = 0
    for rng, _, cfg, program in some_cases(40, 22):
        rows = np.flatnonzero(np.isin(program.operand, (Operand.A, Operand.B)) & (program.engine != Engine.HOST))
        i = int(rng.choice(rows))
        with pytest.raises(KPUError, match="before it is there|without waiting for"):
            check_program(cfg, changed(program, i, opcode=Opcode.NOP, engine=Engine.CONTROL, queue=Engine.CONTROL))
        tried += 1
    assert tried == 40


def test_a_block_from_elsewhere_is_missed():
    for rng, _, cfg, program in some_cases(40, 23):
        moves = np.flatnonzero((program.engine == Engine.BLOCK_MOVER) | (program.engine == Engine.STREAMER))
        i = int(rng.choice(moves))
        tile = program.tile[i].copy()
        level, axis = rng.choice(np.argwhere(tile >= 0))
        tile[level, axis] += 1
        with pytest.raises(KPUError, match="instruction"):
            check_program(cfg, changed(program, i, tile=tile))


LOAD = int(np.flatnonzero(PROGRAM.opcode == Opcode.DMA_LOAD_TILE)[1])
BROKEN = {
    "a later one": (LOAD, {"needs": [LOAD + 3, -1], "need_kind": 0}),
    "needs itself": (LOAD, {"needs": [LOAD, -1]}),
    "does not exist": (LOAD, {"needs": [len(PROGRAM) + 5, -1]}),
    "need of an unknown kind": (LOAD + 3, {"need_kind": 7}),
    "unknown opcode": (LOAD, {"opcode": 99}),
    "is a loop": (len(PROGRAM) - 1, {"opcode": Opcode.LOOP_BEGIN}),
    "unknown operand": (LOAD, {"operand": 9}),
    "moves no operand": (LOAD, {"operand": 0}),
    "does not serve its opcode": (LOAD, {"engine": Engine.STREAMER}),
    "bytes that is not a finite": (LOAD, {"bytes": np.nan}),
    "burst_bytes that is not a finite": (LOAD, {"burst_bytes": -1.0}),
    "stream that is not a finite": (LOAD, {"stream": np.inf}),
    "negative height": (LOAD, {"height": -3}),
    "negative queue": (LOAD, {"queue": -3}),
    "of DMA, of which the chip has 1": (LOAD, {"queue": 11}),
    "a label that is not": (LOAD, {"label": 400}),
    "an index below": (LOAD, {"tile": -2}),
    "overflows l3": (LOAD, {"bytes": 1e6}),
}


@pytest.mark.parametrize("words", BROKEN)
def test_nonsense_is_rejected_with_number_and_text(words):
    i, values = BROKEN[words]
    if "needs" in values:
        values = {**values, "needs": np.array(values["needs"] + [-1] * PROGRAM.needs.shape[1])[: PROGRAM.needs.shape[1]]}
    broken = changed(PROGRAM, i, **values)
    with pytest.raises(KPUError, match=words) as error:
        check_program(SMALL, broken)
    assert f"instruction {i} " in str(error.value)
    assert instruction_text(broken, i) in str(error.value)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"bytes": PROGRAM.bytes[:-1]}, "bytes has the shape"),
        ({"tile": PROGRAM.tile[:, :2]}, "tile has the shape"),
        ({"needs": PROGRAM.needs[:, 0]}, "needs has the shape"),
        ({"bytes": PROGRAM.bytes.astype(np.float32)}, "must be a NumPy array of float64"),
        ({"opcode": PROGRAM.opcode.tolist()}, "must be a NumPy array"),
        ({"rows": np.float64(0)}, "rows must be an integer"),
        ({"labels": ("same", "same")}, "twice"),
        ({"mapping": PROGRAM.mapping.__class__(l3_tile=(2, 2, 2), l2_tile=(2, 2, 2))}, "instruction"),
    ],
)
def test_wrong_columns_and_headers(columns, words):
    with pytest.raises(KPUError, match=words):
        check_program(SMALL, PROGRAM.replace(**columns))


def test_a_chip_that_lacks_what_the_program_needs():
    small_l3 = SMALL.replace({"on_chip_memory.l3.tile_capacity_kb": 1})
    with pytest.raises(KPUError, match="instruction 0 does not fit the chip: L3 overflows by .* DMA_LOAD_TILE"):
        check_program(small_l3, PROGRAM)
    small_l2 = SMALL.replace({"on_chip_memory.l2.bank_capacity_kb": 0.25})
    with pytest.raises(KPUError, match="L2 of a compute tile overflows by .* BM_MOVE_TILE"):
        check_program(small_l2, PROGRAM)
    with pytest.raises(KPUError, match=r"an array of rows 8 \(the chip has 16\).*FABRIC_PASS"):
        check_program(SMALL.replace({"compute.processor_array": {"rows": 16, "cols": 8}}), PROGRAM)
    with pytest.raises(KPUError, match="kpu.program.build"):
        check_program(SMALL, "program")


def test_an_instruction_may_wait_for_a_start_only():
    i = int(np.flatnonzero(PROGRAM.opcode == Opcode.FABRIC_PASS)[0])
    with pytest.raises(KPUError, match="without waiting for"):
        check_program(SMALL, changed(PROGRAM, i, need_kind=Need.START))
