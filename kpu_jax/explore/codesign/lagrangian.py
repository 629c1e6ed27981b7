"""Objective and limits as linear forms of log measures, and the augmented Lagrangian of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kpu_jax.explore.codesign.networks import Networks

STIFFNESS = 10.0  # rho: a limit exceeded by 1 % pulls with a slope of 0.1 before its multiplier has grown
POWERS = {"latency": (1.0, 0.0), "energy": (0.0, 1.0), "edp": (1.0, 1.0)}  # of seconds and energy


@dataclass(frozen=True)
class Problem:
    """Minimise objective . logs subject to forms . logs <= log_limits; logs as of `relaxation.Appraisal`."""

    powers: np.ndarray  # of seconds and energy in the objective
    objective: np.ndarray  # [measure]
    names: tuple[str, ...]  # [limit] name of the constraint, and of the network where there are several
    forms: np.ndarray  # [limit, measure]
    log_limits: np.ndarray  # [limit]

    @classmethod
    def of(cls, nets: Networks, objective: str, limits: Mapping[str, float]) -> Problem:
        """Limits on seconds, energy and power hold for every network on its own."""
        count = len(nets.names)
        powers = np.array(POWERS[objective])
        measure = np.eye(2 * count + 2)
        goal = np.concatenate([np.outer(powers, nets.weights).ravel(), np.zeros(2)])
        names, forms, logs = [], [], []
        for name, limit in limits.items():
            of_chip = name in ("area_mm2", "tdp_w")
            for n in range(1 if of_chip else count):
                seconds, energy = measure[n], measure[count + n]
                names.append(name if of_chip or count == 1 else f"{name} of {nets.names[n]}")
                forms.append({"area_mm2": measure[-2], "tdp_w": measure[-1], "seconds": seconds, "energy_pj": energy,
                              "power_w": energy - seconds}[name])  # fmt: skip
                logs.append(np.log(limit) + (np.log(1e12) if name == "power_w" else 0.0))
        return cls(powers, goal, tuple(names), np.array(forms).reshape(-1, len(goal)), np.array(logs))

    def value(self, logs: np.ndarray) -> np.ndarray:
        """Weighted geometric mean over the networks: s, pJ or J s."""
        return np.exp(logs @ self.objective - self.powers[1] * np.log(1e12) * (self.powers[0] > 0))

    def excess(self, logs: np.ndarray) -> np.ndarray:
        """Log of measure over limit [..., limit]; above 0 is too much."""
        return logs @ self.forms.T - self.log_limits

    def worst(self, logs: np.ndarray) -> np.ndarray:
        """The largest excess [...], 0 if every limit is kept."""
        return np.max(np.maximum(self.excess(logs), 0.0), axis=-1, initial=0.0)


class Multipliers:
    """One multiplier per start and limit: max(0, previous + rho excess) at every update."""

    def __init__(self, problem: Problem, starts: int) -> None:
        self.problem = problem
        self.values = np.zeros((starts, len(problem.names)))

    def pull(self, logs: np.ndarray) -> np.ndarray:
        """Slope [start, limit] of the augmented terms (max(0, lambda + rho g)^2 - lambda^2) / (2 rho) by the excess g."""
        return np.maximum(0.0, self.values + STIFFNESS * self.problem.excess(logs))

    def cotangent(self, logs: np.ndarray) -> np.ndarray:
        """Slope [start, measure] of the whole Lagrangian by the log measures [start, measure]."""
        return self.problem.objective + self.pull(logs) @ self.problem.forms

    def update(self, logs: np.ndarray) -> None:
        """Take the pull at `logs` as the multipliers."""
        self.values = self.pull(logs)
