"""Plots of one run, and the numbers behind them: when engines work, what memories hold, how the wave passes the array."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.analysis.occupancy import MEMORIES, movement, occupancy, stays
from kpu_jax.program import Engine, Operand

plots = kpu.visualization
CHIP = kpu.presets.edge_ai().replace({"compute.processor_array.rows": 4, "compute.processor_array.cols": 4, "compute.tile_count": 2})
FLOWS = ("output_stationary", "weight_stationary", "input_stationary")


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture(scope="module", params=FLOWS)
def ran(request):
    """(program, timeline) of a small product under each dataflow, K in parts and M double-buffered."""
    mapping = kpu.Mapping(dataflow=request.param, l3_tile=(16, 12, 20), l2_tile=(8, 8, 20), buffering=("double", "double", "double"))
    program = kpu.program.build(CHIP, kpu.Gemm(30, 24, 40, dtype="int8"), mapping)
    return program, kpu.program.execute(CHIP, program)


def test_the_timeline_shows_all_time_of_every_engine(ran):
    _, timeline = ran
    ax = plots.plot_timeline(timeline)
    ax.get_figure().canvas.draw()
    engines = sorted(set(timeline.engine.tolist()) - {Engine.CONTROL.value})
    filled = np.zeros(len(engines))
    for collection in ax.collections:
        for path in collection.get_paths():
            (x0, y0), (x1, y1) = path.vertices.min(0), path.vertices.max(0)
            filled[round((y0 + y1) / 2)] += x1 - x0
    busy = timeline.busy_by_engine()
    idle = timeline.idle_by_reason()
    names = [Engine(e).name.lower() for e in engines]
    assert filled == pytest.approx([busy[x] + sum(idle.get(x, {}).values()) for x in names])
    assert filled == pytest.approx(float(timeline.makespan))
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [f"{x.replace('_', ' ')}\n{100 * busy[x] / timeline.makespan:.0f} % busy" for x in names]
    assert "[fabric cycles]" in ax.get_xlabel()


def test_a_window_and_a_long_run(ran):
    _, timeline = ran
    ax = plots.plot_timeline(timeline, start=20, end=60)
    assert ax.get_xlim() == (20, 60)
    mapping = kpu.Mapping(l3_tile=(64, 64, 64), l2_tile=(4, 4, 64))
    chip = CHIP.replace({"compute.tile_count": 1})
    program = kpu.program.build(chip, kpu.Gemm(128, 128, 64), mapping)
    ax = plots.plot_timeline(kpu.program.execute(chip, program))
    ax.get_figure().canvas.draw()
    assert any("intervals, shown as shares" in t.get_text() for t in ax.texts)
    for start, words in ((1e9, "nothing happens after"), (-1, "start must be")):
        with pytest.raises(kpu.KPUError, match=words):
            plots.plot_timeline(timeline, start=start)


def test_what_memories_hold_is_what_the_machine_counts(ran):
    """Most bytes at once, one instruction after the other, against the machine, which moves the numbers themselves."""
    program, timeline = ran
    rng = np.random.default_rng(0)
    numbers = {"A": rng.integers(-9, 9, (30, 40), np.int8), "B": rng.integers(-9, 9, (40, 24), np.int8)}
    done = kpu.machine.run(program, numbers, fabric="tiles")
    at = np.arange(len(program), dtype=float)
    in_order = stays(program, timeline._replace(start=at, end=at + 1, done=at + 1, makespan=np.float64(len(at))))
    for index, memory in enumerate(MEMORIES):
        own = in_order.memory == index
        until = in_order.end.copy()
        for key in set(zip(in_order.operand[own].tolist(), in_order.place[own].tolist(), strict=True)):
            of_place = np.flatnonzero(own & (in_order.operand == key[0]) & (in_order.place == key[1]))
            if key[0] != Operand.C:  # the machine gives a place of A or B back when the next block takes it
                until[of_place] = np.append(in_order.start[of_place][1:], len(at))
        held = [in_order.bytes[own & (in_order.start <= t) & (until > t)].sum() for t in np.unique(in_order.start[own])]
        assert max(held) == done.high_water[memory], memory
    found = stays(program, timeline)
    assert np.all(found.end > found.start) and np.all(found.end <= timeline.makespan)
    a_in_l3 = (found.memory == 0) & (found.operand == Operand.A)
    assert found.bytes[a_in_l3].max() == 16 * 20 and set(found.place[a_in_l3].tolist()) == {0, 1}
    for place in (0, 1):  # a place holds one block at a time
        first = np.argsort(found.start[a_in_l3 & (found.place == place)])
        begin, end = (v[a_in_l3 & (found.place == place)][first] for v in (found.start, found.end))
        assert np.all(begin[1:] >= end[:-1])


def test_heat_maps_keep_every_byte(ran):
    program, timeline = ran
    moved = movement(program, timeline, bins=37)
    own = program.engine < Engine.FABRIC
    assert (moved.values * np.diff(moved.edges)).sum() == pytest.approx(program.bytes[own].sum())
    held, found = occupancy(program, timeline, bins=23), stays(program, timeline)
    assert (held.values * np.diff(held.edges)).sum() == pytest.approx((found.bytes * (found.end - found.start)).sum())
    for show, grid in (("occupancy", held), ("movement", moved)):
        ax = plots.plot_memory_heatmap(program, timeline, show=show, bins=len(grid.edges) - 1)
        ax.get_figure().canvas.draw()
        shares = ax.collections[0].get_array().reshape(grid.values.shape)
        assert np.allclose(shares, 100 * grid.values / grid.values.max(1, keepdims=True))
        assert [t.get_text().split(":")[0] for t in ax.get_yticklabels()] == grid.rows and "[fabric cycles]" in ax.get_xlabel()
    with pytest.raises(kpu.KPUError, match="program has"):
        plots.plot_memory_heatmap(program, timeline._replace(start=timeline.start[1:]))
    with pytest.raises(kpu.KPUError, match="bins"):
        plots.plot_memory_heatmap(program, timeline, bins=0)


def test_a_reports_heat_map_has_its_bytes():
    mapping = kpu.Mapping(l3_tile=(64, 64, 64), l2_tile=(16, 16, 64))
    report = kpu.simulate(CHIP, kpu.Gemm(64, 64, 64), mapping, timing="bound")
    ax = plots.plot_memory_heatmap(report)
    ax.get_figure().canvas.draw()
    shown = np.nansum(np.ma.filled(ax.images[0].get_array(), 0))
    total = sum(sum(level.values()) for level in report.traffic.values())
    assert shown * 1e3 == pytest.approx(total) and len(ax.texts) == 24


@pytest.mark.parametrize(("flow", "m", "n", "k"), [(FLOWS[0], 3, 5, 7), (FLOWS[1], 7, 5, 3), (FLOWS[2], 5, 7, 3)])
def test_the_wave_is_a_diagonal(flow, m, n, k):
    """PE (i, j) sees its operands i + j cycles late: against indices counted by hand."""
    activity = kpu.machine.wave(m, n, k, rows=4, cols=6, dataflow=flow)
    preload = 0 if flow == FLOWS[0] else 4
    used = {"output_stationary": (m, n), "weight_stationary": (k, n), "input_stationary": (k, m)}[flow]
    expected = np.zeros(activity.fired.shape, int)
    for i in range(used[0]):
        for j in range(used[1]):
            expected[preload + i + j : preload + i + j + 7, i, j] = 1
    assert np.array_equal(activity.fired, expected) and activity.fired.sum() == m * n * k


def test_the_wave_can_be_watched(tmp_path):
    activity = kpu.machine.wave(3, 5, 7, rows=4, cols=6)
    film = plots.animate_wave(activity)
    film.save(tmp_path / "wave.gif", writer="pillow", dpi=30)
    assert (tmp_path / "wave.gif").stat().st_size > 1000
    image = film._fig.axes[0].images[0]
    film._draw_frame(4)
    assert np.array_equal(image.get_array(), activity.fired[4])
    ax = plots.plot_pe_activity(activity)
    assert ax.images[0].get_array().sum() == 3 * 5 * 7 and any("never fire" in t.get_text() for t in ax.texts)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [({"m": 5}, "m must be"), ({"k": 0}, "k must be"), ({"rows": 9999}, "rows must be"), ({"dataflow": "row"}, "dataflow")],
)
def test_a_block_that_does_not_fit_the_array_is_named(sizes, words):
    with pytest.raises(kpu.KPUError, match=words):
        kpu.machine.wave(**({"m": 3, "n": 3, "k": 3, "rows": 4, "cols": 4} | sizes))
