"""The exact walk against the program executed instruction by instruction."""

from __future__ import annotations

import census
import jax
import numpy as np
import pytest
from running import run
from small_cases import Case, dyadic_rates, late_share_of_k, many_batches, several_images, small_case, small_size
from strategies import choose, stack

from kpu_jax.base.pytree import build
from kpu_jax.mapping import Mapping
from kpu_jax.model.exact import exact_cycles
from kpu_jax.model.moves import context
from kpu_jax.program import Opcode

traces: list[None] = []


@jax.jit
def walked(op, mapping, rates, rows, cols, rate, burst):
    traces.append(None)
    return exact_cycles(context(op, mapping, rates, rows, cols, rate, burst))


def walk(case: Case, rates) -> tuple[float, int]:
    """(makespan, steps walked) by the closed form."""
    op, mapping, *chip = case.numbers()
    with jax.enable_x64(True):
        cycles, steps = walked(op, mapping, jax.tree.map(float, rates), *chip)
    return float(cycles), int(steps)


def compare(cases: list[Case], rngs: list[np.random.Generator]) -> list[tuple[int, int]]:
    """[case]: (steps walked, passes); fails with the smallest case whose makespans differ."""
    failed, counts = [], []
    for case, rng in zip(cases, rngs, strict=True):
        rates, program = dyadic_rates(rng, case), case.program()
        executed, (cycles, steps) = run(program, rates).makespan, walk(case, rates)
        counts.append((steps, int(np.sum(program.opcode == Opcode.FABRIC_PASS))))
        if cycles != executed:
            failed.append((case, rates, cycles, executed))
    if failed:
        case, rates, cycles, executed = min(failed, key=lambda item: small_size(item[0]))
        pytest.fail(
            f"{len(failed)} of {len(cases)} disagree, the smallest: {case}, {rates}: walked {cycles}, executed {executed}"
        )
    return counts


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.long)])
def test_makespan_equals_the_executed_program(count):
    rngs = [np.random.default_rng((12, seed)) for seed in range(count)]
    cases = [small_case(rng) for rng in rngs]
    compare(cases, rngs)
    census.check(stack([case.mapping for case in cases]))
    assert len(traces) == 1, "one compilation serves all kinds, sizes, mappings and rates"


def test_a_compute_tile_that_joins_late_gets_no_partial_sums_back():
    rngs = [np.random.default_rng((15, seed)) for seed in range(10)]
    compare([late_share_of_k()] * len(rngs), rngs)


def test_a_leap_over_batches_ends_with_the_last_one():
    rngs = [np.random.default_rng((16, seed)) for seed in range(10)]
    counts = compare([many_batches()] * len(rngs), rngs)
    assert any(steps < passes for steps, passes in counts)


def test_a_leap_does_not_step_over_the_first_block_of_an_image():
    rngs = [np.random.default_rng((17, seed)) for seed in range(60)]
    counts = compare([several_images(2 + seed % 3) for seed in range(len(rngs))], rngs)
    assert any(steps < passes for steps, passes in counts)


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.long)])
def test_long_loops_are_leapt_over_exactly(count):
    rngs = [np.random.default_rng((13, seed)) for seed in range(count)]
    cases = [long_case(rng) for rng in rngs]
    counts = compare(cases, rngs)
    leapt = [(steps, passes) for steps, passes in counts if steps < passes]
    shares = [steps / passes for steps, passes in counts]
    longest = max(passes for _, passes in counts)
    print(
        f"{count} schedules of up to {longest} passes, {len(leapt)} leapt; "
        f"steps walked per pass {np.median(shares):.2f} (median)"
    )
    assert len(leapt) >= count // 4


def long_case(rng: np.random.Generator) -> Case:
    """A GEMM of several hundred passes, long in one or two directions."""
    long = [int(rng.integers(60, 400)), choose(rng, (1, 2, 5)), choose(rng, (1, 3))]
    case = small_case(rng, tuple(rng.permutation(long).tolist()))
    fields = {name: getattr(case.mapping, name) for name in Mapping.__dataclass_fields__}
    for level, most in (("l3", 24.0), ("l2", 6.0)):
        fields |= {f"{level}_{a}": np.minimum(fields[f"{level}_{a}"], most) for a in "mnk"}
    return case._replace(mapping=build(Mapping, **fields))
