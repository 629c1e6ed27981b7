"""Exact times for the chips that a sweep's bound singled out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from kpu_jax.explore import front
from kpu_jax.explore.limits import OBJECTIVES, keeps, measures
from kpu_jax.explore.mapping_search import search
from kpu_jax.explore.mix import choose
from kpu_jax.explore.space import Space
from kpu_jax.explore.summary import Summary
from kpu_jax.hardware.derived import tdp_watts
from kpu_jax.mapping import Mapping
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES
from kpu_jax.model.costs import total_area_mm2
from kpu_jax.workload import Workload

CHIPS_AT_ONCE = 8
FINALISTS = 3  # mappings per operation, chip and objective that may be timed exactly


@dataclass
class Retimed:
    """Exact results [point]: every chip appears once for each objective that its mappings were chosen for."""

    ids: np.ndarray  # index of the chip in the space
    mapped_for: np.ndarray  # the objective that the mappings were chosen for
    seconds: np.ndarray
    energy_pj: np.ndarray
    area_mm2: np.ndarray
    tdp_w: np.ndarray
    mappings: Mapping  # leaves [point, row of the workload]
    meets: np.ndarray  # keeps the limits
    on_front: np.ndarray  # on the front of these points over (latency, energy, area), limits kept

    @property
    def chips(self) -> int:
        """Number of chips that were timed exactly."""
        return len(np.unique(self.ids))

    def mapping(self, point: int) -> Mapping:
        """The mappings of one point, leaves [row of the workload]."""
        return jax.tree.map(lambda v: v[point], self.mappings)

    def measure(self, objective: str) -> np.ndarray:
        """The objective per point: s, pJ or J s."""
        return {"latency": self.seconds, "energy": self.energy_pj, "edp": self.seconds * self.energy_pj * 1e-12}[objective]

    def best(self, objective: str) -> tuple[int, float]:
        """(the best point within the limits, its value); the value is infinite if there is none."""
        values = np.where(self.meets, self.measure(objective), np.inf)
        point = int(np.argmin(values))
        return point, float(values[point])


def retime(
    space: Space,
    net: Workload,
    summary: Summary,
    objective: str,
    limits: dict[str, float],
    count: int,
    progress: Callable[[int], None] | None = None,
) -> Retimed:
    """Search and time exactly up to `count` chips: a spread of the bound's front, then those with the least floor.

    Stops early when no other chip can beat the best of any objective.
    """
    points: list[tuple[int, str, float, float]] = []
    mappings: list[Mapping] = []
    seen: set[int] = set()
    wanted = _spread(summary, (count + 3) // 4)
    while True:
        for first in range(0, len(wanted), CHIPS_AT_ONCE):
            part = wanted[first : first + CHIPS_AT_ONCE]
            more, chosen = _time(space, net, np.array(part), limits)
            points, mappings = points + more, mappings + chosen
            seen.update(part)
            if progress:
                progress(len(part))
        found = _retimed(space, points, mappings, limits) if points else None
        wanted = _most_promising(summary, objective, seen, found, min(CHIPS_AT_ONCE, count - len(seen)))
        if not wanted and found:
            return found


def _time(
    space: Space, net: Workload, ids: np.ndarray, limits: dict[str, float]
) -> tuple[list[tuple[int, str, float, float]], list[Mapping]]:
    """((chip, objective, seconds, energy), mappings) of every chip and objective."""
    counts, rows = np.asarray(net.ops.count), np.arange(net.rows)
    padded = np.concatenate([ids, np.repeat(ids[-1:], CHIPS_AT_ONCE - len(ids))])
    found = search(space.chips(padded), net.ops, SWEEP_STRATEGIES, OBJECTIVES, finalists=FINALISTS, chips_used=len(ids))
    points, chosen = [], []
    for i, chip in enumerate(ids.tolist()):
        seconds, energy = found.seconds[i], found.energy_pj[i]
        for name in OBJECTIVES:
            choice = choose(seconds, energy, counts, name, limits)
            d, e = (float(np.sum(v[rows, choice] * counts)) for v in (seconds, energy))
            points.append((chip, name, d, e))
            chosen.append(jax.tree.map(lambda v, i=i, c=choice: v[i, rows, c], found.mappings))
    return points, chosen


def _retimed(
    space: Space, points: list[tuple[int, str, float, float]], chosen: list[Mapping], limits: dict[str, float]
) -> Retimed:
    mappings = jax.tree.map(lambda *v: np.stack(v), *chosen)
    chip, name, d, e = (np.array(column) for column in zip(*points, strict=True))
    chips = space.chips(chip)
    area, tdp = np.asarray(total_area_mm2(chips)), np.asarray(tdp_watts(chips))
    meets = keeps(limits, measures(d, e, area, tdp))
    objectives = np.where(meets[:, None], np.stack([d, e, area], axis=1), np.inf)
    _, on_front = front.merge(np.zeros((0, 3)), np.zeros(0, np.int64), objectives, np.arange(len(chip)))
    return Retimed(chip, name, d, e, area, tdp, mappings, meets, np.isin(np.arange(len(chip)), on_front))


def _spread(summary: Summary, count: int) -> list[int]:
    """Chips spread over the bound's front, fastest first."""
    by_time = summary.front_ids[np.argsort(summary.front_points[:, 0], kind="stable")]
    if not len(by_time):
        return []
    return list(dict.fromkeys(by_time[np.linspace(0, len(by_time) - 1, count).astype(int)].tolist()))


def _most_promising(summary: Summary, objective: str, seen: set[int], found: Retimed | None, count: int) -> list[int]:
    """Unseen chips that could still be best for some objective, least floor first; the asked one's twice as many."""

    def contenders(name: str) -> list[int]:
        best = np.inf if found is None else found.best(name)[1]
        return [int(chip) for floor, chip in summary.best[name] if floor < best and int(chip) not in seen]

    lists = {name: iter(contenders(name)) for name in summary.best}
    order = [objective, objective, *(name for name in summary.best if name != objective)]
    chosen: dict[int, None] = {}
    while len(chosen) < count and lists:
        for name in order:
            chip = next(lists[name], None) if name in lists else None
            if chip is None:
                lists.pop(name, None)
            elif len(chosen) < count:
                chosen[chip] = None
    return list(chosen)
