"""Pareto fronts against the definition, and merging in any cut and order, on the host and on the device."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from kpu_jax.explore import fold, front, screening
from kpu_jax.explore.kernel import Totals
from kpu_jax.explore.limits import CONSTRAINTS, OBJECTIVES, floors

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


def random_front(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points near a surface on which none dominates another, as float32, with ties and some that are not finite."""
    rng = np.random.default_rng(seed)
    points = np.exp(rng.uniform(0, 3, (count, 3)))
    points[:, 2] = 100 / (points[:, 0] * points[:, 1]) * rng.choice([1.0, 1.0003, 1.5], count)
    points = points.astype(np.float32).astype(float)
    points[rng.random(count) < 0.05] = np.inf
    copies = rng.integers(0, count, count // 10)
    points[copies] = points[copies[::-1]]
    return points, rng.permutation(10 * count)[:count]


def sparse_by_definition(points: np.ndarray, ids: np.ndarray) -> set[int]:
    """Of every box that no box below it empties, the least point."""
    boxes: dict[tuple, list] = {}
    for p, i in zip(points.tolist(), ids.tolist(), strict=True):
        if np.isfinite(p).all():
            mantissa, exponent = np.frexp(p)
            boxes.setdefault(tuple((exponent * 256 + np.floor((2 * mantissa - 1) * 256)).tolist()), []).append((p, i))
    below = {b for b in boxes if any(c != b and all(x <= y for x, y in zip(c, b, strict=True)) for c in boxes)}
    return {min(held)[1] for box, held in boxes.items() if box not in below}


@pytest.mark.parametrize("seed", range(4))
def test_a_sparse_front_has_the_least_point_of_each_box_whatever_the_cut(seed):
    points, ids = random_front(seed, 400)
    sparse, kept = front.sparse(points, ids)
    assert set(kept.tolist()) == sparse_by_definition(points, ids) and 50 < len(kept) < 390
    whole, on_front = front.merge(points, ids, *NO_POINTS)
    assert set(kept.tolist()) <= set(on_front.tolist())
    assert all((sparse <= p * (1 + 2.0**-8)).all(axis=1).any() for p in whole)
    order = np.random.default_rng(seed).permutation(400)
    parts = [front.sparse(points[part], ids[part]) for part in np.array_split(order, 5)]
    again = front.sparse(np.concatenate([p for p, _ in parts]), np.concatenate([i for _, i in parts]))
    np.testing.assert_array_equal(again[0], sparse)
    np.testing.assert_array_equal(again[1], kept)


def test_the_device_keeps_the_same_front_and_the_same_best_however_full_it_is(monkeypatch):
    count, best = 1300, 500
    monkeypatch.setattr(fold, "ROOM", 512)
    points, ids = random_front(5, 2 * count)
    limits = {name: 1e30 for name in CONSTRAINTS} | {"area_mm2": 40.0}
    rng = np.random.default_rng(5)
    wanted = rng.random(2 * count) < 0.9
    kept, host = fold.nothing(best), screening.Candidates()
    values = [v.astype(np.float32) for v in points.T]
    totals = Totals(*values[:2], *values[:2], values[1], np.where(np.isfinite(values[0]), 1.0, 0.0), values[2], values[2])
    for half in (slice(0, count), slice(count, None)):
        with jax.enable_x64(True):
            shaped = jax.tree.map(lambda v, half=half: v[half].reshape(2, -1), totals)
            kept, rest = fold.fold(kept, shaped, ids[half].reshape(2, -1), wanted[half].reshape(2, -1), limits)
        kept = host.make_room(kept, rest)
    assert len(host.ids) > 0  # there was no room for all
    host.take(kept)
    within = wanted & (points[:, 2] <= limits["area_mm2"])
    want = front.sparse(points[within], ids[within])
    np.testing.assert_array_equal(host.points, want[0])
    np.testing.assert_array_equal(host.ids, want[1])
    floor = floors(jax.tree.map(lambda v: v.astype(float), totals), limits)
    assert int(kept.chips) == wanted.sum() and int(kept.met) == (wanted & np.isfinite(floor["latency"])).sum()
    for row, name in enumerate(OBJECTIVES):
        least = np.where(wanted, floor[name], np.inf)
        order = np.lexsort((ids, least))[:best]
        np.testing.assert_allclose(kept.floors[row], least[order], rtol=1e-15)
        np.testing.assert_array_equal(kept.floor_ids[row], ids[order])
