"""The closed form of the traffic against the program, instruction by instruction: every byte, exactly."""

from __future__ import annotations

import census
import jax
import numpy as np
import pytest
from small_cases import Case, late_share_of_k, small_case, small_size
from strategies import stack

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.mapping.visits import lay_out
from kpu_jax.model.traffic import LEVELS, OPERANDS, count_traffic
from kpu_jax.program import Engine, Operand, traffic

traces: list[None] = []


@jit_for(BATCH)
def counted(op, mapping, rows, cols, rate, burst):
    traces.append(None)
    counts = count_traffic(op, mapping, lay_out(op, mapping, rows, cols, rate), burst)
    return counts.reads, counts.writes, counts.bursts


def differences(case: Case) -> list[tuple]:
    """(what, closed form, walked) wherever the two disagree."""
    program = case.program()
    walked = traffic(program)
    with jax.enable_x64(True):
        reads, writes, bursts = jax.tree.map(float, counted(*case.numbers()))
    pairs = [
        ((kind, level, x), table[level][x], walked.get((kind, level, x), 0.0))
        for kind, table in (("read", reads), ("write", writes))
        for level in LEVELS
        for x in OPERANDS
    ]
    for x in OPERANDS:
        mine = (program.engine == Engine.DMA) & (program.operand == Operand[x.upper()])
        moved = float(program.burst_bytes[mine].sum())
        pairs.append((("bursts", x), bursts[x], moved))
    macs = float(program.macs.sum())
    pairs.append(("multiply-adds", small_size(case) if case.op.kind < 2 else 0, macs))
    return [pair for pair in pairs if pair[1] != pair[2]]


@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.long)])
def test_traffic_equals_the_walked_schedule(count):
    cases = [small_case(np.random.default_rng((11, seed))) for seed in range(count)]
    failed = [(case, diff) for case in cases if (diff := differences(case))]
    kinds = np.bincount([int(case.op.kind) for case in cases], minlength=3)
    print(f"{count} cases: {kinds[0]} GEMMs, {kinds[1]} convolutions, {kinds[2]} vector operations")
    census.check(stack([case.mapping for case in cases]))
    if failed:
        case, diff = min(failed, key=lambda item: small_size(item[0]))
        pytest.fail(f"{len(failed)} of {count} disagree, the smallest: {case}: {diff}")
    assert len(traces) == 1, "one compilation serves all kinds, sizes and mappings"


def test_a_compute_tile_that_joins_late_gets_no_partial_sums_back():
    assert not differences(late_share_of_k())
