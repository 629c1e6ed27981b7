"""The axes of a space as coordinates in the logarithm of the hardware."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kpu_jax.explore.space import Space
from kpu_jax.hardware.fields import FIELDS

SMOOTH_UNITS = ("MHz", "GB/s", "ns")


def is_smooth(path: str) -> bool:
    """Is the cost under a fixed mapping differentiable in the field? Clocks, rates and latencies; counts and capacities step."""
    return path.startswith(("technology.", "vector.")) or FIELDS[path].unit in SMOOTH_UNITS


@dataclass(frozen=True)
class Axis:
    """One axis: its rows of values at knots along a coordinate that grows by the logarithm of the values."""

    paths: tuple[str, ...]
    rows: np.ndarray  # [knot, field], the first field ascending
    digit: np.ndarray  # [knot] position of the row in the space's own list
    knots: np.ndarray  # [knot] coordinate: sum of the largest |change of the logarithm| of any field; 1 per step from or to 0
    smooth: bool

    def values(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(values, derivatives by the coordinate) [..., field] at coordinates x [...], geometric between knots."""
        if len(self.knots) == 1:
            rows = np.broadcast_to(self.rows[0], (*x.shape, len(self.paths)))
            return rows, np.zeros_like(rows)
        low = np.clip(np.searchsorted(self.knots, x, side="right") - 1, 0, len(self.knots) - 2)
        width = self.knots[low + 1] - self.knots[low]
        share = ((x - self.knots[low]) / width)[..., None]
        a, b, width = self.rows[low], self.rows[low + 1], width[..., None]
        positive = (a > 0) & (b > 0)
        growth = np.log(np.where(positive, b, 1.0) / np.where(positive, a, 1.0))
        value = np.where(positive, a * np.exp(growth * share), a + (b - a) * share)
        return value, np.where(positive, value * growth, b - a) / width

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """The knot nearest to coordinates x."""
        return np.argmin(np.abs(x[..., None] - self.knots), axis=-1)

    def neighbour(self, x: np.ndarray) -> np.ndarray:
        """The knot beside the nearest one, on the side of x; inwards at the ends."""
        last, near = len(self.knots) - 1, self.nearest(x)
        beside = near + np.where(x >= self.knots[near], 1, -1)
        return np.where(beside > last, max(last - 1, 0), np.where(beside < 0, min(1, last), beside))


def axes_of(space: Space) -> list[Axis]:
    """The axes of `space`, in its own order (geometry first)."""
    return [_axis(paths, np.asarray(rows, np.float64)) for paths, rows in space.geometry + space.speed]


def _axis(paths: tuple[str, ...], rows: np.ndarray) -> Axis:
    digit = np.lexsort(rows.T[::-1])
    rows = rows[digit]
    positive = (rows[1:] > 0) & (rows[:-1] > 0)
    ratio = np.log(np.where(positive, rows[1:], 1.0) / np.where(positive, rows[:-1], 1.0))
    steps = np.abs(np.where(positive, ratio, (rows[1:] != rows[:-1]).astype(float))).max(axis=1)
    return Axis(paths, rows, digit, np.concatenate([[0.0], np.cumsum(steps)]), all(map(is_smooth, paths)))


def chip_ids(axes: list[Axis], knots: np.ndarray) -> np.ndarray:
    """Index in the space of the chips at knots [..., axis]."""
    index = np.zeros(knots.shape[:-1], np.int64)
    for i, axis in enumerate(axes):
        index = index * len(axis.knots) + axis.digit[knots[..., i]]
    return index


def knots_of(axes: list[Axis], ids: np.ndarray) -> np.ndarray:
    """Knots [..., axis] of chips by their index in the space."""
    columns = []
    for axis in reversed(axes):
        ids, digit = np.divmod(ids, len(axis.knots))
        columns.append(np.argsort(axis.digit)[digit])
    return np.stack(columns[::-1], axis=-1)
