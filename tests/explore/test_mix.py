"""The choice of one mapping per operation against all combinations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.explore.mix import choose


def case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(seconds, energies, counts) of 4 operations with 5 candidates, some of which do not fit."""
    rng = np.random.default_rng(seed)
    seconds, energy = rng.uniform(1, 10, (4, 5)), rng.uniform(1, 10, (4, 5)) * 1e12
    unfit = rng.random((4, 5)) < 0.2
    unfit[:, 0] = False
    seconds[unfit] = energy[unfit] = np.inf
    return seconds, energy, rng.integers(1, 4, 4).astype(float)


def combinations(seconds: np.ndarray, energy: np.ndarray, count: np.ndarray) -> np.ndarray:
    """[combination, (seconds, energy)]."""
    rows = np.arange(len(count))
    every = itertools.product(*(np.flatnonzero(np.isfinite(row)) for row in seconds))
    return np.array([[(v[rows, list(c)] * count).sum() for v in (seconds, energy)] for c in every])


VALUE = {"latency": lambda t: t[..., 0], "energy": lambda t: t[..., 1], "edp": lambda t: t[..., 0] * t[..., 1]}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_best_of_all_combinations(objective, seed):
    seconds, energy, count = case(seed)
    choice = choose(seconds, energy, count, objective)
    got = np.array([(v[np.arange(4), choice] * count).sum() for v in (seconds, energy)])
    assert VALUE[objective](got) == pytest.approx(VALUE[objective](combinations(seconds, energy, count)).min(), rel=1e-12)


def test_limits_are_kept_where_a_mix_can():
    kept = 0
    for seed in range(20):
        seconds, energy, count = case(seed)
        every = combinations(seconds, energy, count)
        limit = float(np.median(every[:, 1] * 1e-12 / every[:, 0]))
        choice = choose(seconds, energy, count, "latency", {"power_w": limit})
        d, e = ((v[np.arange(4), choice] * count).sum() for v in (seconds, energy))
        kept += e * 1e-12 / d <= limit
    assert kept == 20


def test_an_operation_without_a_mapping_is_no_crash():
    seconds, energy, count = case(0)
    seconds[1] = energy[1] = np.inf
    for objective in OBJECTIVES:
        assert np.isinf(seconds[np.arange(4), choose(seconds, energy, count, objective)]).any()
    assert len(choose(seconds, energy, np.array([1.0, 0, 1, 1]), "edp")) == 4  # a padded row
