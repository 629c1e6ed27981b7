"""Exact times for the chips that a sweep's bound singled out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from kpu_jax.base.pytree import build
from kpu_jax.explore import front
from kpu_jax.explore.limits import OBJECTIVES, keeps, measures
from kpu_jax.explore.mapping_search import search
from kpu_jax.explore.mix import choose
from kpu_jax.explore.processes import Processes
from kpu_jax.explore.space import Space
from kpu_jax.explore.store import Store
from kpu_jax.explore.summary import Summary
from kpu_jax.hardware.derived import tdp_watts
from kpu_jax.mapping import Mapping
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES
from kpu_jax.model.costs import total_area_mm2
from kpu_jax.workload import Workload

CHIPS_AT_ONCE = 8
FINALISTS = 3  # mappings per operation, chip and objective that may be timed exactly
Point = tuple[int, str, float, float]  # chip, objective, seconds, energy [pJ]


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
    store: Store | None = None,
    processes: Processes | None = None,
) -> Retimed:
    """Search and time exactly up to `count` chips: a spread of the bound's front, then those with the least floor.

    Stops early when no other chip can beat the best of any objective. Groups that are in the `store` are taken from there;
    groups are shared among the `processes`.
    """
    points: list[Point] = []
    mappings: list[Mapping] = []
    seen: set[int] = set()
    processes = Processes() if processes is None else processes
    wanted = _spread(summary, (count + 3) // 4)
    while True:
        groups = [wanted[first : first + CHIPS_AT_ONCE] for first in range(0, len(wanted), CHIPS_AT_ONCE)]
        mine: dict[str, np.ndarray] = {}
        for number in range(processes.this, len(groups), processes.count):
            arrays = _group(space, net, groups[number], limits, store)
            mine.update({f"{number}.{name}": values for name, values in arrays.items()})
            if progress:
                progress(len(groups[number]))
        gathered = {name: values for arrays in processes.gather(mine) for name, values in arrays.items()} if groups else {}
        for number, chips in enumerate(groups):
            more, chosen = _listed({n.partition(".")[2]: v for n, v in gathered.items() if n.startswith(f"{number}.")})
            points, mappings = points + more, mappings + chosen
            seen.update(chips)
        found = _retimed(space, points, mappings, limits) if points else None
        wanted = _most_promising(summary, objective, seen, found, min(CHIPS_AT_ONCE, count - len(seen)))
        if not wanted and found:
            return found


def _group(space: Space, net: Workload, chips: list[int], limits: dict[str, float], store: Store | None) -> dict[str, np.ndarray]:
    """The points of some chips and their mappings as named arrays, from the store where it has them."""

    def timed() -> dict[str, np.ndarray]:
        points, chosen = _time(space, net, np.array(chips), limits)
        chip, name, seconds, energy = (np.array(column) for column in zip(*points, strict=True))
        leaves = jax.tree.leaves(jax.tree.map(lambda *v: np.stack(v), *chosen))
        mappings = {f"mapping_{i}": leaf for i, leaf in enumerate(leaves)}
        return {"chip": chip, "mapped_for": name, "seconds": seconds, "energy_pj": energy, **mappings}

    if store is None:
        return timed()
    digest = hashlib.sha256(np.array(chips, np.int64).tobytes()).hexdigest()[:16]
    return store.part(f"exact-{chips[0]}-{digest}", timed)


def _listed(arrays: dict[str, np.ndarray]) -> tuple[list[Point], list[Mapping]]:
    """(points, mappings) of a group's arrays."""
    columns = (arrays[name].tolist() for name in ("chip", "mapped_for", "seconds", "energy_pj"))
    structure = jax.tree.structure(build(Mapping, **dict.fromkeys(Mapping.__dataclass_fields__, 0.0)))
    leaves = [arrays[f"mapping_{i}"] for i in range(len(Mapping.__dataclass_fields__))]
    mappings = [jax.tree.unflatten(structure, [leaf[i] for leaf in leaves]) for i in range(len(arrays["chip"]))]
    return list(zip(*columns, strict=True)), mappings


def _time(
    space: Space, net: Workload, ids: np.ndarray, limits: dict[str, float]
) -> tuple[list[Point], list[Mapping]]:
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
    space: Space, points: list[Point], chosen: list[Mapping], limits: dict[str, float]
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
