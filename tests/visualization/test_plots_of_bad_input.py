"""Whatever a plot is given, it draws a picture that can be read, or says what is wrong."""

from __future__ import annotations

import dataclasses
import math
import warnings

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

import kpu_jax as kpu

plots = kpu.visualization
CHIP = kpu.presets.edge_ai()
GEMM = kpu.Gemm(64, 64, 64)
NET = kpu.Workload.from_ops([("p $a_", GEMM), ("q", kpu.Gemm(128, 64, 64)), ("v", kpu.VectorOp(4096, function="gelu"))])
MAPPING = kpu.Mapping(l3_tile=(64, 64, 64), l2_tile=(16, 16, 64))
WEIRD = [None, "", "x", 0, math.nan, True, [], {}, [None], [[]], [[1], [1, 2]], {"a": None}, {"a": {}}, {"": math.inf}, object(),
         np.ones(3), np.ones((0, 3)), np.array(["a"])]  # fmt: skip
NO_NUMBERS = [math.nan, math.inf, -math.inf, 1e300, 1e-300, 10**400, "1", True, 1j, None, np.ones(2), [1.0]]  # or none that fits on an axis
ALL = [name for name in plots.__all__ if name != "svg_of"]


@pytest.fixture(autouse=True)
def close():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Animation was deleted")
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def whole():
    return kpu.simulate(CHIP, NET, MAPPING, timing="bound")


@pytest.fixture(scope="module")
def single(whole):
    return jax.tree.map(lambda v: v[0], whole.per_op)


@pytest.fixture(scope="module")
def ran():
    program = kpu.program.build(CHIP, kpu.Gemm(30, 24, 40), kpu.Mapping(l3_tile=(16, 12, 20), l2_tile=(8, 8, 20)))
    return program, kpu.program.execute(CHIP, program)


def row(number, **changed):
    return {
        "chip": number, "tile_count": 1.0 + number % 3, "latency_ms": 1 + number / 10, "energy_mj": 3 - number / 10, "area_mm2": 3.0,
        "edp_js": 1e-6, "power_w": 1.0, "tdp_w": 2.0, "meets": True, "pareto": True,
    } | changed  # fmt: skip


def readable(plot, *arguments, draw=True, **options):
    """True for a picture whose limits and texts are finite and named, False for a `KPUError` of one clear line."""
    try:
        ax = plot(*arguments, **options)
    except kpu.KPUError as error:
        assert 20 < len(str(error)) < 900 and "Traceback" not in str(error)
        return False
    if not isinstance(ax, plt.Axes):
        ax = ax._fig.axes[0]
    if draw:
        ax.get_figure().draw_without_rendering()
    assert np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all() and ax.get_xlim()[0] != ax.get_xlim()[1]
    texts = [text.get_text() for text in [*ax.texts, *ax.get_yticklabels(), ax.title]]
    assert not any(word in text.split() for text in texts for word in ("nan", "inf", "-inf"))
    width, height = ax.get_figure().get_size_inches()
    assert 2 < width < 26 and 1 < height < 20, "too large to look at"
    plt.close("all")
    return True


@pytest.mark.parametrize("name", ALL)
def test_data_of_another_kind_are_named(name):
    for value in WEIRD:
        assert not readable(getattr(plots, name), value), value


@pytest.mark.parametrize("name", ALL)
def test_axes_that_are_none_are_named(name, whole, single, ran):
    data = {"plot_roofline": kpu.analysis.roofline(CHIP, NET, whole), "plot_graph": NET, "plot_timeline": ran[1],
            "plot_pe_activity": np.ones((2, 2)), "animate_wave": np.ones((2, 2, 2)), "plot_pareto": [row(0), row(1)],
            "plot_sweep": [row(0), row(1)]}.get(name, single)  # fmt: skip
    with pytest.raises(kpu.KPUError, match="ax must be an Axes"):
        getattr(plots, name)(data, ax=[1])


def test_reports_that_hold_no_answer_are_named(whole, single):
    stacked = jax.tree.map(lambda v: np.stack([v, v]), single)
    infeasible = dataclasses.replace(single, status_code=np.float64(1), overflow=np.float64(5), cycles=np.float64(np.inf))
    broken = [
        infeasible, stacked, dataclasses.replace(single, seconds=np.float64(np.nan)), jax.tree.map(lambda v: v * 0, single),
        dataclasses.replace(single, energy=single.energy | {"l1": np.float64(np.inf)}),
        dataclasses.replace(whole, per_op=dataclasses.replace(whole.per_op, seconds=np.array([1e-6, np.nan, 1e-6]))),
    ]  # fmt: skip
    for report in broken:
        for plot in (plots.plot_performance, plots.plot_energy_breakdown, plots.plot_memory_heatmap):
            assert not readable(plot, report)
        for plot in (plots.plot_performance, plots.plot_energy_breakdown):
            assert not readable(plot, {"good": single, "bad": report})
    for report in (single, whole):  # the same as they came
        for plot in (plots.plot_performance, plots.plot_energy_breakdown, plots.plot_memory_heatmap):
            assert readable(plot, report)
    with pytest.raises(kpu.KPUError, match=r"per_op\.seconds of the report is not finite"):
        plots.plot_performance(broken[-1])


