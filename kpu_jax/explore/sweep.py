"""Sweep a space of chips: every chip by the bound on the device, the best ones again by exact time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, check_choice, check_number
from kpu_jax.explore import front
from kpu_jax.explore.kernel import Laid, Totals, evaluate_block, lay_block
from kpu_jax.explore.limits import CONSTRAINTS, OBJECTIVES, floors, keeps, limits_of, measures
from kpu_jax.explore.retime import Retimed, retime
from kpu_jax.explore.space import Space
from kpu_jax.explore.summary import Summary, least_kept
from kpu_jax.hardware import KPUConfig
from kpu_jax.hardware.derived import tdp_watts
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES
from kpu_jax.workload import Op, Workload, check_workload
from kpu_jax.workload.padding import pad_rows

BLOCK_EVALUATIONS = 8_000_000  # chips x operations x mappings on the device at once: bounds the memory
Progress = Callable[[int], None]


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
        """Per objective: what no chip that was not timed exactly can fall below within the limits and the stated set."""
        seen = set(self.retimed.ids.tolist())
        return {name: self.summary.floor(name, seen) for name in OBJECTIVES}

    @property
    def certified(self) -> dict[str, bool]:
        """Per objective: is the best chip that was timed exactly the best of the space (within the stated set)?"""
        return {name: self.retimed.best(name)[1] <= floor for name, floor in self.floor.items()}

    def best_chip(self, objective: str | None = None) -> KPUConfig:
        """The best chip by exact time that keeps the limits."""
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
    block_evaluations: int = BLOCK_EVALUATIONS,
) -> Summary:
    """Evaluate the chips [start, stop) of `space` by the bound; memory does not depend on their number.

    Work is laid out in float64 and timed in float32, which keeps 1e-5 relative; floors allow for that. Ranges may be cut
    anywhere without changing a bit; another block size may change the last one.
    """
    base64, table64 = (jax.tree.map(lambda v: np.asarray(v, np.float64), t) for t in (space.base, pad_rows(ops)))
    base, table = _float32(base64), _float32(table64)
    rows = np.asarray(strategies, np.float64)
    per_chip = len(table.m) * len(rows)
    speeds = max(1, min(space.speeds, block_evaluations // per_chip))
    geometries = max(1, min(space.geometries, block_evaluations // (per_chip * speeds)))
    total, limits = Summary(), dict(constraints or {})
    for first in range(start // space.speeds, -(-stop // space.speeds), geometries):
        geometry_index = np.arange(first, first + geometries)
        geometry = _geometry(space, np.minimum(geometry_index, space.geometries - 1))
        with jax.enable_x64(True):
            laid: Laid = _float32(lay_block(base64, geometry, table64, rows))
        for speed_first in range(0, space.speeds, speeds):
            speed_index = np.arange(speed_first, speed_first + speeds)
            ids = geometry_index[:, None] * space.speeds + speed_index
            keep = (geometry_index < space.geometries)[:, None] & (speed_index < space.speeds) & (ids >= start) & (ids < stop)
            if not keep.any():
                continue
            speed = _speed(space, np.minimum(speed_index, space.speeds - 1))
            totals = evaluate_block(base, _float32(geometry), speed, table, laid, objective)
            kept = jax.tree.map(lambda v, k=keep: np.asarray(v, np.float64)[k], totals)
            part = _summarise(kept, ids[keep], limits, total)
            part.evaluations = len(ids[keep]) * int(np.sum(table64.count > 0)) * len(rows)
            total = total + part
            if progress:
                progress(part.chips)
    return total


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda v: v.astype(np.float32), tree)


def _geometry(space: Space, index: np.ndarray) -> dict[str, np.ndarray]:
    """Values of the geometry axes; a space without any gets its base's compute tiles, so that there is an axis to batch over."""
    return space.geometry_values(index) or {"compute.tile_count": np.full(len(index), float(space.base.compute.tile_count))}


def _speed(space: Space, index: np.ndarray) -> dict[str, np.ndarray]:
    values = space.speed_values(index) or {"clocks.fabric_mhz": np.full(len(index), float(space.base.clocks.fabric_mhz))}
    return _float32(values)


