"""Estimators against functions whose indices and effects are known in closed form; spaces against their full enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.analysis import morris, morris_effects, sobol, sobol_indices
from kpu_jax.analysis.space_effects import _Model

NAMES = ("x1", "x2", "x3")
A, B = 7.0, 0.1


def ishigami(points):
    """Ishigami and Homma, 1990, on [-pi, pi]^3."""
    x, y, z = (np.pi * (2 * points - 1)).T
    return np.sin(x) + A * np.sin(y) ** 2 + B * z**4 * np.sin(x)


VARIANCE = A**2 / 8 + B * np.pi**4 / 5 + B**2 * np.pi**8 / 18 + 0.5
ALONE = np.array([(1 + B * np.pi**4 / 5) ** 2 / 2, A**2 / 8, 0.0]) / VARIANCE
TOGETHER = B**2 * np.pi**8 * (1 / 18 - 1 / 50) / VARIANCE  # of x1 and x3
TOTAL = ALONE + [TOGETHER, 0.0, TOGETHER]


def test_sobol_indices_of_ishigami_are_the_known_ones():
    found = sobol_indices(ishigami, NAMES, samples=4096)
    assert np.allclose(found.first, ALONE, atol=0.02) and np.allclose(found.total, TOTAL, atol=0.02)
    assert found.variance == pytest.approx(VARIANCE, rel=0.02) and found.mean == pytest.approx(A / 2, rel=0.01)
    assert found.evaluations == 5 * 4096
    covered = 0
    for seed in range(20):
        few = sobol_indices(ishigami, NAMES, samples=256, seed=seed)
        for truth, (low, high) in ((ALONE, few.first_interval.T), (TOTAL, few.total_interval.T)):
            covered += np.sum((low <= truth) & (truth <= high))
    assert covered >= 0.9 * 120


def test_sobol_indices_agree_with_scipy():
    """Another implementation, on points of its own."""
    from scipy import stats

    theirs = stats.sobol_indices(func=lambda x: ishigami(x.T)[None], n=4096, dists=[stats.uniform()] * 3)
    ours = sobol_indices(ishigami, NAMES, samples=4096)
    assert np.allclose(ours.first, np.ravel(theirs.first_order), atol=0.03)
    assert np.allclose(ours.total, np.ravel(theirs.total_order), atol=0.03)


def test_a_constant_and_one_argument():
    none = sobol_indices(lambda p: np.full(len(p), 3.0), NAMES, samples=64)
    assert not none.first.any() and not none.total.any() and none.variance == 0
    one = sobol_indices(lambda p: p[:, 0], ("x",), samples=64)
    assert one.total[0] == pytest.approx(1, abs=0.1) and "x" in str(one) and "<table>" in one._repr_html_()


def test_morris_effects_are_exact_where_the_function_is_linear():
    levels = (2, 3, 4, 1)
    found = morris_effects(lambda p: 2 * p[:, 0] - 5 * p[:, 1] + 3 * p[:, 1] * p[:, 2], (*NAMES, "fixed"), levels=levels, trajectories=400)
    assert found.mean[0] == pytest.approx(2) and found.spread[0] == pytest.approx(0, abs=1e-12)
    grid = np.arange(3) / 2, np.arange(4) / 3
    assert found.mean[1] == pytest.approx(-5 + 3 * grid[1].mean(), abs=0.15)  # the others are anywhere on their levels
    assert found.mean[2] == pytest.approx(3 * grid[0].mean(), abs=0.15) and found.spread[2] == pytest.approx(3 * grid[0].std(), abs=0.15)
    assert found.size[3] == found.mean[3] == 0
    assert np.all(found.size_interval[:, 0] <= found.size) and np.all(found.size <= found.size_interval[:, 1])
    assert found.evaluations == 400 * 5 and "fixed" in str(found)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sobol_indices(ishigami, NAMES, samples=100), "power of two"), (lambda: sobol_indices(ishigami, ()), "names"),
        (lambda: sobol_indices(ishigami, "xyz"), "names"), (lambda: sobol_indices(lambda p: p, NAMES), "one number per point"),
        (lambda: sobol_indices(lambda p: np.log(p[:, 0] - 2), NAMES), "finite"),
        (lambda: sobol_indices(ishigami, NAMES, confidence=1.0), "confidence"),
        (lambda: morris_effects(ishigami, NAMES, levels=[2, 3]), "levels"),
        (lambda: morris_effects(ishigami, NAMES, trajectories=1), "trajectories"),
        (lambda: sobol(kpu.Space({"compute.tile_count": [1, 2]}, where=["compute.tile_count < 4"]), kpu.Gemm(8, 8, 8)), "conditions"),
        (lambda: sobol({"compute.tile_count": [1, 2]}, kpu.Gemm(8, 8, 8), measure="area"), "measure"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:invalid value")
def test_bad_input_is_named(call, words):
    with pytest.raises(kpu.KPUError, match=words):
        call()


FIELDS = {
    ("compute.processor_array.rows", "compute.processor_array.cols"): [[8, 8], [16, 16], [32, 32]],
    "clocks.fabric_mhz": [250, 500, 1000, 2000],
    "memory_controller.controller_count": [1, 2],
}


def test_a_space_is_as_its_full_enumeration_says():
    space, op = kpu.Space(FIELDS), kpu.Gemm(64, 256, 256)
    model = _Model(space, op, "latency")
    shape = tuple(model.levels)
    values = model(np.array(list(itertools.product(*map(range, shape))))).reshape(shape)
    chip = space.chip(11)
    least = kpu.simulate(chip, op, kpu.best_mapping(chip, op, objective="latency"))
    assert np.exp(values.ravel()[11]) == pytest.approx(float(least.seconds), rel=0.3)  # the bound's best mapping
    whole = values.var()
    alone = [values.mean(axis=tuple(j for j in range(3) if j != i)).var() / whole for i in range(3)]
    total = [values.var(axis=i).mean() / whole for i in range(3)]
    found = sobol(space, op, measure="latency", samples=1024)
    assert found.names == ("rows & cols", "fabric_mhz", "controller_count")
    assert np.allclose(found.first, alone, atol=0.04) and np.allclose(found.total, total, atol=0.04)
    effects = morris(space, op, measure="latency")
    assert effects.size[2] == pytest.approx(0, abs=1e-9) and effects.mean[1] < 0  # more controllers carry no more than the banks deliver
    with pytest.raises(kpu.InfeasibleError, match="chips sampled"):
        sobol({"on_chip_memory.l3.tile_capacity_kb": [2.0**-10, 64]}, op, samples=8)