@pytest.mark.parametrize("number", NO_NUMBERS, ids=lambda n: repr(n)[:12])
def test_numbers_that_no_axis_holds_are_named(number, ran):
    for results in ({"a": number}, {"a": number, "b": 1.0}, {"a": {"seconds": number}}, {"a": {1: number, 2: 1.0}}):
        assert not readable(plots.plot_performance, results)
    if isinstance(number, (int, float)) and number is not True:
        assert not readable(plots.plot_performance, {"a": {number: 1.0, 3: 1.0}})
    for column in ("area_mm2", "tile_count", "meets"):
        if column == "meets" and number is True:
            continue
        rows = [row(0), row(1), row(2, **{column: number})]
        assert not readable(plots.plot_sweep, rows) or column == "tile_count", "text is no field that varies"
        assert not readable(plots.plot_pareto, rows) or column == "tile_count"
    open_ended = isinstance(number, float) and not math.isfinite(number)  # the time of a chip on which nothing fits
    late = [row(0), row(1), row(2, latency_ms=number)]
    assert readable(plots.plot_pareto, late, draw=False) == readable(plots.plot_sweep, late, draw=False) == open_ended
    program, timeline = ran
    for call in (
        lambda: plots.plot_timeline(timeline, start=number), lambda: plots.plot_memory_heatmap(program, timeline, bins=number),
        lambda: plots.animate_wave(np.ones((3, 2, 2)), interval_ms=number), lambda: plots.plot_pe_activity([number]),
    ):  # fmt: skip
        assert not readable(call)


@pytest.mark.parametrize("rows", [[row(0), {"chip": 2}], [row(0), {k: v for k, v in row(1).items() if k != "tile_count"}], [row(0), None]])
def test_rows_that_are_not_whole_are_named(rows):
    assert not readable(plots.plot_sweep, rows)
    assert not readable(plots.plot_pareto, rows) or "tile_count" not in rows[1]
    assert readable(plots.plot_pareto, [row(i, energy_mj=0.0) for i in range(3)])
    with pytest.raises(kpu.KPUError, match=r"latency_ms must be .* \[ms\]"):
        plots.plot_pareto([row(0, latency_ms="fast")])


def test_names_that_do_not_fit_are_named(whole, single):
    for plot in (plots.plot_performance, plots.plot_energy_breakdown):
        for names in (5, "ab", [None, None], ["a", "a"], ["one"]):
            assert not readable(plot, [single, single], names=names)
        assert readable(plot, [single, single], names=["$a_", "$\\x"])
    assert not readable(plots.plot_performance, whole, names=5)


def test_one_of_each_is_a_picture(whole, single, ran):
    one = dataclasses.replace(whole, per_op=jax.tree.map(lambda v: v[:1], whole.per_op))
    vector = jax.tree.map(lambda v: v[2], whole.per_op)
    mixed = {"product": single, "vector": vector, "seconds": 1e-5, "benchmark": {"seconds": 2e-5}}
    for results in (one, {"a": 0.0}, {"a": {1: 2.0}}, mixed):
        assert readable(plots.plot_performance, results)
    for results in ([single, vector], {"a": {1: 1.0}, "b": 1.0}):
        assert not readable(plots.plot_performance, results)
    assert not readable(plots.plot_performance, {"a": single, "b": 1.0}, measure="energy_pj")
    assert readable(plots.plot_pareto, [row(0)])
    assert readable(plots.plot_sweep, [row(0), row(1)]) and not readable(plots.plot_sweep, [row(0)])
    assert readable(plots.plot_graph, kpu.Workload.from_ops([("only", GEMM)]))
    assert readable(plots.plot_roofline, kpu.analysis.roofline(CHIP, GEMM, single))
    assert not readable(plots.plot_roofline, kpu.analysis.roofline(CHIP, kpu.VectorOp(4096, function="gelu"), vector))
    assert readable(plots.plot_pe_activity, np.zeros((1, 1))) and readable(plots.animate_wave, np.ones((1, 1, 1)))
    assert readable(plots.plot_timeline, ran[1], start=1.0, end=2.0)


def test_a_thousand_of_each_is_a_picture(whole):
    long = dataclasses.replace(whole, per_op=jax.tree.map(lambda v: np.concatenate([v] * 400), whole.per_op))
    ax = plots.plot_performance(long)
    longest = max(bar.get_width() for bar in ax.patches[:-1])
    assert longest > 0.2 * ax.get_xlim()[1], "the rows can be read beside the sum of the others"
    ax = plots.plot_performance({f"s{i}": {1: 2.0 + i} for i in range(1000)})
    assert max(len(line.get_xdata()) for line in ax.lines) == 1000, "series of one size are dots"
    wide = [row(i, **{f"field_{j}": float(i * j % 7) for j in range(1000)}) for i in range(20)]
    ax = plots.plot_sweep(wide)
    assert len(ax.get_xticks()) == 14 and any("10 strongest of" in text.get_text() for text in ax.texts)
    equal = [row(i, tile_count=float(i % 2), latency_ms=1.0, energy_mj=1.0) for i in range(1000)]
    assert readable(plots.plot_sweep, equal) and readable(plots.plot_pareto, equal) and readable(plots.plot_sweep, equal, kind="slice")


@pytest.mark.parametrize("field", ["bandwidth", "peak", "performance", "intensity"])
def test_a_roofline_that_holds_no_numbers_is_named(field, whole):
    roofs = kpu.analysis.roofline(CHIP, NET, whole)
    assert readable(plots.plot_roofline, roofs)
    values = np.array(getattr(roofs, field))
    values.flat[0] = np.nan
    with pytest.raises(kpu.KPUError, match=field):
        plots.plot_roofline(roofs._replace(**{field: values}))


def test_timelines_that_hold_no_times_are_named(ran):
    program, timeline = ran
    for bad in (
        timeline._replace(start=timeline.start * np.nan), jax.tree.map(lambda v: v[:0] if np.ndim(v) else v * 0, timeline),
        jax.tree.map(lambda v: np.stack([v, v]), timeline),
    ):  # fmt: skip
        assert not readable(plots.plot_timeline, bad) and not readable(plots.plot_memory_heatmap, program, bad)
