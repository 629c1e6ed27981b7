"""Exact times for the chips that a sweep's bound singled out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np

from kpu_jax.explore import front
from kpu_jax.explore.mapping_search import choose, search
from kpu_jax.explore.space import Space
from kpu_jax.mapping import Mapping
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES
from kpu_jax.model.costs import total_area_mm2
from kpu_jax.workload import Workload

if TYPE_CHECKING:
    from kpu_jax.explore.sweep import Summary

BATCH = 8  # chips searched at once
FINALISTS = 4  # mappings timed exactly per operation and chip


@dataclass
class Retimed:
    """Chips [chip] with exact times; the mapping of each operation is the one chosen for the objective."""

    ids: np.ndarray  # index in the space
    seconds: np.ndarray
    energy_pj: np.ndarray
    area_mm2: np.ndarray
    mappings: Mapping  # leaves [chip, row]
    on_front: np.ndarray  # on the exact front of these chips, constraints met
    meets: np.ndarray  # meets the constraints by exact values

    def mapping(self, row: int) -> Mapping:
        """The mappings of one chip, leaves [row of the workload]."""
        return jax.tree.map(lambda v: v[row], self.mappings)

    def measure(self, objective: str) -> np.ndarray:
        """The objective per chip: s, pJ or J s."""
        return {
            "latency": self.seconds,
            "energy": self.energy_pj,
            "edp": self.seconds * self.energy_pj * 1e-12,
        }[objective]

    def best(self, objective: str) -> tuple[int, float]:
        """(row of the best chip that meets the constraints, its value)."""
        values = np.where(self.meets, self.measure(objective), np.inf)
        row = int(np.argmin(values))
        return row, float(values[row])


def retime(space: Space, net: Workload, summary: Summary, objective: str, limits: dict[str, float], count: int) -> Retimed:
    """Search and time exactly `count` chips: the best few per objective, and a spread of the bound's front."""
    ids = _candidates(summary, objective, count)
    seconds, energy, chosen = np.zeros(len(ids)), np.zeros(len(ids)), []
    counts, rows = np.asarray(net.ops.count), np.arange(net.rows)
    for first in range(0, len(ids), BATCH):
        part = ids[first : first + BATCH]
        padded = np.concatenate([part, np.repeat(part[-1:], BATCH - len(part))])
        found = search(space.chips(padded), net.ops, SWEEP_STRATEGIES, objective, finalists=FINALISTS)
        for i in range(len(part)):
            choice = choose(found.seconds[i], found.energy_pj[i], counts, objective)
            chosen.append(jax.tree.map(lambda v, i=i, c=choice: v[i, rows, c], found.mappings))
            seconds[first + i] = (found.seconds[i, rows, choice] * counts).sum()
            energy[first + i] = (found.energy_pj[i, rows, choice] * counts).sum()
    area = np.asarray(total_area_mm2(space.chips(ids)))
    measures = {"area_mm2": area, "power_w": energy * 1e-12 / seconds, "seconds": seconds, "energy_pj": energy}
    meets = np.isfinite(seconds) & np.all([measures[n] <= v for n, v in limits.items()] or [np.isfinite(area)], axis=0)
    points = np.where(meets[:, None], np.stack([seconds, energy, area], axis=1), np.inf)
    _, on_front = front.merge(np.zeros((0, 3)), np.zeros(0, np.int64), points, ids)
    mappings = jax.tree.map(lambda *v: np.stack(v), *chosen)
    return Retimed(ids, seconds, energy, area, mappings, np.isin(ids, on_front), meets)


def _candidates(summary: Summary, objective: str, count: int) -> np.ndarray:
    """Half from the heads of the objectives' lists (the asked one twice as many), half spread over the front."""
    order = [objective, objective, *(o for o in summary.best if o != objective)]
    heads = {o: iter(summary.best[o][:, 1].astype(np.int64)) for o in summary.best}
    chosen: dict[int, None] = {}
    exhausted: set[str] = set()
    while len(chosen) < (count + 1) // 2 and len(exhausted) < len(heads):
        for o in order:
            chip = next(heads[o], None)
            if chip is None:
                exhausted.add(o)
            elif len(chosen) < (count + 1) // 2:
                chosen[int(chip)] = None
    by_time = summary.front_ids[np.argsort(summary.front_points[:, 0], kind="stable")]
    spread = by_time[np.unique(np.linspace(0, len(by_time) - 1, count).astype(int))]
    for chip in spread:
        if len(chosen) >= count:
            break
        chosen[int(chip)] = None
    return np.array(sorted(chosen), np.int64)
