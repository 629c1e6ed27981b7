"""Pareto fronts against the definition, and merging in any cut and order."""

from __future__ import annotations

import numpy as np
import pytest

from kpu_jax.explore import front

NO_POINTS = np.zeros((0, 3)), np.zeros(0, np.int64)


def by_definition(points: np.ndarray, ids: np.ndarray) -> set[int]:
    """Points that no other is as good as everywhere and better somewhere; of equal ones the lowest id."""
    kept = set()
    for p, i in zip(points.tolist(), ids.tolist(), strict=True):
        others = [(q, j) for q, j in zip(points.tolist(), ids.tolist(), strict=True) if j != i]
        worse = any(all(a <= b for a, b in zip(q, p, strict=True)) and (q != p or j < i) for q, j in others)
        if not worse and np.isfinite(p).all():
            kept.add(i)
    return kept


def random_points(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, (60, 3)).astype(float)  # many ties
    points[rng.random(60) < 0.1] = np.inf
    return points, rng.permutation(1000)[:60]


@pytest.mark.parametrize("seed", range(10))
def test_the_front_is_that_of_the_definition(seed):
    points, ids = random_points(seed)
    _, kept = front.merge(points, ids, *NO_POINTS)
    assert set(kept.tolist()) == by_definition(points, ids)


@pytest.mark.parametrize("seed", range(10))
def test_any_cut_in_any_order_gives_the_same_front(seed):
    points, ids = random_points(seed)
    rng = np.random.default_rng(seed)
    whole = front.merge(points, ids, *NO_POINTS)
    order, cut = rng.permutation(60), int(rng.integers(1, 59))
    a, b = (front.merge(points[part], ids[part], *NO_POINTS) for part in (order[:cut], order[cut:]))
    for merged in (front.merge(*a, *b), front.merge(*b, *a)):
        np.testing.assert_array_equal(merged[0], whole[0])
        np.testing.assert_array_equal(merged[1], whole[1])


def test_the_first_cut_drops_only_dominated_points():
    points, ids = random_points(1)
    known, _ = front.merge(points[:30], ids[:30], *NO_POINTS)
    alive = front.prefilter(points[30:], known)
    whole = by_definition(points, ids)
    assert whole & set(ids[30:].tolist()) <= set(ids[30:][alive].tolist())
    assert (~alive).sum() > 5
