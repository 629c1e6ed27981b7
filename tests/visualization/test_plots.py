"""Plots, rendered: what they draw is what the data say, and what cannot be drawn is named."""

from __future__ import annotations

import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.analysis import sweep_table
from kpu_jax.analysis.roofline import roofline
from kpu_jax.base.units import unit_for
from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.visualization import style

plots = kpu.visualization
CHIP = kpu.presets.edge_ai()
NET = kpu.networks.mlp(batch=4)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def report():
    return kpu.simulate(CHIP, NET, kpu.Mapping(l3_tile=(4, 64, 64), l2_tile=(4, 64, 64)), timing="bound").check()


@pytest.fixture(scope="module")
def single(report):
    """The report of one operation."""
    return jax.tree.map(lambda v: v[0], report.per_op)


def draw(ax):
    """Render, as a file would be; returns what every text on the axes says."""
    ax.get_figure().canvas.draw()
    return [text.get_text() for text in ax.texts]


def overlaps(texts, ax):
    """Pairs of visible texts whose boxes share more than a sliver."""
    renderer = ax.get_figure().canvas.get_renderer()
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_text() and t.get_visible()]
    return [
        (a, b)
        for i, (a, one) in enumerate(boxes)
        for b, two in boxes[i + 1 :]
        if min(one.x1, two.x1) - max(one.x0, two.x0) > 2 and min(one.y1, two.y1) - max(one.y0, two.y0) > 2
    ]


def test_performance_bars_are_the_layers_times(report):
    ax = plots.plot_performance(report, NET.row_names)
    assert "[us]" in ax.get_xlabel()
    assert [bar.get_width() for bar in ax.patches] == pytest.approx((report.per_op.seconds * 1e6).tolist())
    assert [label.get_text() for label in ax.get_yticklabels()] == list(NET.row_names)
    assert draw(ax)[:3] == [f"{100 * u:.0f} %" for u in report.per_op.utilization]
    assert not overlaps(ax.get_yticklabels(), ax)


def test_many_rows_are_summed_up(report):
    many = jax.tree.map(lambda v: np.concatenate([v] * 20), report.per_op)
    whole = dataclasses.replace(report, per_op=many)
    ax = plots.plot_performance(whole, [f"row {i} of a very long name that does not fit" for i in range(60)])
    draw(ax)
    assert len(ax.patches) == style.MOST_BARS and ax.get_yticklabels()[-1].get_text() == "21 other rows"
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(many.seconds.sum() * 1e6)
    assert not overlaps(ax.get_yticklabels(), ax)


def test_results_are_bars_curves_or_ranks(single):
    ax = plots.plot_performance({"ours": single, "theirs": 2e-3, "benchmark": {"seconds": 1e-3, "gflops": 3.0}})
    assert [b.get_width() for b in ax.patches] == pytest.approx([single.seconds * 1e3, 2.0, 1.0]) and "[ms]" in ax.get_xlabel()
    ax = plots.plot_performance([single, single], names=["a", "b"], measure="energy_pj")
    assert [b.get_width() for b in ax.patches] == pytest.approx([single.energy_pj * 1e-6] * 2) and "[uJ]" in ax.get_xlabel()
    ax = plots.plot_performance({"a": {64: 1e-3, 128: 4e-3}, "b": {128: 3e-3, 64: 2e-3}})
    assert [line.get_xdata().tolist() for line in ax.lines] == [[64, 128]] * 2
    assert ax.lines[1].get_ydata().tolist() == pytest.approx([2, 3])
    assert len({line.get_marker() for line in ax.lines}) == len({line.get_linestyle() for line in ax.lines}) == 2
    hidden = plots.plot_performance({"_a": {1: 1.0, 2: 2.0}, "b" * 13 + "$" + "c" * 20: {1: 2.0, 2: 3.0}})
    assert [text.get_text() for text in hidden.get_legend().get_texts()] == [" _a", "b" * 12 + "…" + "c" * 13]
    assert hidden.get_ylabel() == "time [s]"
    assert plots.style.short("b" * 11 + "$" + "c" * 20) == "b" * 11 + r"\$…" + "c" * 13
    ranked = plots.plot_performance({f"chip {i}": (i * 7919 % 1000 + 1) * 1e-3 for i in range(1000)})
    assert np.all(np.diff(ranked.lines[0].get_ydata()) > 0) and len(ranked.lines[0].get_xdata()) == 1000
    assert "1,000 results" in ranked.get_title() and "chip 0" in draw(ranked)
    bundle = plots.plot_performance({str(i): {1: 1e-3 + i * 1e-6, 2: 2e-3} for i in range(1000)})
    assert "1,000 series" in bundle.get_title() and len(bundle.collections[0].get_paths()) == 1000
    draw(bundle)


