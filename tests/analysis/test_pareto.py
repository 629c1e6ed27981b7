"""Fronts against brute force; hypervolume against inclusion and exclusion."""

import itertools

import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.analysis import front_ranks, hypervolume, pareto_front


def by_inclusion_exclusion(points, corner):
    """Volume of the union of the boxes [point, corner]."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            total -= (-1) ** size * np.prod(np.maximum(corner - np.max(chosen, axis=0), 0.0))
    return total


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_front_and_volume_by_brute_force(objectives):
    rng = np.random.default_rng(objectives)
    for _ in range(20):
        points = rng.integers(0, 6, (8, objectives)).astype(float)  # small integers: many ties and equal points
        beaten = [any((q <= p).all() and ((q < p).any() or j < i) for j, q in enumerate(points)) for i, p in enumerate(points)]
        found = pareto_front(points)
        np.testing.assert_array_equal(found.ids, np.flatnonzero(~np.array(beaten)))
        np.testing.assert_array_equal(found.points, points[found.ids])
        corner = np.full(objectives, 5.0)  # some points lie on it or beyond
        assert hypervolume(points, corner) == pytest.approx(by_inclusion_exclusion(points, corner), rel=1e-12, abs=1e-12)


def test_ranks_peel_fronts_and_infeasible_points_have_none():
    points = np.array([[1, 4], [2, 2], [4, 1], [3, 3], [4, 4], [np.inf, 0], [2, 2]])
    assert front_ranks(points).tolist() == [0, 0, 0, 1, 2, -1, 0]
    assert len(pareto_front(np.full((3, 2), np.nan)).ids) == 0
    assert hypervolume(np.zeros((0, 2)), [1, 1]) == 0
    np.testing.assert_array_equal(pareto_front(points[:5], maximize=[0]).ids, [2])


def test_bad_input_is_named():
    for wrong in ([1, 2], [["a"]], [[1], [1, 2]], [[True]]):
        with pytest.raises(kpu.KPUError, match="points must be a table"):
            pareto_front(wrong)
    with pytest.raises(kpu.KPUError, match="no column 2"):
        pareto_front([[1, 2]], maximize=[2])
    with pytest.raises(kpu.KPUError, match="no column True"):
        pareto_front([[1, 2]], maximize=[True])
    assert pareto_front([[1, 2], [2, 1]], maximize=[np.int64(0)]).ids.tolist() == [1]
    for corner in ([1], [1, np.inf], "far"):
        with pytest.raises(kpu.KPUError, match="reference must be 2 finite numbers"):
            hypervolume([[1, 2]], corner)
