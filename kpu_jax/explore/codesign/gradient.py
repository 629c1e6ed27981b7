"""The relaxed optimum around a point, and its gradient: envelope theorem for smooth axes, secants for stepped ones.

Best costs are piecewise constant in counts and capacities while area and leakage grow with them, so the plain gradient
would shrink every memory. The relaxed log measures at x are those of the centre, x with its stepped axes at their
nearest knots, plus for every stepped axis the secant to the neighbouring knot on x's side, times the distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kpu_jax.base.pytree import get_path
from kpu_jax.explore.codesign.axes import Axis
from kpu_jax.explore.codesign.networks import Networks
from kpu_jax.explore.codesign.relaxation import NO_LIMIT, Appraisal, Chips, appraise, slopes
from kpu_jax.explore.space import stack
from kpu_jax.hardware import KPUConfig


@dataclass
class Stencil:
    """The centre and its neighbours along the stepped axes, for every start."""

    logs: np.ndarray  # [start, 1 + stepped, measure]
    shares: np.ndarray  # [start, 1 + stepped] weights of the chips in the relaxed measures, sum 1
    widths: np.ndarray  # [start, stepped] signed distance to the neighbour
    chips: Chips  # leaves [start * (1 + stepped)]
    chosen: np.ndarray  # [start * (1 + stepped), row, field] strategies
    tangents: dict[int, np.ndarray]  # smooth axis -> [start, field] derivatives of the values
    stepped: list[int]

    @property
    def relaxed(self) -> np.ndarray:
        """Relaxed log measures [start, measure]."""
        return np.einsum("sc,scm->sm", self.shares, self.logs)


class Relaxation:
    """The relaxed best cost of a space of chips as a function of log coordinates [start, axis]."""

    def __init__(
        self, base: KPUConfig, axes: list[Axis], nets: Networks, strategies: np.ndarray, powers: np.ndarray, limit_w: float = NO_LIMIT
    ) -> None:
        self.limit_w = limit_w  # power [W] that every network is slowed to
        self.base, self.axes, self.nets = base, axes, nets
        self.strategies, self.powers = np.asarray(strategies, np.float64), powers
        self.stepped = [i for i, axis in enumerate(axes) if not axis.smooth and len(axis.knots) > 1]
        self.evaluations = 0  # chips x rows x mappings

    def at(self, x: np.ndarray) -> Stencil:
        """Appraise the stencil of every start."""
        centre = np.stack([x[:, i] if a.smooth else a.knots[a.nearest(x[:, i])] for i, a in enumerate(self.axes)], axis=1)
        points = np.repeat(centre[:, None], 1 + len(self.stepped), axis=1)
        for j, i in enumerate(self.stepped):
            points[:, 1 + j, i] = self.axes[i].knots[self.axes[i].neighbour(x[:, i])]
        moved = points[:, 1:][:, np.arange(len(self.stepped)), self.stepped]
        widths = moved - centre[:, self.stepped]
        shares = (x - centre)[:, self.stepped] / widths
        shares = np.concatenate([1 - shares.sum(axis=1, keepdims=True), shares], axis=1)
        chips = self.chips(points.reshape(-1, len(self.axes)))
        found = self.appraise(chips)
        tangents = {i: a.values(x[:, i])[1] for i, a in enumerate(self.axes) if a.smooth}
        logs = found.logs.reshape(*shares.shape, -1)
        return Stencil(logs, shares, widths, chips, self.strategies[found.choice], tangents, self.stepped)

    def appraise(self, chips: Chips) -> Appraisal:
        """Best mappings of chips by the bound, counted."""
        self.evaluations += len(chips.compute.tile_count) * self.nets.rows * len(self.strategies)
        return appraise(chips, self.nets, self.strategies, self.powers, self.limit_w)

    def chips(self, points: np.ndarray) -> Chips:
        """Chips (leaves [point]) at coordinates [point, axis]."""
        values: dict[str, np.ndarray] = {}
        for i, axis in enumerate(self.axes):
            values.update(zip(axis.paths, axis.values(points[:, i])[0].T, strict=True))
        return stack(self.base, values, len(points))

    def gradient(self, stencil: Stencil, cotangent: np.ndarray) -> np.ndarray:
        """d (cotangent . relaxed log measures) / d x [start, axis]; `cotangent` [start, measure] is held."""
        out = np.zeros((len(cotangent), len(self.axes)))
        centre = stencil.logs[:, :1]
        rise = np.einsum("sm,scm->sc", cotangent, stencil.logs[:, 1:] - centre)
        out[:, self.stepped] = rise / stencil.widths
        if stencil.tangents:
            weights = (stencil.shares[..., None] * cotangent[:, None]).reshape(-1, cotangent.shape[-1])
            leaves = slopes(stencil.chips, self.nets, stencil.chosen, weights, self.limit_w)
            for i, tangent in stencil.tangents.items():
                per_field = [np.asarray(get_path(leaves, p)).reshape(stencil.shares.shape).sum(axis=1) for p in self.axes[i].paths]
                out[:, i] = np.sum(np.stack(per_field, axis=1) * tangent, axis=1)
        return out
