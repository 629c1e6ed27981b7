"""Every built program passes; broken ones are rejected with the instruction's number and text."""

from __future__ import annotations

import numpy as np
import pytest
from small_cases import small_case

import kpu_jax as kpu
from kpu_jax.base.errors import KPUError
from kpu_jax.program import Engine, Need, Opcode, Operand, check_program, execute, execute_durations, traffic, wire
from kpu_jax.program.contents import NUMBERS
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


def without(program, i):
    """The program with NOP in place of instruction i, whose waits the NOP keeps."""
    return changed(program, i, opcode=Opcode.NOP, operand=Operand.NONE, engine=Engine.CONTROL, queue=Engine.CONTROL)


def test_every_move_and_pass_is_missed():
    tried = 0
    for rng, _, cfg, program in some_cases(40, 24):
        rows = np.flatnonzero(program.engine != Engine.CONTROL)
        outwards = np.flatnonzero(np.isin(program.opcode, (Opcode.STR_DRAIN_OUTPUT, Opcode.BM_WRITEBACK_TILE, Opcode.DMA_STORE_TILE)))
        for i in {int(rng.choice(rows)), int(rng.choice(outwards))}:
            with pytest.raises(KPUError, match="instruction"):
                check_program(cfg, without(program, i))
            tried += 1
    assert tried > 60


def test_every_number_is_that_of_the_block():
    tried = 0
    for rng, _, cfg, program in some_cases(40, 25):
        i = int(rng.choice(np.flatnonzero(program.engine != Engine.CONTROL)))
        name = str(rng.choice(NUMBERS))
        value = getattr(program, name)[i]
        with pytest.raises(KPUError, match=f"instruction {i} (has {name}=|moves|overflows|reads)"):
            check_program(cfg, changed(program, i, **{name: value + 1}))
        tried += 1
    assert tried == 40


def spilling():
    """A program whose partial sums leave and return at every level, and its chip."""
    cfg = SMALL.replace({"on_chip_memory.l3.tile_capacity_kb": 64})
    mapping = kpu.Mapping(l3_tile=(8, 8, 8), l2_tile=(8, 8, 8), l3_order="kmn", l2_order="kmn")
    return cfg, kpu.program.build(cfg, kpu.Gemm(16, 16, 16, dtype="int8"), mapping)


def test_partial_sums_that_never_left_do_not_return():
    cfg, program = spilling()
    check_program(cfg, program)
    spills = np.flatnonzero(np.array([program.labels[i] for i in program.label]) == "spill partial sums")
    assert len(spills) >= 4
    broken = program
    for i in spills:
        broken = without(broken, i)
    with pytest.raises(KPUError, match="before it is there|that is missing"):
        check_program(cfg, broken)
    first, last = spills[0], spills[-1]
    late = changed(program, first, tile=program.tile[last])  # the right number of moves, not of each block
    with pytest.raises(KPUError, match="instruction"):
        check_program(cfg, late)


def test_the_result_leaves_and_the_operation_is_done_whole():
    store = int(np.flatnonzero(PROGRAM.opcode == Opcode.DMA_STORE_TILE)[-1])
    with pytest.raises(KPUError, match=r"instruction \d+ comes before a move of the mapping that is missing, DMA_STORE_TILE C"):
        check_program(SMALL, without(PROGRAM, store))
    short = kpu.program.build(SMALL, kpu.Gemm(16, 24, 40, dtype="int8", bias=True), kpu.Mapping(l3_tile=(16, 16, 16), l2_tile=(16, 8, 16)))
    with pytest.raises(KPUError, match="ends the program, and passes are missing from batch=0 ti=1"):  # one more L3 block along M
        check_program(SMALL, short.replace(op=PROGRAM.op))
    with pytest.raises(KPUError, match="do not cover the operation"):
        check_program(SMALL, PROGRAM.replace(op=kpu.Gemm(2**20, 24, 40, dtype="int8", bias=True).plain()))
    with pytest.raises(KPUError, match="one pass more"):
        check_program(SMALL, PROGRAM.replace(op=kpu.Gemm(16, 24, 40, dtype="int8", bias=True).plain()))
    halted = changed(PROGRAM, len(PROGRAM) - 2, opcode=Opcode.HALT, operand=0, engine=Engine.CONTROL, queue=Engine.CONTROL)
    with pytest.raises(KPUError, match="comes after HALT"):
        check_program(SMALL, halted)


