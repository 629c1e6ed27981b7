"""Sweep a space of chips: every chip by the bound on the device, the best ones again by exact time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, check_choice, check_number, nearest
from kpu_jax.explore import front
from kpu_jax.explore.kernel import OBJECTIVES, evaluate_block
from kpu_jax.explore.retime import Retimed, retime
from kpu_jax.explore.space import Space
from kpu_jax.hardware import KPUConfig
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES
from kpu_jax.workload import Op, Workload

CONSTRAINTS = {"area_mm2": "mm^2", "power_w": "W", "seconds": "s", "energy_pj": "pJ"}
BLOCK_EVALUATIONS = 8_000_000  # chips x operations x mappings on the device at once: bounds the memory
BEST_KEPT = 400  # per objective, by the least it could be
Progress = Callable[[int], None]


@dataclass
class Summary:
    """What is kept of a range of chips. `+` is associative and commutative: ranges may be cut anywhere."""

    chips: int = 0
    evaluations: int = 0
    met: int = 0  # chips that meet every constraint (by the bound)
    front_points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))  # seconds, energy [pJ], area [mm^2]
    front_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    best: dict[str, np.ndarray] = field(default_factory=dict)  # objective -> [chip, (least, id)]

    def __add__(self, other: Summary) -> Summary:
        points, ids = front.merge(self.front_points, self.front_ids, other.front_points, other.front_ids)
        best = {o: _least(np.concatenate([self.best.get(o, _NONE), other.best.get(o, _NONE)])) for o in OBJECTIVES}
        return Summary(
            self.chips + other.chips, self.evaluations + other.evaluations, self.met + other.met, points, ids, best
        )


_NONE = np.zeros((0, 2))


def _least(rows: np.ndarray) -> np.ndarray:
    """The `BEST_KEPT` least, ties by id."""
    return rows[np.lexsort((rows[:, 1], rows[:, 0]))][:BEST_KEPT]


@dataclass
class SweepResult:
    """The answer of a sweep: exact values for the chips in `retimed`, the bound's summary for all."""

    space: Space
    workload: Workload
    objective: str
    constraints: dict[str, float]
    summary: Summary
    retimed: Retimed

    @property
    def floor(self) -> dict[str, float]:
        """Per objective: what no chip that was not timed exactly can fall below (within the stated set of mappings)."""
        seen = set(self.retimed.ids.tolist())
        result = {}
        for name in OBJECTIVES:
            rows = self.summary.best[name]
            rest = [least for least, chip in rows if int(chip) not in seen]
            result[name] = float(min(rest) if rest else (rows[-1, 0] if len(rows) == BEST_KEPT else np.inf))
        return result

    @property
    def certified(self) -> dict[str, bool]:
        """Per objective: is the best chip that was timed exactly the best of the space (within the stated set)?"""
        return {name: self.retimed.best(name)[1] <= floor for name, floor in self.floor.items()}

    def best_chip(self, objective: str | None = None) -> KPUConfig:
        """The best chip by exact time that meets the constraints."""
        return self.space.chip(int(self.retimed.ids[self.retimed.best(objective or self.objective)[0]]))


