"""Work that the chip cannot do: its arrays cross the host interface, there and back, and the chip waits.

A transfer takes the link's latency and its bytes at the link's rate (or the external memory's, if that is lower), as the
exact model's host transfers do. What the host itself takes is not known here, and not counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from kpu_jax.base.pytree import build
from kpu_jax.hardware import KPUConfig
from kpu_jax.hardware.derived import external_bytes_per_second, host_bytes_per_second
from kpu_jax.model.bound import ENGINES
from kpu_jax.model.costs import costs_of, edp_and_power, moved_pj, standing_pj
from kpu_jax.model.report import Report
from kpu_jax.model.traffic import LEVELS, OPERANDS
from kpu_jax.workload import HostWork

Table = Mapping[str, Mapping[str, float]]
"""Bytes [memory level][operand]."""


class HostTransfer(NamedTuple):
    """One piece of host work, all its repeats: its arrays leave as C's, and come back as A's."""

    name: str
    function: str
    reason: str
    repeats: float
    bytes_to_host: float  # [byte]
    bytes_from_host: float
    seconds: float  # of both transfers [s]
    energy: Mapping[str, float]  # by level and kind, as of a `Report` [pJ]

    @property
    def reads(self) -> Table:
        return _table(dram={"C": self.bytes_to_host}, host={"A": self.bytes_from_host})

    @property
    def writes(self) -> Table:
        return _table(host={"C": self.bytes_to_host}, dram={"A": self.bytes_from_host})

    @property
    def energy_pj(self) -> float:
        return sum(self.energy.values())


def _table(**moved: Mapping[str, float]) -> Table:
    return {level: {x: moved.get(level, {}).get(x, 0.0) for x in OPERANDS} for level in LEVELS}


def transfer_of(cfg: KPUConfig, work: HostWork) -> HostTransfer:
    """What crosses the host interface for `work`."""
    rate = min(float(host_bytes_per_second(cfg)), float(external_bytes_per_second(cfg)))
    sizes = work.bytes_to_host, work.bytes_from_host
    once = sum(float(cfg.latency.host_ns) * 1e-9 + size / rate for size in sizes if size > 0)
    there, back = (work.repeats * size for size in sizes)
    moved = HostTransfer(work.name, work.function, work.reason, work.repeats, there, back, work.repeats * once, {})
    with jax.enable_x64(True):
        costs = costs_of(cfg)
        energy = moved_pj(costs, moved.reads, moved.writes) | standing_pj(cfg, costs, _cycles(cfg, moved))
        return moved._replace(energy={name: float(pj) for name, pj in energy.items()})


def _cycles(cfg: KPUConfig, transfer: HostTransfer) -> float:
    """Fabric cycles that a transfer takes."""
    return transfer.seconds * float(cfg.clocks.fabric_mhz) * 1e6


def with_transfers(report: Report, cfg: KPUConfig, transfers: tuple[HostTransfer, ...]) -> Report:
    """The report of a network and of its host work, one after the other."""
    for t in transfers:
        cycles = _cycles(cfg, t)
        busy = {name: held + (cycles if name in ("host", "dma") else 0.0) for name, held in report.busy.items()}
        total_pj, seconds = report.energy_pj + t.energy_pj, report.seconds + t.seconds
        changed = {
            "cycles": report.cycles + cycles,
            "cycles_bound": report.cycles_bound + cycles,
            "seconds": seconds,
            "energy_pj": total_pj,
            **edp_and_power(total_pj, seconds),
            "utilization": report.utilization * report.cycles / (report.cycles + cycles),
            "reads": _sum(report.reads, t.reads),
            "writes": _sum(report.writes, t.writes),
            "compulsory": report.compulsory + t.bytes_to_host + t.bytes_from_host,
            "energy": {name: pj + t.energy.get(name, 0.0) for name, pj in report.energy.items()},
            "busy": busy,
            "bound_by_code": np.float64(np.argmax([busy[name] for name in ENGINES])),
        }
        report = build(Report, **{f.name: changed.get(f.name, getattr(report, f.name)) for f in dataclasses.fields(Report)})
    return report


def _sum(a: Any, b: Table) -> Any:
    return jax.tree.map(lambda x, y: x + y, a, b)
