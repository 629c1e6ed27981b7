"""Printed in grey, every series is still told from every other: by lightness, hatch, marker or line, in the pixels themselves."""

from __future__ import annotations

import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

import kpu_jax as kpu
from kpu_jax.visualization import style

plots = kpu.visualization
CHIP = kpu.presets.edge_ai()
GEMM, GELU, CONV = kpu.Gemm(64, 64, 64), kpu.VectorOp(4096, function="gelu"), kpu.Conv(1, 16, 16, 64, 64, 3)
LEAST = 0.09  # root of the mean squared difference of two samples, of the way from black to white
SHIFT = 4  # pixels by which a hatch may begin elsewhere and still be the same


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def grey(colours):
    """Lightness as a printer has it, 0 black to 1 white (ITU-R BT.601)."""
    return np.asarray(colours)[..., :3] @ [0.299, 0.587, 0.114]


def keys(ax):
    """Legend entry -> its sample's grey pixels, in a picture that is fine enough for print."""
    figure, legend = ax.get_figure(), ax.get_legend()
    figure.set_dpi(150)
    figure.canvas.draw()
    pixels = grey(np.asarray(figure.canvas.buffer_rgba()) / 255.0)
    found = {}
    for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
        box = handle.get_window_extent(figure.canvas.get_renderer())
        middle, across = (box.y0 + box.y1) / 2, (box.x0 + box.x1) / 2
        rows = slice(*(round(pixels.shape[0] - middle + side) for side in (-8, 8)))
        found[text.get_text()] = pixels[rows, round(across - 17) : round(across + 17)]
        assert found[text.get_text()].shape == (16, 34), f"{text.get_text()} lies outside of the picture"
    return found


def alike(found):
    """Pairs of entries that a reader of a grey print would take for each other."""
    names = list(found)
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if difference(found[a], found[b]) < LEAST]


def difference(one, other):
    """Of two samples, however they are laid on each other."""
    rows, columns = (size - 2 * SHIFT for size in one.shape)
    core = one[SHIFT:-SHIFT, SHIFT:-SHIFT]
    places = [(y, x) for y in range(2 * SHIFT + 1) for x in range(2 * SHIFT + 1)]
    return min(np.sqrt(np.mean((core - other[y : y + rows, x : x + columns]) ** 2)) for y, x in places)


def whole():
    """A report whose rows are bound by every engine class, and that spends energy on everything."""
    mapping = kpu.Mapping(l3_tile=(64, 64, 64), l2_tile=(16, 16, 64))
    report = kpu.simulate(CHIP, kpu.Workload.from_ops([("p", GEMM), ("v", GELU)]), mapping, timing="bound")
    rows = jax.tree.map(lambda v: np.concatenate([v, v, v]), report.per_op)
    everything = {name: np.float64(1e6 + 1e5 * i) for i, name in enumerate(sorted({*report.energy, "overfetch", "host", "unknown"}))}
    return dataclasses.replace(report, per_op=dataclasses.replace(rows, bound_by_code=np.arange(6.0)), energy=everything)


def timeline():
    mapping = kpu.Mapping(l3_tile=(16, 12, 20), l2_tile=(8, 8, 20))
    found = kpu.program.execute(CHIP, kpu.program.build(CHIP, kpu.Gemm(30, 24, 40), mapping))
    reasons = np.arange(len(found.wait_reason)) % 6  # every cause
    return found._replace(wait_reason=np.where(found.wait > 0, reasons, found.wait_reason))


def chips():
    return [
        {"chip": i, "tile_count": 1.0 + i, "latency_ms": 1.0 + i, "energy_mj": 9.0 - i, "area_mm2": 3.0 + i, "edp_js": 1e-6 * (1 + i),
         "meets": i != 3, "pareto": True} for i in range(6)
    ]  # fmt: skip


ROOFS = kpu.analysis.Roofline(
    ("host", "dram", "l3", "l2"), np.geomspace(1e9, 1e12, 4), np.array([1e12]), ("a",), np.array([1e11]), np.full((4, 1), 200.0)
)
PICTURES = {
    "rows": lambda: plots.plot_performance(whole()),
    "curves": lambda: plots.plot_performance({f"series {i}": {1: 1.0 + i, 2: 2.0 + i} for i in range(8)}),
    "many curves": lambda: plots.plot_performance({f"series {i}": {1: 1.0 + i, 2: 2.0 + i} for i in range(9)} | {"one": {1: 1.0}}),
    "energy": lambda: plots.plot_energy_breakdown({"a": whole(), "b": whole()}),
    "timeline": lambda: plots.plot_timeline(timeline()),
    "roofline": lambda: plots.plot_roofline(ROOFS),
    "graph": lambda: plots.plot_graph(kpu.Workload.from_ops([("product", GEMM), ("conv", CONV), ("gelu", GELU)])),
    "pareto": lambda: plots.plot_pareto(chips()),
    "slice": lambda: plots.plot_sweep(chips(), kind="slice"),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_no_two_entries_look_alike_in_grey(name):
    ax = PICTURES[name]()
    found = keys(ax)
    assert len(found) > 1 and alike(found) == []


@pytest.mark.parametrize("name", ["rows", "energy", "timeline"])
def test_what_is_filled_is_what_the_legend_shows(name):
    ax = PICTURES[name]()
    shown = {(patch.get_facecolor(), patch.get_hatch()) for patch in ax.get_legend().get_patches()}
    bars = [(bar.get_facecolor(), bar.get_hatch()) for bar in ax.patches]
    bars += [(tuple(part.get_facecolor()[0]), part.get_hatch()) for part in ax.collections]
    assert bars and set(bars) <= shown


@pytest.mark.parametrize("name", [style.SEQUENTIAL])
def test_the_scale_of_colours_rises_in_grey(name):
    lightness = grey(colormaps[name](np.linspace(0, 1, 64)))
    assert np.all(np.diff(lightness) > 0) and lightness[-1] - lightness[0] > 0.6


def test_neighbours_differ_in_lightness_too():
    """Beside each other in a stack, colours alone must do where a bar is too short for its hatch."""
    lightness = grey([to_rgb(style.look(i).colour) for i in range(8)])
    assert np.abs(np.diff(lightness)).min() > 0.1
    directions = [frozenset(style.look(i).hatch) for i in range(8)]
    assert len(set(directions)) == 8, "a denser hatch is not another one"


def test_what_looks_alike_is_found():
    _, ax = plt.subplots(layout="constrained")
    same = style.Look("#777777", "", "o", "-"), style.Look("#7A7A7A", "", "o", "-"), style.Look("#777777", "///", "o", "-")
    style.legend_of(ax, dict(zip("abc", same, strict=True)))
    assert alike(keys(ax)) == [("a", "b")]
