"""The executor against a simulation by events, and what it says about idle engines."""

from __future__ import annotations

import numpy as np
import pytest
from durations import duration
from event_simulation import simulate_events
from running import run
from small_cases import dyadic_rates, small_case

import kpu_jax as kpu
from kpu_jax.base.errors import KPUError
from kpu_jax.program import Engine, Wait, execute, execute_durations, expand


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


CFG, GEMM = kpu.presets.minimal(), kpu.Gemm(20, 24, 40, bias=True)
MAPPING = kpu.Mapping(l3_tile=(16, 16, 16), l2_tile=(16, 8, 16))
PROGRAM = kpu.program.build(CFG, GEMM, MAPPING)


def test_a_timeline_prints_as_a_summary():
    timeline = execute(CFG, PROGRAM)
    head, _, _, columns, *rows = str(timeline).splitlines()
    assert head == repr(timeline) == f"Timeline of {len(PROGRAM)} instructions, {timeline.makespan:,.10g} fabric cycles"
    assert columns.split()[:2] == ["engine", "busy"] and len({len(row) for row in (columns, *rows)}) == 1
    assert [row.split()[0] for row in rows] == ["dma", "block_mover", "streamer", "fabric"]
    for row in rows:
        cycles = [float(word.replace(",", "")) for word in row.split()[1:]]
        assert sum(cycles) == pytest.approx(float(timeline.makespan), abs=0.3)
        assert cycles[0] == pytest.approx(timeline.busy_by_engine()[row.split()[0]], abs=0.05)
    stacked = timeline._replace(makespan=np.zeros(2))
    assert str(stacked) == repr(stacked) and "stacked" in repr(stacked)


@pytest.mark.parametrize(
    ("hold", "delay", "words"),
    [
        (np.ones(3), 0.0, r"hold must be \d+ numbers, one per instruction .* shape \(3,\)"),
        ("long", 0.0, "hold must be"),
        ([[1], [2, 3]], 0.0, "hold must be"),
        (np.ones(len(PROGRAM)), np.ones(2), "delay must be"),
        (np.where(np.arange(len(PROGRAM)) == 4, np.nan, 1), 0.0, "instruction 4 has hold = nan"),
        (np.where(np.arange(len(PROGRAM)) == 4, -1, 1), 0.0, "instruction 4 has hold = -1"),
        (np.ones(len(PROGRAM)), np.inf, "instruction 0 has delay = inf"),
        (np.ones(len(PROGRAM)), np.arange(len(PROGRAM)), r"instruction \d+ has delay = \d+, others of its engine \d+"),
    ],
)
def test_durations_from_outside_are_times(hold, delay, words):
    with pytest.raises(KPUError, match=words):
        execute_durations(PROGRAM, hold, delay)


@pytest.mark.parametrize("change", [{"rows": 0}, {"rows": 2.5}, {"cols": -1}, {"cols": "x"}, {"macs_per_pe": np.nan}, {"burst": 0}])
def test_an_array_to_expand_for_is_one(change):
    array = {"rows": 8, "cols": 8, "macs_per_pe": 1, "burst": 64}
    assert sum(1 for _ in expand(GEMM.plain(), MAPPING, **array)) > 10
    with pytest.raises(KPUError, match=next(iter(change))):
        expand(GEMM.plain(), MAPPING, **{**array, **change})
    with pytest.raises(KPUError, match="operation"):
        expand("gemm", MAPPING, **array)