def test_energy_bars_add_up(single):
    ax = plots.plot_energy_breakdown(single)
    assert sum(b.get_width() for b in ax.patches) == pytest.approx(single.energy_pj * 1e-6) and "[uJ]" in ax.get_xlabel()
    assert sum(float(t.split()[0]) for t in draw(ax) if t.endswith("%")) == pytest.approx(100, abs=0.5)
    ax = plots.plot_energy_breakdown({str(i): single for i in range(3)})
    ends = {round(b.get_y(), 6): b.get_x() + b.get_width() for b in ax.patches}
    assert list(ends.values()) == pytest.approx([single.energy_pj * 1e-6] * 3)
    looks = [(h.get_facecolor(), h.get_hatch()) for h in ax.get_legend().get_patches()]
    assert len(set(looks)) == len(looks) > 4
    ax = plots.plot_energy_breakdown({f"chip {i}": single for i in range(1000)})
    draw(ax)
    assert len(ax.get_yticklabels()) == 40 and ax.get_yticklabels()[-1].get_text() == "mean of 961 others"


def test_pareto_shows_every_exact_point_and_the_best(swept):
    ax = plots.plot_pareto(swept)
    draw(ax)
    _, exact = ax.collections
    assert len(exact.get_offsets()) == swept.retimed.meets.sum()
    marks = {line.get_label().split(":")[0]: line for line in ax.lines}
    for name in OBJECTIVES:
        point, _ = swept.retimed.best(name)
        assert marks[f"best {name}"].get_xdata()[0] == pytest.approx(swept.retimed.seconds[point] * 1e6)
    assert "[us]" in ax.get_xlabel() and "[uJ]" in ax.get_ylabel()
    front = marks["front of exact (latency, energy)"]
    assert np.all(np.diff(front.get_xdata()) > 0) and np.all(np.diff(front.get_ydata()) < 0)
    from_rows = plots.plot_pareto(sweep_table(swept))
    assert len(from_rows.collections[1].get_offsets()) == swept.retimed.meets.sum()


def test_pareto_of_one_chip_and_of_thousands():
    row = {"chip": 1, "latency_ms": 1.0, "energy_mj": 2.0, "area_mm2": 3.0, "meets": True, "pareto": True}
    draw(plots.plot_pareto([row]))
    rng = np.random.default_rng(0)
    pairs = enumerate(rng.uniform(1, 9, (3000, 2)))
    many = [row | {"chip": i, "latency_ms": a, "energy_mj": b, "meets": i % 2 == 0} for i, (a, b) in pairs]
    ax = plots.plot_pareto(many)
    draw(ax)
    far = plots.plot_pareto([many[0], many[0] | {"chip": -1, "energy_mj": 1e3 * many[0]["energy_mj"]}])
    assert far.get_yscale() == "log" and ax.get_yscale() == "linear"
    assert len(ax.collections[1].get_offsets()) == 1500 and "beyond the limits" in [line.get_label() for line in ax.lines]