def swapped(program, i):
    """The program with instructions i and i + 1 in the other order; for the second, the first waits for what its engine did before."""
    earlier = np.flatnonzero(program.engine[:i] == program.engine[i])
    order = np.arange(len(program))
    order[[i, i + 1]] = i + 1, i
    columns = {name: column[order].copy() for name, column in program.columns().items()}
    needs = np.where(np.isin(columns["needs"], (i, i + 1)), 2 * i + 1 - columns["needs"], columns["needs"])
    needs[i] = np.where(needs[i] >= i, earlier[-1] if len(earlier) else -1, needs[i])
    return program.replace(**{**columns, "needs": needs})


@pytest.mark.parametrize("first", [Opcode.STR_DRAIN_OUTPUT, Opcode.BM_WRITEBACK_TILE, Opcode.DMA_STORE_TILE])
def test_what_leaves_is_the_newest(first):
    cfg = SMALL.replace({"on_chip_memory.l3.tile_capacity_kb": 64})
    mapping = kpu.Mapping(l3_tile=(32, 16, 8), l2_tile=(16, 16, 8), l3_order="kmn", l2_order="kmn")
    program = kpu.program.build(cfg, kpu.Gemm(32, 32, 16, dtype="int8", data_on="host"), mapping)
    check_program(cfg, program)
    second = {Opcode.STR_DRAIN_OUTPUT: Opcode.BM_WRITEBACK_TILE, Opcode.BM_WRITEBACK_TILE: Opcode.DMA_STORE_TILE}
    follows = second.get(first, Opcode.HOST_STORE_TILE)
    pairs = np.flatnonzero((program.opcode[:-1] == first) & (program.opcode[1:] == follows))
    assert len(pairs)
    broken = swapped(program, int(pairs[-1]))
    with pytest.raises(KPUError, match="after it left from there"):
        check_program(cfg, broken)


def test_a_bias_waits_and_is_waited_for():
    feeds = np.flatnonzero((PROGRAM.opcode == Opcode.STR_BROADCAST_COL) & (PROGRAM.operand == Operand.BIAS))
    i = int(feeds[-1])  # its columns have had their bias before, for another block of C
    operands = np.where(PROGRAM.need_kind[i] == Need.OPERAND, -1, PROGRAM.needs[i])
    with pytest.raises(KPUError, match=f"instruction {i} reads BIAS .* without waiting for"):
        check_program(SMALL, changed(PROGRAM, i, needs=operands))
    moves = np.flatnonzero((PROGRAM.opcode == Opcode.BM_MOVE_TILE) & (PROGRAM.operand == Operand.BIAS))
    waiting = [i for i in moves if np.any((PROGRAM.need_kind[i] == Need.BUFFER) & (PROGRAM.needs[i] >= 0))]
    i = int(waiting[-1])
    buffers = np.where(PROGRAM.need_kind[i] == Need.BUFFER, -1, PROGRAM.needs[i])
    with pytest.raises(KPUError, match=f"instruction {i} overflows l2: it overwrites C .* without waiting for"):
        check_program(SMALL, changed(PROGRAM, i, needs=buffers))


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
    for check in (check_program,) if words.startswith("overflows") else (check_program, execute):
        with pytest.raises(KPUError, match=words) as error:
            check(SMALL, broken)
        assert f"instruction {i} " in str(error.value)
        assert instruction_text(broken, i) in str(error.value)
    if not words.startswith(("overflows", "of DMA")):  # what needs no chip
        for use in (wire, traffic, lambda program: execute_durations(program, np.ones(len(program)))):
            with pytest.raises(KPUError, match=words):
                use(broken)


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
        ({"labels": [1, 2]}, "tuple of texts"),
        ({"rows": "x"}, "rows must be an integer"),
        ({"needs": np.full(PROGRAM.needs.shape, "x")}, "needs must be a NumPy array of int32"),
        ({"op": None}, "program.op"),
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
    with pytest.raises(KPUError, match=r"an array of rows 8 \(the chip has 16\).*FABRIC_PASS"):
        execute(SMALL.replace({"compute.processor_array": {"rows": 16, "cols": 8}}), PROGRAM)
    with pytest.raises(KPUError, match=r"a memory of burst 64 \(the chip has 32\).*DMA_LOAD_TILE"):
        execute(SMALL.replace({"buses.burst_bytes": 32}), PROGRAM)
    for use in (check_program, execute):
        with pytest.raises(KPUError, match="kpu.program.build"):
            use(SMALL, "program")


def test_an_instruction_may_wait_for_a_start_only():
    i = int(np.flatnonzero(PROGRAM.opcode == Opcode.FABRIC_PASS)[0])
    with pytest.raises(KPUError, match="without waiting for"):
        check_program(SMALL, changed(PROGRAM, i, need_kind=Need.START))
