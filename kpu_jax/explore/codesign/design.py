"""`codesign`: which chip of a space, with the best mappings inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kpu_jax.base.errors import InfeasibleError, KPUError, check_choice, check_number, shown
from kpu_jax.explore.codesign.axes import axes_of, chip_ids
from kpu_jax.explore.codesign.descent import Descent, descend, starting_points
from kpu_jax.explore.codesign.finish import UNFIT, Finish
from kpu_jax.explore.codesign.gradient import Relaxation
from kpu_jax.explore.codesign.lagrangian import Problem
from kpu_jax.explore.codesign.networks import Networks, networks_of
from kpu_jax.explore.codesign.relaxation import NO_LIMIT
from kpu_jax.explore.limits import CONSTRAINTS, OBJECTIVES, limits_of
from kpu_jax.explore.space import Space
from kpu_jax.hardware import KPUConfig
from kpu_jax.mapping import Mapping as TileMapping
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES

if TYPE_CHECKING:
    import optax


@dataclass
class Codesign:
    """The answer: one chip of the space by exact time, and how the relaxation compares."""

    space: Space
    networks: Networks
    objective: str
    constraints: dict[str, float]
    index: int  # of the chip in the space
    chip: KPUConfig
    value: float  # exact: s, pJ or J s; over several networks the weighted geometric mean
    seconds: dict[str, float]  # exact, per network
    energy_pj: dict[str, float]
    area_mm2: float
    tdp_w: float
    mappings: dict[str, TileMapping]  # per network, leaves [row]
    relaxed: float  # least relaxed value that the descent met within the limits; an estimate, no bound
    locally_optimal: bool  # no chip one step away along one axis is better, proven within the stated set of mappings
    evaluations: int  # chips x rows x mappings appraised by the bound
    timed: int  # chips timed exactly
    descent: Descent

    @property
    def gap(self) -> float:
        """Exact over relaxed value, less 1; negative where rounding and the exact steps found better than the descent."""
        return self.value / self.relaxed - 1

    def __repr__(self) -> str:
        unit = {"latency": "s", "energy": "pJ", "edp": "J s"}[self.objective]
        local = "no neighbour is better" if self.locally_optimal else "neighbours are left untimed"
        lines = [f"chip {self.index} of {len(self.space):,}: {self.objective} {self.value:.4g} {unit} by exact time ({local})"]
        lines.append(f"  relaxed {self.relaxed:.4g} {unit}, gap {self.gap:+.1%}; {self.area_mm2:.4g} mm^2, TDP {self.tdp_w:.4g} W")
        for name in self.networks.names:
            seconds, energy = self.seconds[name], self.energy_pj[name] * 1e-12
            lines.append(f"  {name}: {seconds:.4g} s, {energy:.4g} J, {energy / seconds:.4g} W")
        lines += [f"  {path} = {float(v[0]):g}" for path, v in self.space.values(np.array([self.index])).items()]
        return "\n".join(lines)


def codesign(
    space: Space | Mapping[Any, Any],
    workload: Any,
    *,
    objective: str = "edp",
    constraints: Mapping[str, float] | None = None,
    optimizer: optax.GradientTransformation | None = None,
    weights: Any = None,
    starts: int = 8,
    steps: int = 16,
    retime_chips: int = 96,
    seed: int = 0,
    strategies: np.ndarray = SWEEP_STRATEGIES,
    progress: Callable[[int], None] | None = None,
) -> Codesign:
    """A good chip of `space` for `workload`, found by gradients instead of enumeration.

    `space`: a `Space` or its fields; its axes are the grids on which the answer lies. `workload`: a `Workload`, a list
    of them, or {name: Workload}, with `weights` alike: what is least is the weighted geometric mean of the networks'
    objectives. `constraints`: upper limits as for `sweep`; those on seconds, energy_pj and power_w hold for every
    network. `optimizer` (default `optax.adam(0.05)`) steps in the logarithm of the hardware, `starts` at once.

    Inside, every operation has the best mapping of the stated set `strategies` by a lower bound on time; slopes are
    exact for clocks, rates and latencies (envelope theorem), secants between the axis' values for counts and
    capacities. The points are rounded, improved by coordinate steps by the bound, and by exact time on up to
    `retime_chips` chips. The value is exact; that no other chip of the space is better is not claimed (`sweep`
    certifies). `progress` is called after each step of the descent.

    Raises `KPUError` for bad arguments, and where no chip met keeps the limits, with the one that binds and the
    closest chip; `InfeasibleError` if no chip met can hold one tile of every operation.
    """
    check_choice("objective", objective, OBJECTIVES)
    space = space if isinstance(space, Space) else Space(space)
    limits = limits_of(constraints)
    nets = networks_of(workload, weights)
    import optax  # here, so that importing the package stays light

    optimizer = optax.adam(0.05) if optimizer is None else optimizer
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise KPUError(f"optimizer must be an optax optimizer such as optax.adam(0.05), got {shown(optimizer)}")
    for name, count, low in (("starts", starts, 1), ("steps", steps, 1), ("retime_chips", retime_chips, 1), ("seed", seed, 0)):
        check_number(name, count, "count", low=low, integer=True)

    problem = Problem.of(nets, objective, limits)
    relaxation = Relaxation(space.base, axes_of(space), nets, strategies, problem.powers, limits.get("power_w", NO_LIMIT))
    x = starting_points(relaxation, int(starts), int(seed))
    path = descend(relaxation, problem, optimizer, x, int(steps), progress)
    finish = Finish(space, relaxation, problem, objective, limits)
    finish.climb(_rounded(relaxation, path))
    proven = finish.settle(int(retime_chips))
    if not finish.exact:
        raise InfeasibleError("no chip met can hold one tile of every operation: enlarge L3, L2 or L1 in the space")
    best = finish.best
    found = finish.exact[best]
    if found.key[0] > 0:
        raise KPUError(_nobody(space, problem, best, found.logs, found.key[0] >= UNFIT))
    count, measures = len(nets.names), np.exp(found.logs)
    return Codesign(
        space, nets, objective, limits, best, space.chip(best), found.key[1],
        dict(zip(nets.names, measures[:count].tolist(), strict=True)),
        dict(zip(nets.names, measures[count:-2].tolist(), strict=True)),
        float(measures[-2]), float(measures[-1]), dict(zip(nets.names, found.mappings, strict=True)),
        path.relaxed, proven, relaxation.evaluations, len(finish.exact), path,
    )  # fmt: skip


def _rounded(relaxation: Relaxation, path: Descent) -> np.ndarray:
    """The chips of the grid nearest to every point of the descent, each once."""
    knots = np.stack([axis.nearest(path.points[..., i]) for i, axis in enumerate(relaxation.axes)], axis=-1)
    return np.unique(chip_ids(relaxation.axes, knots))


def _nobody(space: Space, problem: Problem, chip: int, logs: np.ndarray, unfit: bool) -> str:
    """Which limit binds, and the closest chip."""
    if unfit:
        return "no chip timed exactly can run every operation: enlarge L3, L2 or L1 in the space"
    excess = problem.excess(logs)
    binds = int(np.argmax(excess))
    measured, limit = np.exp(excess + problem.log_limits), np.exp(problem.log_limits)
    figures = []
    for i, name in enumerate(problem.names):
        scale = 1e-12 if name.startswith("power_w") else 1.0
        figures.append(f"{name} {measured[i] * scale:.4g} (limit {limit[i] * scale:.4g} {CONSTRAINTS[name.split(' of ')[0]]})")
    values = ", ".join(f"{path} = {float(v[0]):g}" for path, v in space.values(np.array([chip])).items())
    return (
        f"no chip met keeps the limits; {problem.names[binds]} binds. The closest is chip {chip}: {', '.join(figures)}, "
        f"with {values}: widen the limits or the space"
    )