def test_sweep_lines_and_slices(swept):
    ax = plots.plot_sweep(swept)
    draw(ax)
    assert len(ax.collections[0].get_paths()) == swept.retimed.meets.sum()
    names = [label.get_text().replace("\n", " ") for label in ax.get_xticklabels()]
    assert names[:2] == ["tile count [count]", "fabric [MHz]"] and "area [mm$^2$]" in names and "latency [us]" in names
    assert not overlaps(ax.get_xticklabels(), ax)
    ax = plots.plot_sweep(swept, kind="slice", field="fabric_mhz", measure="latency_ms")
    best = ax.lines[1]
    rows = [row for row in sweep_table(swept) if row["meets"]]
    least = [min(r["latency_ms"] for r in rows if r["fabric_mhz"] == mhz) * 1e3 for mhz in (500, 1000)]
    assert best.get_ydata().tolist() == pytest.approx(least) and best.get_xdata().tolist() == [500, 1000]
    assert ax.get_xlabel() == "fabric [MHz]" and ax.get_ylabel() == "latency [us]"
    many = [row | {"chip": i, "tile_count": float(i % 40)} for i, row in enumerate(rows * 100)]
    ax = plots.plot_sweep(many)
    draw(ax)
    assert len(ax.collections[0].get_paths()) <= 301 and any("shown" in t for t in draw(ax))


