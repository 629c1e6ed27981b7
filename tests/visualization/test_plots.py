"""Plots, rendered: what they draw is what the data say."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.explore.limits import OBJECTIVES

CHIP = kpu.presets.edge_ai()
NET = kpu.networks.mlp(batch=4)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def swept():
    return kpu.sweep({"compute.tile_count": [1, 2, 4], "clocks.fabric_mhz": [500, 1000]}, NET, retime_chips=6)


def test_performance_bars_are_the_layers_times():
    report = kpu.simulate(CHIP, NET, kpu.best_mapping(CHIP, NET))
    ax = kpu.visualization.plot_performance(report, NET.row_names)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx((report.per_op.seconds * 1e3).tolist())
    assert [label.get_text() for label in ax.get_yticklabels()] == list(NET.row_names) and "[ms]" in ax.get_xlabel()
    ax.get_figure().canvas.draw()


def test_pareto_shows_every_exact_point_and_the_best(swept):
    ax = kpu.visualization.plot_pareto(swept)
    ax.get_figure().canvas.draw()
    _, exact = ax.collections
    assert len(exact.get_offsets()) == swept.retimed.meets.sum()
    marks = {line.get_label().split(":")[0]: line for line in ax.lines}
    for name in OBJECTIVES:
        point, _ = swept.retimed.best(name)
        assert marks[f"best {name}"].get_xdata()[0] == pytest.approx(swept.retimed.seconds[point] * 1e3)
    assert "[ms]" in ax.get_xlabel() and "[mJ]" in ax.get_ylabel()


def test_an_axes_may_be_given(swept):
    _, (left, right) = plt.subplots(1, 2)
    assert kpu.visualization.plot_pareto(swept, right) is right
    report = kpu.simulate(CHIP, NET, kpu.best_mapping(CHIP, NET))
    assert kpu.visualization.plot_performance(report, ax=left) is left


def test_wrong_data_are_named(swept):
    with pytest.raises(kpu.KPUError, match="plot_pareto needs"):
        kpu.visualization.plot_pareto(np.ones(3))
    with pytest.raises(kpu.KPUError, match="plot_performance needs"):
        kpu.visualization.plot_performance(swept)
    report = kpu.simulate(CHIP, NET, kpu.best_mapping(CHIP, NET))
    with pytest.raises(kpu.KPUError, match="names were given"):
        kpu.visualization.plot_performance(report, ["only one"])
