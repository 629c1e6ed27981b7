"""Sweep a space of chips: every chip by the bound on the device, the best ones again by exact time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, check_choice, check_number
from kpu_jax.base.tables import Sheet, Shown
from kpu_jax.explore.blocks import blocks_of
from kpu_jax.explore.every_chip import ParquetTable
from kpu_jax.explore.limits import CONSTRAINTS, OBJECTIVES, limits_of, measures
from kpu_jax.explore.processes import Processes
from kpu_jax.explore.retime import Retimed, retime
from kpu_jax.explore.screening import Progress, Screening, evaluate_range
from kpu_jax.explore.space import Space
from kpu_jax.explore.store import Store, describe
from kpu_jax.explore.summary import Summary
from kpu_jax.explore.sweep_table import sweep_sheet
from kpu_jax.hardware import KPUConfig
from kpu_jax.hardware.derived import tdp_watts
from kpu_jax.workload import Op, Workload, check_workload

PARTS = 500  # of a stored sweep at most


@dataclass(repr=False)
class SweepResult(Shown):
    """The answer of a sweep: exact values for the chips in `retimed`, the bound's summary for all."""

    space: Space
    workload: Workload
    objective: str
    constraints: dict[str, float]
    summary: Summary
    retimed: Retimed

    def sheet(self) -> Sheet:
        """What prints: the best chip per objective, and the Pareto set."""
        return sweep_sheet(self)

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


def sweep(
    space: Space | Mapping[Any, Any],
    workload: Workload | Op,
    *,
    objective: str = "edp",
    constraints: Mapping[str, float] | None = None,
    retime_chips: int = 48,
    progress: Progress | None = None,
    timed: Progress | None = None,
    store: str | Path | None = None,
    table: str | Path | None = None,
) -> SweepResult:
    """Which chips of `space` are best for `workload`, with the best mapping of each operation on each chip?

    `space`: a `Space` or its fields. `constraints`: upper limits on "area_mm2", "power_w", "tdp_w", "seconds" or
    "energy_pj". Every chip is screened by the lower bound; the most promising per objective and a spread of the
    Pareto front over (latency, energy, area), `retime_chips` in all, are timed exactly, with the mappings that are
    best for each objective within the limits. `result.certified` says per objective whether any other chip could
    still beat the best. `progress`, `timed`: called with the number of chips just screened, just timed.
    `store`: a folder that keeps what was done. However the process ends, the same call goes on from there, to the same
    bits. Under `jax.distributed` every process calls this alike: the parts are shared out, the results are the same on all.
    `table`: a Parquet file (extra `dataframe`) for the figures of every chip by the bound, see `ParquetTable`; one device
    then evaluates all chips, also those that the store knows, and one process only.
    Raises `KPUError` for a store of another sweep, damaged or not writable,
    for unknown names, and if no chip keeps the limits (with the nearest one); `ProcessLostError` if another process was lost.
    """
    check_choice("objective", objective, OBJECTIVES)
    space = space if isinstance(space, Space) else Space(space)
    limits = limits_of(constraints)
    check_workload(workload)
    net = workload if isinstance(workload, Workload) else Workload.from_ops([("op", workload)])
    count = int(check_number("retime_chips", retime_chips, "chips", low=1, integer=True))
    processes = Processes(store)
    edges = parts_of(space, net)
    description = describe(space, net, objective, limits, edges)
    processes.agree({**description, "retime_chips": count})
    kept = None if store is None else Store(store, description, processes.this)
    if table is None:
        summary = _screen(Screening(space, net.ops, objective, limits), edges, progress, kept, processes)
    elif processes.count > 1:
        raise KPUError("a table of every chip is written by one process: run it alone, or leave the table out")
    else:
        with ParquetTable(table, space, objective, limits) as rows:
            one = Screening(space, net.ops, objective, limits, devices=jax.local_devices()[:1], watcher=rows.add)
            summary = _screen(one, edges, progress, kept, processes, again=True)
    if not summary.chips:
        conditions = " and ".join(each.text for each in space.where)
        raise KPUError(f"no chip of the space meets {conditions}: the space is empty")
    if not summary.met:
        raise KPUError(_nobody(space, net, objective, limits))
    retimed = retime(space, net, summary, objective, limits, count, timed, kept, processes)
    if not retimed.meets.any():
        raise KPUError(
            f"none of the {retimed.chips} most promising chips keeps the limits by exact time; {_nearest(retimed, limits)}: "
            "widen the limits, or time more chips exactly (retime_chips)"
        )
    return SweepResult(space, net, objective, limits, summary, retimed)


def parts_of(space: Space, net: Workload) -> list[int]:
    """Where the space is cut into parts of whole blocks: part i holds the chips from entry i to before the next."""
    blocks = blocks_of(space, net.ops)
    edges = range(0, len(blocks), -(-len(blocks) // PARTS))
    return [blocks.first_chip(block) for block in (*edges, len(blocks))]


def _screen(
    screening: Screening,
    edges: list[int],
    progress: Progress | None,
    store: Store | None,
    processes: Processes,
    again: bool = False,
) -> Summary:
    """Every chip by the bound, in parts of whole blocks that the processes share. `again`: also those that the store has."""
    total, missing = Summary(), []
    for number in range(processes.this, len(edges) - 1, processes.count):
        arrays = None if store is None or again else store.read(_part_name(number))
        if arrays is None:
            missing.append(number)
            continue
        total = total + Summary.from_arrays(arrays)
        if progress:
            progress(edges[number + 1] - edges[number])
    ranges = [(edges[number], edges[number + 1]) for number in missing]
    for number, summary in zip(missing, screening.parts(ranges, progress), strict=True):
        if store is not None:
            store.part(_part_name(number), summary.arrays)
        total = total + summary
    gathered = processes.gather(total.arrays())
    return sum((Summary.from_arrays(arrays) for arrays in gathered), Summary())


def _part_name(number: int) -> str:
    return f"screen-{number:06d}"


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
    binding = max(limits, key=lambda n: float(measured[n][i] / limits[n])) if limits else None
    return f"the nearest is chip {int(ids[i])}: {figures}" + (f"; {binding} binds" if binding else "")
