"""The executor against a simulation by events, and what it says about idle engines."""

from __future__ import annotations

import numpy as np
import pytest
from durations import duration
from event_simulation import simulate_events
from running import run
from small_cases import dyadic_rates, small_case

from kpu_jax.program import Engine, Wait


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_times_are_those_of_a_simulation_by_events(count):
    for seed in range(count):
        rng = np.random.default_rng((14, seed))
        case = small_case(rng)
        rates, program = dyadic_rates(rng, case), case.program()
        timeline = run(program, rates)
        expected = simulate_events(program, lambda i, p=program, r=rates: duration(p, i, r))
        for name, column in zip(("start", "end", "done"), zip(*expected, strict=True), strict=True):
            wrong = np.flatnonzero(getattr(timeline, name) != np.array([float(t) for t in column]))
            assert not wrong.size, (case, rates, name, wrong[:5])
        assert timeline.makespan == max(done for _, _, done in expected)


def idle_by_hand(program, timeline, engine):
    """Intervals in which no instruction of the engine works, from its own start and work times alone."""
    spans = [(timeline.start[i], timeline.end[i] - timeline.stall[i]) for i in np.flatnonzero(program.engine == engine)]
    now, gaps = 0.0, []
    for begin, end in [*spans, (timeline.makespan, timeline.makespan)]:
        if begin > now:
            gaps.append((now, begin))
        now = max(now, end)
    return gaps


@pytest.mark.parametrize("seed", range(40))
def test_every_idle_interval_has_its_length_and_a_reason(seed):
    rng = np.random.default_rng((18, seed))
    case = small_case(rng)
    program = case.program()
    timeline = run(program, dyadic_rates(rng, case))
    idle = timeline.idle()
    assert (idle.length > 0).all() and (idle.reason != Wait.NONE).all()
    for engine in set(program.engine.tolist()) - {Engine.CONTROL}:
        mine = idle.engine == engine
        busy = timeline.busy[engine]
        assert busy + idle.length[mine].sum() == timeline.makespan
        covered = sum(end - begin for begin, end in idle_by_hand(program, timeline, engine))
        assert covered == idle.length[mine].sum()
        begins, lengths = idle.start[mine], idle.length[mine]
        assert (begins[1:] >= begins[:-1] + lengths[:-1]).all()
    for start, length, reason, i in zip(idle.start, idle.length, idle.reason, idle.instruction, strict=True):
        if reason in (Wait.OPERAND, Wait.BUFFER):
            needed = [(timeline.done[j], kind) for j, kind in zip(program.needs[i], program.need_kind[i], strict=True) if j >= 0]
            assert max(needed)[0] == start + length == timeline.start[i]
            assert (max(needed)[0], reason - Wait.OPERAND) in needed
