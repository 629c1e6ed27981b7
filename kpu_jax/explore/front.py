"""Pareto fronts of minimised objectives. Exact; merging is associative and commutative."""

from __future__ import annotations

import numpy as np


def merge(points: np.ndarray, ids: np.ndarray, more: np.ndarray, more_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The front of two sets: (points [n, objective], ids [n]) in ascending id.

    A point stays if no other is as good in every objective and better in one; of equal points the lowest id
    stays. So the result depends on the union only, not on how it was cut into parts. Points that are not
    finite are dropped.
    """
    points, ids = np.concatenate([points, more]), np.concatenate([ids, more_ids])
    finite = np.isfinite(points).all(axis=1)
    points, ids = points[finite], ids[finite]
    # In lexicographic order (ties by id) no point can be dominated by a later one.
    order = np.lexsort((ids, *points.T[::-1]))
    points, ids = points[order], ids[order]
    kept: list[int] = []
    alive = np.ones(len(points), bool)
    for i in range(len(points)):
        if alive[i]:
            kept.append(i)
            alive[i + 1 :] &= ~(points[i + 1 :] >= points[i]).all(axis=1)
    chosen = np.array(kept, int)
    chosen = chosen[np.argsort(ids[chosen])]
    return points[chosen], ids[chosen]


def prefilter(points: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Mask of points that no point of `front` weakly dominates (a cheap first cut before `merge`)."""
    alive = np.isfinite(points).all(axis=1)
    for p in front:
        index = np.flatnonzero(alive)
        if not len(index):
            break
        alive[index] = ~(points[index] >= p).all(axis=1) | (points[index] == p).all(axis=1)
    return alive
