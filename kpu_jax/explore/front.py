"""Pareto fronts of minimised objectives; merging is associative and commutative."""

from __future__ import annotations

import bisect

import numpy as np

BOX_BITS = 15  # dropped of a float32 to name its box: 256 boxes from one power of two to the next


def merge(points: np.ndarray, ids: np.ndarray, more: np.ndarray, more_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The front of two sets: (points [n, objective], ids [n]) in ascending id. Exact.

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


def sparse(points: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The front of `points` [n, 3], positive float32 values, at most one point per box: (points, ids) in ascending id.

    Boxes are 2^-8 of a power of two wide (0.2 to 0.4 %) in every objective. A box stays if no other that holds a point is
    as low in every objective; in it the lexicographically least point stays, of equal ones the lowest id. So every
    point that stays is on the exact front, and every other is at most 0.4 % better than one of them in any objective
    (an epsilon-Pareto set: Laumanns, Thiele, Deb, Zitzler, Evolutionary Computation 10(3), 2002). The number of boxes
    bounds the memory, however many chips there are. What stays depends on the union of merged sets only: the least
    point of a box that stays in the whole was never dropped from a part. Points that are not finite are dropped.
    """
    finite = np.isfinite(points).all(axis=1)
    points, ids = points[finite], ids[finite]
    boxes = np.ascontiguousarray(points, np.float32).view(np.int32) >> BOX_BITS
    # In this order no box is dominated by a later one, and the point to stay is the first of its box.
    order = np.lexsort((ids, *points.T[::-1], *boxes.T[::-1]))
    kept: list[int] = []
    seconds: list[int] = []  # the second and third of the boxes so far that none is below in both
    thirds: list[int] = []  # descending, as the second ascends
    for i, (_, y, z) in zip(order.tolist(), boxes[order].tolist(), strict=True):
        at = bisect.bisect_right(seconds, y)
        if at and thirds[at - 1] <= z:
            continue
        kept.append(i)
        first = at - 1 if at and seconds[at - 1] == y else at
        last = first
        while last < len(thirds) and thirds[last] >= z:
            last += 1
        seconds[first:last], thirds[first:last] = [y], [z]
    chosen = np.array(kept, int)
    chosen = chosen[np.argsort(ids[chosen])]
    return points[chosen], ids[chosen]