def evaluate_range(
    space: Space,
    ops: Op,
    start: int,
    stop: int,
    *,
    objective: str = "edp",
    constraints: Mapping[str, float] | None = None,
    strategies: np.ndarray = SWEEP_STRATEGIES,
    progress: Progress | None = None,
) -> Summary:
    """Evaluate the geometries [start, stop) of `space` at every speed, by the bound, in float32.

    float32 keeps 1e-5 relative; what is kept is evaluated again in float64.
    """
    base, table = (jax.tree.map(lambda v: np.asarray(v, np.float32), t) for t in (space.base, ops))
    rows = np.asarray(strategies, np.float32)
    speed = _float32(space.speed_values(np.arange(space.speeds)))
    per_geometry = space.speeds * len(table.m) * len(rows)
    block = max(1, min(BLOCK_EVALUATIONS // per_geometry, space.geometries))
    total = Summary(best=dict.fromkeys(OBJECTIVES, _NONE))
    limits = dict(constraints or {})
    if not speed:  # a space without speed axes: one speed, the base's
        speed = {"clocks.fabric_mhz": np.asarray([space.base.clocks.fabric_mhz], np.float32)}
    for first in range(start, stop, block):
        index = np.arange(first, first + block)
        inside = index < stop
        geometry = _float32(space.geometry_values(np.minimum(index, space.geometries - 1)))
        if not geometry:
            geometry = {"compute.tile_count": np.asarray([space.base.compute.tile_count], np.float32)}
        totals = jax.tree.map(np.asarray, evaluate_block(base, geometry, speed, table, rows, objective))
        ids = index[:, None] * space.speeds + np.arange(space.speeds)
        keep = np.broadcast_to(inside[:, None], ids.shape).ravel()
        total = total + _summarise(jax.tree.map(lambda v, k=keep: v.ravel()[k], totals), ids.ravel()[keep], limits, total)
        total.evaluations += int(keep.sum()) * len(table.m) * len(rows)
        if progress:
            progress(int(keep.sum()))
    return total


def _float32(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {path: np.asarray(v, np.float32) for path, v in values.items()}


def _summarise(totals: Any, ids: np.ndarray, limits: dict[str, float], known: Summary) -> Summary:
    seconds, energy, area = (np.asarray(v, np.float64) for v in (totals.seconds, totals.energy_pj, totals.area_mm2))
    measures = {"area_mm2": area, "power_w": energy * 1e-12 / seconds, "seconds": seconds, "energy_pj": energy}
    ok = np.isfinite(seconds) & np.isfinite(energy)
    for name, limit in limits.items():
        ok &= ~(measures[name] > limit)
    points = np.where(ok[:, None], np.stack([seconds, energy, area], axis=1), np.inf)
    alive = front.prefilter(points, known.front_points)
    points, front_ids = front.merge(np.zeros((0, 3)), np.zeros(0, np.int64), points[alive], ids[alive])
    least_d, least_e = np.asarray(totals.least_seconds, np.float64), np.asarray(totals.least_energy_pj, np.float64)
    least = {"latency": least_d, "energy": least_e, "edp": least_d * least_e * 1e-12}
    best = {o: _least(np.stack([least[o][ok], ids[ok].astype(float)], axis=1)) for o in OBJECTIVES}
    return Summary(len(ids), 0, int(ok.sum()), points, front_ids, best)


def sweep(
    space: Space | Mapping[Any, Any],
    workload: Workload | Op,
    *,
    objective: str = "edp",
    constraints: Mapping[str, float] | None = None,
    retime_chips: int = 48,
    progress: Progress | None = None,
) -> SweepResult:
    """Which chips of `space` are best for `workload`, with the best mapping of each operation on each chip?

    `space`: a `Space` or its fields. `constraints`: upper limits on "area_mm2", "power_w", "seconds" or
    "energy_pj". Every chip is evaluated by the lower bound; then the best chips per objective and a spread
    of the Pareto front over (latency, energy, area), `retime_chips` in all, are timed exactly, and
    `result.certified` says whether any other chip could still beat the best.
    Raises `KPUError` for unknown names, and if no chip meets the constraints (with the nearest one).
    """
    check_choice("objective", objective, OBJECTIVES)
    space = space if isinstance(space, Space) else Space(space)
    limits = limits_of(constraints)
    if not isinstance(workload, (Workload, Op)):
        raise KPUError(f"workload must be a Workload or an operation, got {type(workload).__name__}")
    net = workload if isinstance(workload, Workload) else Workload.from_ops([("op", workload)])
    count = int(check_number("retime_chips", retime_chips, "chips", low=1, integer=True))
    summary = evaluate_range(
        space, net.ops, 0, space.geometries, objective=objective, constraints=limits, progress=progress
    )
    if not summary.met:
        raise KPUError(_nobody(space, net, objective, limits))
    return SweepResult(space, net, objective, limits, summary, retime(space, net, summary, objective, limits, count))


def limits_of(constraints: Mapping[str, float] | None) -> dict[str, float]:
    """Checked upper limits by name of `CONSTRAINTS`. Raises `KPUError` for unknown names and numbers not positive."""
    limits = {}
    for name, value in (constraints or {}).items():
        if name not in CONSTRAINTS:
            raise KPUError(f"constraints: {name!r} is unknown: {nearest(name, CONSTRAINTS)}")
        limits[name] = check_number(f"constraints.{name}", value, CONSTRAINTS[name], low=0, low_open=True)
    return limits


def _nobody(space: Space, net: Workload, objective: str, limits: dict[str, float]) -> str:
    free = evaluate_range(space, net.ops, 0, space.geometries, objective=objective)
    if not free.met:
        return f"no chip of the space can hold one tile of every operation ({len(space):,} chips): enlarge L3, L2 or L1"
    seconds, energy, area = free.front_points.T
    measures = {"area_mm2": area, "power_w": energy * 1e-12 / seconds, "seconds": seconds, "energy_pj": energy}
    excess = np.max([measures[n] / limit for n, limit in limits.items()], axis=0)
    nearest_chip = int(np.argmin(excess))
    figures = ", ".join(f"{n} {measures[n][nearest_chip]:.4g} (limit {v:g} {CONSTRAINTS[n]})" for n, v in limits.items())
    return f"no chip of the space meets the constraints; the nearest is chip {int(free.front_ids[nearest_chip])}: {figures}"