def test_roofline_points_lie_under_their_roofs(report):
    roofs = roofline(CHIP, NET, report)
    ax = plots.plot_roofline(roofs)
    draw(ax)
    points = [line for line in ax.lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    lines = {line.get_color(): line for line in ax.lines if len(line.get_xdata()) > 2 and line.get_linestyle() != "None"}
    carrying = np.isfinite(roofs.intensity).any(axis=1)
    assert len(points) == carrying.sum() and {p.get_color() for p in points} == set(lines)
    for each in points:
        roof = lines[each.get_color()]
        allowed = np.interp(np.log(each.get_xdata()), np.log(roof.get_xdata()), np.log(roof.get_ydata()))
        assert np.all(np.log(each.get_ydata()) <= allowed + 1e-3)
    assert "[Top/s]" in ax.get_ylabel() and "byte" in ax.get_xlabel()
    many = roofs._replace(
        peak=np.repeat(roofs.peak, 400), names=roofs.names * 400, performance=np.repeat(roofs.performance, 400),
        intensity=np.repeat(roofs.intensity, 400, axis=1),
    )  # fmt: skip
    assert "operations named" in "".join(draw(plots.plot_roofline(many)))


def test_graph_places_every_operation_below_what_it_reads():
    layers = [("in", kpu.Gemm(8, 8, 8), ()), ("left", kpu.Gemm(8, 9, 8), "in"), ("right", kpu.VectorOp(64, function="gelu"), "in"),
              ("out", kpu.Gemm(8, 8, 9), ("left", "right"))]  # fmt: skip
    ax = plots.plot_graph(kpu.Workload.from_ops(layers))
    texts = {t.get_text(): t.xy for t in ax.texts}
    assert texts["in"][1] < texts["left"][1] == texts["right"][1] < texts["out"][1] and texts["left"][0] != texts["right"][0]
    assert sum(len(c.get_paths()) for c in ax.collections) == 4
    assert not overlaps(ax.texts[:4], ax)
    chain = kpu.Workload.from_ops([(f"op {i}", kpu.Gemm(8, 8, 8)) for i in range(1000)])
    assert "chains joined: 1 nodes" in draw(plots.plot_graph(chain))[-1]
    wide = kpu.Workload.from_ops([("in", kpu.Gemm(8, 8, 8), ()), *[(f"op {i}", kpu.Gemm(8, 8, 8), ("in",)) for i in range(999)]])
    assert "too many to name" in draw(plots.plot_graph(wide))[-1]


def test_an_axes_may_be_given_and_is_returned(swept, report, single):
    _, axes = plt.subplots(2, 3)
    calls = [
        (plots.plot_pareto, swept), (plots.plot_performance, report), (plots.plot_energy_breakdown, single), (plots.plot_sweep, swept),
        (plots.plot_graph, NET), (plots.plot_roofline, roofline(CHIP, NET, report)),
    ]  # fmt: skip
    for (plot, data), ax in zip(calls, axes.ravel(), strict=True):
        assert plot(data, ax=ax) is ax
    plt.gcf().canvas.draw()


def test_the_colours_differ_in_grey_too():
    looks = [style.look(i) for i in range(16)]
    assert len({(x.colour, x.hatch) for x in looks}) == 16
    assert all(len({x.hatch for x in looks[i : i + 8]}) == len({x.marker for x in looks[i : i + 8]}) == 8 for i in (0, 8))


@pytest.mark.parametrize(
    ("values", "name"), [([0], "s"), ([3e-7], "ns"), ([2.0, 4e-3], "s"), ([1e-3], "ms"), ([999.9999], "s"), ([1e30], "Ps")]
)
def test_units_suit_the_largest_value(values, name):
    assert unit_for(values, "s").name == name


def test_wrong_data_are_named(swept, report, single):
    infeasible = dataclasses.replace(single, status_code=np.float64(1), overflow=np.float64(5))
    other = dataclasses.replace(single, macs=single.macs + 1)
    none = [row | {"meets": False} for row in sweep_table(swept)]
    for plot, arguments, words in (
        (plots.plot_pareto, (np.ones(3),), "plot_pareto needs"),
        (plots.plot_pareto, ([],), "no rows"),
        (plots.plot_pareto, (none,), "none of these chips"),
        (plots.plot_pareto, ([{"latency_ms": 1.0}],), "no column"),
        (plots.plot_sweep, (none,), "none of these chips"),
        (plots.plot_sweep, (sweep_table(swept)[:1],), "no field varies"),
        (plots.plot_performance, (swept,), "plot_performance needs"),
        (plots.plot_performance, ({},), "no results"),
        (plots.plot_performance, ([],), "no results"),
        (plots.plot_performance, (report, ["only one"]), "names were given"),
        (plots.plot_performance, ([single, other],), "different workloads"),
        (plots.plot_performance, ({"a": 1.0, "b": infeasible},), "'b'.*does not fit"),
        (plots.plot_performance, ({"a": float("nan")},), "seconds of 'a'"),
        (plots.plot_performance, ({"a": {"speed": 1}},), "has no 'seconds'"),
        (plots.plot_performance, ({"a": {1: 2.0}, "b": 2.0},), "plot them apart"),
        (plots.plot_performance, (jax.tree.map(lambda v: np.stack([v, v]), single),), "stacked"),
        (plots.plot_energy_breakdown, ([single, other],), "different workloads"),
        (plots.plot_energy_breakdown, ([infeasible],), "does not fit"),
        (plots.plot_energy_breakdown, ([single, 3.0],), "needs a report"),
        (plots.plot_graph, (single,), "needs a Workload"),
        (plots.plot_roofline, (report,), "kpu.analysis.roofline"),
        (plots.plot_memory_heatmap, (infeasible,), "does not fit"),
        (plots.plot_memory_heatmap, (NET,), "needs a report"),
        (plots.plot_pe_activity, ("no",), "activity of PEs"),
        (plots.animate_wave, (np.ones((3, 3)),), "over time"),
        (plots.plot_timeline, (report,), "kpu.program.execute"),
        (plots.svg_of, (report,), "ax must be"),
    ):
        with pytest.raises(kpu.KPUError, match=words):
            plot(*arguments)
    with pytest.raises(kpu.KPUError, match="latency_ms"):
        plots.plot_sweep(swept, measure="latency")
    with pytest.raises(kpu.KPUError, match="fabric_mhz"):
        plots.plot_sweep(swept, kind="slice", field="fabric")
