"""The certified search against timing every legal mapping of the space; floors; certificates; bad input."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.explore.optimal.enumeration import Enumeration
from kpu_jax.explore.optimal.floor import floor_of
from kpu_jax.explore.optimal.objective import objective_of
from kpu_jax.explore.optimal.search import CHUNK, _priced
from kpu_jax.explore.pins import pins_of
from kpu_jax.model.batch import exact_cycles_of

CHIP = kpu.preset("minimal")
FIXED = {"l3_order": "mnk", "buffering": ("double", "single", "double"), "partition": (1, 1, 1, 1)}


def brute_force(op, goal):
    """Least objective by exact time over all legal mappings, none left out by its bound."""
    cfg, plain = jax.tree.map(lambda v: np.asarray(v, np.float64), (CHIP, op.plain()))
    space, best = Enumeration(cfg, plain, pins_of(FIXED)), np.inf
    for start in range(0, space.size, CHUNK):
        mappings = space.mappings(np.arange(start, min(start + CHUNK, space.size)))
        prices = _priced(cfg, plain, mappings)
        fits = np.flatnonzero(prices.status == 0)
        if not len(fits):
            continue
        lanes = jax.tree.map(lambda v: np.full(len(fits), v), (cfg, plain))
        cycles = exact_cycles_of(*lanes, jax.tree.map(lambda v, i=fits: v[i], mappings))
        prices = jax.tree.map(lambda v, i=fits: v[i], prices)
        best = min(best, goal.of(prices, cycles).min())
    return best, floor_of(cfg, plain, goal)


@pytest.mark.parametrize("objective", ["latency", "energy", {"energy": 1, "latency": 2}], ids=str)
def test_equals_brute_force(objective):
    op = kpu.Gemm(2, 3, 2, bias=True)
    mapping, report, certificate = kpu.search_mapping(CHIP, op, objective=objective, fixed=FIXED)
    best, floor = brute_force(op, objective_of(objective))
    assert floor <= best
    assert certificate.value == pytest.approx(best, rel=1e-12)
    assert certificate.certified and certificate.gap <= 1e-8
    assert report.cycles == kpu.simulate(CHIP, op, mapping).cycles


def test_a_space_beyond_the_budget_states_its_gap():
    _, _, certificate = kpu.search_mapping(CHIP, kpu.Gemm(64, 64, 64), budget=1000)
    assert not certificate.certified and 0 < certificate.gap < 1 and certificate.space > 1000


@pytest.mark.long
@pytest.mark.parametrize("seed", range(300))
def test_equals_brute_force_on_random_problems(seed):
    rng = np.random.default_rng(seed)
    m, n, k = (int(v) for v in rng.integers(1, 5, 3))
    convolution = kpu.Conv(1, m + 1, n + 1, 2, k, 2)
    op = convolution if seed % 4 == 0 else kpu.Gemm(m, n, k, bias=bool(seed % 2))
    objective = ("latency", "energy", "edp", {"energy": 1, "latency": 2})[seed // 4 % 4]
    _, _, certificate = kpu.search_mapping(CHIP, op, objective=objective, fixed=FIXED)
    best, floor = brute_force(op, objective_of(objective))
    assert floor <= best
    assert certificate.value == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("bad", [{"objective": {"power": 1}}, {"objective": {}}, {"gap": -1}, {"fixed": {"tile": 3}}])
def test_bad_input(bad):
    with pytest.raises(kpu.KPUError):
        kpu.search_mapping(CHIP, kpu.Gemm(2, 2, 2), **bad)
