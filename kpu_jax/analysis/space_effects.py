"""Which fields matter over a whole space of chips, not only around one chip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kpu_jax.analysis.effects import MorrisEffects, SobolIndices, morris_effects, sobol_indices
from kpu_jax.base.errors import InfeasibleError, KPUError, check_choice
from kpu_jax.explore.codesign.lagrangian import POWERS
from kpu_jax.explore.codesign.networks import networks_of
from kpu_jax.explore.codesign.relaxation import appraise
from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.explore.space import Space
from kpu_jax.explore.sweep_table import short_names
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES
from kpu_jax.workload import Op, Workload


def sobol(
    space: Space | Mapping[Any, Any], workload: Op | Workload, *, measure: str = "edp", samples: int = 256, confidence: float = 0.95,
    seed: int = 0,
) -> SobolIndices:  # fmt: skip
    """Shares of the variance of the logarithm of a `measure` ("latency", "energy", "edp") over `space`, by its axes.

    Every chip counts alike. Each has the best mapping of every operation, of the stated set and by the lower bound on time, as
    in a sweep's screening. Of `sobol_indices`; chips are evaluated side by side by vmap, each once.
    Raises `InfeasibleError` if sampled chips hold no tile of some operation, and `KPUError` for spaces with
    conditions: their axes are not independent, so that variance has no shares.
    """
    model = _Model(space, workload, measure)
    names, of = model.names, f"log {measure}"
    return sobol_indices(lambda u: model(np.floor(u * model.levels)), names, samples=samples, confidence=confidence, seed=seed, of=of)


def morris(
    space: Space | Mapping[Any, Any], workload: Op | Workload, *, measure: str = "edp", trajectories: int = 32,
    confidence: float = 0.95, seed: int = 0,
) -> MorrisEffects:  # fmt: skip
    """Change of the logarithm of a `measure` over the range of each axis of `space` (0.69 doubles it): cheaper than `sobol`.

    Effects by steps of half an axis' values, in their order of the space (`morris_effects`); chips, mappings and errors as in `sobol`.
    """
    model = _Model(space, workload, measure)
    return morris_effects(
        lambda u: model(np.rint(u * (model.levels - 1))), model.names, levels=model.levels.tolist(), trajectories=trajectories,
        confidence=confidence, seed=seed, of=f"log {measure}",
    )  # fmt: skip


class _Model:
    """Levels of the axes [point, axis] -> logarithm of the measure [point]."""

    def __init__(self, space: Any, workload: Any, measure: str) -> None:
        self.space = space if isinstance(space, Space) else Space(space)
        self.powers = np.array(POWERS[check_choice("measure", measure, OBJECTIVES)])
        self.nets = networks_of(workload, None)
        if self.space.where:
            conditions = " and ".join(each.text for each in self.space.where)
            raise KPUError(
                f"the space has conditions ({conditions}), so its axes are not independent: give a space without, "
                "or let fields vary together on one axis"
            )
        axes = self.space.geometry + self.space.speed
        labels = short_names(self.space.paths)
        self.names = [" & ".join(labels[path] for path in paths) for paths, _ in axes]
        self.levels = np.array([len(rows) for _, rows in axes])

    def __call__(self, levels: np.ndarray) -> np.ndarray:
        chips, which = np.unique(np.ravel_multi_index(levels.astype(int).T, self.levels), return_inverse=True)
        found = appraise(self.space.chips(chips), self.nets, SWEEP_STRATEGIES, self.powers)
        if not found.fits.all():
            wrong = chips[~found.fits]
            values = ", ".join(f"{path} = {float(v[0]):g}" for path, v in self.space.values(wrong[:1]).items())
            raise InfeasibleError(
                f"{len(wrong):,} of {len(chips):,} chips sampled hold no tile of some operation, such as chip {wrong[0]} ({values}): "
                "take such values out of the space"
            )
        return (found.logs[:, :2] @ self.powers)[which.ravel()]