def _summarise(totals: Totals, ids: np.ndarray, limits: dict[str, float], known: Summary) -> Summary:
    floor = floors(totals, limits)
    possible = np.isfinite(floor["latency"])
    kept = keeps(limits, measures(totals.seconds, totals.energy_pj, totals.area_mm2, totals.tdp_w))
    points = np.where(kept[:, None], np.stack([totals.seconds, totals.energy_pj, totals.area_mm2], axis=1), np.inf)
    alive = front.prefilter(points, known.front_points)
    points, front_ids = front.merge(np.zeros((0, 3)), np.zeros(0, np.int64), points[alive], ids[alive])
    best = {o: least_kept(np.stack([floor[o][possible], ids[possible].astype(float)], axis=1)) for o in OBJECTIVES}
    return Summary(len(ids), 0, int(possible.sum()), points, front_ids, best)


def sweep(
    space: Space | Mapping[Any, Any],
    workload: Workload | Op,
    *,
    objective: str = "edp",
    constraints: Mapping[str, float] | None = None,
    retime_chips: int = 48,
    progress: Progress | None = None,
    timed: Progress | None = None,
) -> SweepResult:
    """Which chips of `space` are best for `workload`, with the best mapping of each operation on each chip?

    `space`: a `Space` or its fields. `constraints`: upper limits on "area_mm2", "power_w", "tdp_w", "seconds" or
    "energy_pj". Every chip is screened by the lower bound; the most promising per objective and a spread of the
    Pareto front over (latency, energy, area), `retime_chips` in all, are timed exactly, with the mappings that are
    best for each objective within the limits. `result.certified` says per objective whether any other chip could
    still beat the best. `progress`, `timed`: called with the number of chips just screened, just timed.
    Raises `KPUError` for unknown names, and if no chip keeps the limits (with the nearest one).
    """
    check_choice("objective", objective, OBJECTIVES)
    space = space if isinstance(space, Space) else Space(space)
    limits = limits_of(constraints)
    check_workload(workload)
    net = workload if isinstance(workload, Workload) else Workload.from_ops([("op", workload)])
    count = int(check_number("retime_chips", retime_chips, "chips", low=1, integer=True))
    summary = evaluate_range(space, net.ops, 0, len(space), objective=objective, constraints=limits, progress=progress)
    if not summary.met:
        raise KPUError(_nobody(space, net, objective, limits))
    retimed = retime(space, net, summary, objective, limits, count, timed)
    if not retimed.meets.any():
        raise KPUError(
            f"none of the {retimed.chips} most promising chips keeps the limits by exact time; {_nearest(retimed, limits)}: "
            "widen the limits, or time more chips exactly (retime_chips)"
        )
    return SweepResult(space, net, objective, limits, summary, retimed)


def _nobody(space: Space, net: Workload, objective: str, limits: dict[str, float]) -> str:
    free = evaluate_range(space, net.ops, 0, len(space), objective=objective)
    if not free.met:
        return f"no chip of the space can hold one tile of every operation ({len(space):,} chips): enlarge L3, L2 or L1"
    seconds, energy, area = free.front_points.T
    tdp = np.asarray(tdp_watts(space.chips(free.front_ids)))
    return f"no chip of the space keeps the limits; {_least_excess(free.front_ids, measures(seconds, energy, area, tdp), limits)}"


def _nearest(retimed: Retimed, limits: dict[str, float]) -> str:
    measured = measures(retimed.seconds, retimed.energy_pj, retimed.area_mm2, retimed.tdp_w)
    return _least_excess(retimed.ids, measured, limits)


def _least_excess(ids: np.ndarray, measured: dict[str, np.ndarray], limits: dict[str, float]) -> str:
    """The chip that exceeds the limits least, with its figures."""
    excess = np.max([measured[n] / limit for n, limit in limits.items()] or [np.zeros(len(ids))], axis=0)
    i = int(np.argmin(excess))
    figures = ", ".join(f"{n} {measured[n][i]:.4g} (limit {v:g} {CONSTRAINTS[n]})" for n, v in limits.items())
    return f"the nearest is chip {int(ids[i])}: {figures}"
