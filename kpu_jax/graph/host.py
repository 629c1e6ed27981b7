"""Work that the chip cannot do: its arrays cross the host interface, there and back, and the chip waits.

A transfer takes the link's latency and its bytes at the link's rate (or the external memory's, if that is lower), as the
exact model's host transfers do. What the host itself takes is not known here, and not counted.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from kpu_jax.base.pytree import build
from kpu_jax.hardware import KPUConfig
from kpu_jax.hardware.derived import external_bytes_per_second, host_bytes_per_second
from kpu_jax.model.bound import ENGINES
from kpu_jax.model.costs import costs_of
from kpu_jax.model.report import Report
from kpu_jax.workload import HostWork


class HostTransfer(NamedTuple):
    """One piece of host work, all its repeats."""

    name: str
    function: str
    reason: str
    repeats: float
    bytes_to_host: float  # [byte]
    bytes_from_host: float
    seconds: float  # of both transfers [s]


def transfer_of(cfg: KPUConfig, work: HostWork) -> HostTransfer:
    """What crosses the host interface for `work`."""
    rate = min(float(host_bytes_per_second(cfg)), float(external_bytes_per_second(cfg)))
    sizes = work.bytes_to_host, work.bytes_from_host
    once = sum(float(cfg.latency.host_ns) * 1e-9 + size / rate for size in sizes if size > 0)
    there, back = (work.repeats * size for size in sizes)
    return HostTransfer(work.name, work.function, work.reason, work.repeats, there, back, work.repeats * once)


def with_transfers(report: Report, cfg: KPUConfig, transfers: tuple[HostTransfer, ...]) -> Report:
    """The report of a network and of its host work, one after the other."""
    if not transfers:
        return report
    there, back = (sum(getattr(t, name) for t in transfers) for name in ("bytes_to_host", "bytes_from_host"))
    seconds = sum(t.seconds for t in transfers)
    cycles = seconds * float(cfg.clocks.fabric_mhz) * 1e6
    with jax.enable_x64(True):
        costs = costs_of(cfg)
    own = {
        "host": there * float(costs.write["host"]) + back * float(costs.read["host"]),
        "dram": there * float(costs.read["dram"]) + back * float(costs.write["dram"]),
        "leakage": float(costs.leakage_w) * seconds * 1e12,
        "clock": float(costs.clock_pj) * cycles,
    }
    energy = {name: pj + own.get(name, 0.0) for name, pj in report.energy.items()}
    busy = {name: held + (cycles if name in ("host", "dma") else 0.0) for name, held in report.busy.items()}
    total_pj, total_seconds = report.energy_pj + sum(own.values()), report.seconds + seconds
    changed = {
        "cycles": report.cycles + cycles,
        "cycles_bound": report.cycles_bound + cycles,
        "seconds": total_seconds,
        "energy_pj": total_pj,
        "edp": total_pj * 1e-12 * total_seconds,
        "power_w": total_pj * 1e-12 / total_seconds,
        "utilization": report.utilization * report.cycles / (report.cycles + cycles),
        "reads": _added(_added(report.reads, "dram", "C", there), "host", "A", back),
        "writes": _added(_added(report.writes, "host", "C", there), "dram", "A", back),
        "compulsory": report.compulsory + there + back,
        "energy": energy,
        "busy": busy,
        "bound_by_code": np.float64(np.argmax([busy[name] for name in ENGINES])),
    }
    return build(Report, **{f.name: changed.get(f.name, getattr(report, f.name)) for f in dataclasses.fields(Report)})


def _added(table: dict, level: str, operand: str, size: float) -> dict:
    return {**table, level: {**table[level], operand: table[level][operand] + size}}
