"""Pareto fronts in any number of objectives, and the hypervolume that they dominate. Exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kpu_jax.base.errors import KPUError, is_number, shown
from kpu_jax.explore import front


class ParetoFront(NamedTuple):
    """The points that no other one beats, in the order given."""

    points: np.ndarray  # [point, objective] float64, in the units they were given in
    ids: np.ndarray  # [point] int64: which of the points given; of equal points the first


def pareto_front(points: Any, *, maximize: Sequence[int] = ()) -> ParetoFront:
    """The front of `points` [n, objective]; every objective is minimised but those whose columns `maximize` lists.

    Points that are not finite (infeasible) are left out, so the front may be empty. Raises `KPUError` unless `points`
    is a table of numbers and the columns exist.
    """
    table = _table("points", points)
    signs = np.ones(table.shape[1])
    for column in maximize if isinstance(maximize, (list, tuple)) else [maximize]:
        if isinstance(column, bool) or not isinstance(column, (int, np.integer)) or column not in range(table.shape[1]):
            raise KPUError(f"maximize: there is no column {shown(column)}, the points have {table.shape[1]} objectives, from 0")
        signs[column] = -1.0
    _, ids = front.merge(table[:0], np.zeros(0, np.int64), table * signs, np.arange(len(table)))
    return ParetoFront(table[ids], ids)


def front_ranks(points: Any) -> np.ndarray:
    """[n] int64: 0 on the front of `points` [n, objective] (minimised), 1 on the front of the rest, and so on.

    Equal points share a rank. -1 for points that are not finite.
    """
    table = _table("points", points)
    finite = np.isfinite(table).all(axis=1)
    distinct, which = np.unique(table[finite], axis=0, return_inverse=True)
    of_distinct = np.zeros(len(distinct), np.int64)
    left, rank = np.arange(len(distinct)), 0
    while len(left):
        on_front = left[pareto_front(distinct[left]).ids]
        of_distinct[on_front] = rank
        left, rank = np.setdiff1d(left, on_front), rank + 1
    ranks = np.full(len(table), -1)
    ranks[finite] = of_distinct[which.reshape(-1)]
    return ranks


def hypervolume(points: Any, reference: Any) -> float:
    """Volume that `points` [n, objective] (minimised) dominate below `reference` [objective], in the product of the units.

    Exact up to rounding, by slicing along the last objective (Zitzler, PhD thesis, ETH Zurich, 1999); the cost grows as
    n^(objectives - 1). Points that do not lie below the reference in every objective add nothing. Raises `KPUError` unless `points` is a
    table of numbers and `reference` as many finite ones as it has objectives.
    """
    table = _table("points", points)
    try:
        corner = np.asarray(reference)
    except ValueError:  # rows of unequal lengths
        corner = np.zeros(0)
    corner = corner.astype(np.float64) if is_number(corner) else np.zeros(0)
    if corner.shape != (table.shape[1],) or not np.isfinite(corner).all():
        raise KPUError(f"reference must be {table.shape[1]} finite numbers, one per objective, got {shown(reference)}")
    inside = np.isfinite(table).all(axis=1) & (table < corner).all(axis=1)
    return _volume(pareto_front(table[inside]).points, corner)


def _volume(points: np.ndarray, corner: np.ndarray) -> float:
    if not len(points):
        return 0.0
    if len(corner) == 1:
        return float(corner[0] - points[:, 0].min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    heights = np.diff(np.append(points[:, -1], corner[-1]))
    volume = 0.0
    for i, height in enumerate(heights):
        if height > 0:
            volume += height * _volume(pareto_front(points[: i + 1, :-1]).points, corner[:-1])
    return float(volume)


def _table(name: str, values: Any) -> np.ndarray:
    """[n, objective] float64."""
    try:
        table = np.asarray(values)
    except ValueError:
        table = np.zeros(0, object)
    if table.ndim != 2 or not table.shape[1] or not is_number(table):
        raise KPUError(f"{name} must be a table of numbers [point, objective], got {shown(values)}")
    return table.astype(np.float64)
