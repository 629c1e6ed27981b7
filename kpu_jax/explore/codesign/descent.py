"""Many starts descend at once in the relaxed space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, shown
from kpu_jax.explore.codesign.gradient import Relaxation
from kpu_jax.explore.codesign.lagrangian import Multipliers, Problem

UPDATE_EVERY = 4  # steps between updates of the multipliers
TOLERANCE = 1e-3  # log excess over a limit that a relaxed point may have


@dataclass
class Descent:
    """What the starts passed through."""

    points: np.ndarray  # [step, start, axis] coordinates
    logs: np.ndarray  # [step, start, measure] relaxed
    relaxed: float  # least relaxed objective within the limits; infinite if none was


def starting_points(relaxation: Relaxation, starts: int, seed: int) -> np.ndarray:
    """A Latin hypercube over the coordinates [start, axis]."""
    rng = np.random.default_rng(seed)
    cells = np.stack([rng.permutation(starts) for _ in relaxation.axes], axis=1)
    return (cells + rng.random(cells.shape)) / starts * [axis.knots[-1] for axis in relaxation.axes]


def descend(
    relaxation: Relaxation, problem: Problem, optimizer: Any, x: np.ndarray, steps: int, progress: Callable[[int], None] | None = None
) -> Descent:
    """`steps` steps of `optimizer` from coordinates x [start, axis], each start with a state and multipliers of its own."""
    ends, multipliers = np.array([axis.knots[-1] for axis in relaxation.axes]), Multipliers(problem, len(x))

    @jax.jit
    @jax.vmap
    def move(gradient: Any, state: Any, at: Any) -> Any:
        change, state = optimizer.update(gradient, state, at)
        return at + change, state

    with jax.enable_x64(True):
        state = jax.vmap(optimizer.init)(x)
    points, logs = [], []
    for step in range(steps):
        stencil = relaxation.at(x)
        relaxed = stencil.relaxed
        points.append(x)
        logs.append(relaxed)
        gradient = relaxation.gradient(stencil, multipliers.cotangent(relaxed))
        with jax.enable_x64(True):
            after, state = move(gradient, state, x)
        x = np.clip(np.asarray(after), 0.0, ends)
        if not np.isfinite(x).all():
            raise KPUError(f"optimizer {shown(optimizer)}: its step {step} is not finite; lower the learning rate")
        if (step + 1) % UPDATE_EVERY == 0:
            multipliers.update(relaxed)
        if progress:
            progress(1)
    all_logs = np.stack(logs)
    kept = problem.worst(all_logs) <= TOLERANCE
    return Descent(np.stack(points), all_logs, float(np.min(np.where(kept, problem.value(all_logs), np.inf))))
