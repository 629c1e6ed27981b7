"""The roofline model with one roof per memory level (Williams, Waterman, Patterson, CACM 52(4), 2009)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kpu_jax.analysis.subjects import rows_of
from kpu_jax.hardware import KPUConfig, derived
from kpu_jax.model.report import Report
from kpu_jax.workload import Op, Workload

ROOF_LEVELS = {"host": "host", "dram": "dma", "l3": "block_mover", "l2": "streamer"}  # level -> engine class that carries its traffic


class Roofline(NamedTuple):
    """Roofs of a chip and the points of its operations; float64. Vector operations have no multiply-adds: performance 0."""

    levels: tuple[str, ...]  # memory levels, outermost first
    bandwidth: np.ndarray  # [level] peak rate of the engines and memory at that level [byte/s]
    peak: np.ndarray  # [row] peak of the chip at the operation's width, two operations per multiply-add [op/s]
    names: tuple[str, ...]  # of the rows
    performance: np.ndarray  # [row] achieved [op/s]
    intensity: np.ndarray  # [level, row] operations per byte carried at that level [op/byte]; inf without bytes

    @property
    def roof(self) -> np.ndarray:
        """[level, row]: what each level allows, at most the peak [op/s]."""
        return np.minimum(self.peak, self.bandwidth[:, None] * self.intensity)

    @property
    def ridge(self) -> np.ndarray:
        """[level, row]: intensity from which on the level no longer limits [op/byte]."""
        return self.peak / self.bandwidth[:, None]

    @property
    def limit(self) -> tuple[str, ...]:
        """[row] the level with the lowest roof, "compute" where none is below the peak."""
        lowest = np.argmin(self.roof, axis=0)
        below = np.min(self.roof, axis=0) < self.peak
        return tuple(self.levels[i] if b else "compute" for i, b in zip(lowest, below, strict=True))


def roofline(cfg: KPUConfig, workload: Op | Workload, report: Report) -> Roofline:
    """Roofs of `cfg` and where the operations of `workload` lie by their `report`.

    A level's bytes are those that the engines below it carry: the host link, DMA (burst padding included; it also waits
    for the host's transfers, which hold the memory channels), block movers, streamers (whose drains last longer where
    the vector engine does). They follow from the report's `busy`, the least time that each class is held, so achieved
    performance lies under every roof for any mapping. Raises `KPUError` for a report of another workload, a stacked
    or an infeasible one.
    """
    ops, names, each = rows_of("roofline", cfg, workload, report)
    bits = np.clip(np.maximum(ops.a_bits, ops.b_bits), 1, 32)
    operations, bandwidth = 2.0 * np.atleast_1d(each.macs), _bandwidth(cfg)
    held = np.stack([np.atleast_1d(each.busy[engine]) for engine in ROOF_LEVELS.values()])  # [level, row] fabric cycles
    carried = bandwidth[:, None] * held / (float(cfg.clocks.fabric_mhz) * 1e6)
    return Roofline(
        levels=tuple(ROOF_LEVELS),
        bandwidth=bandwidth,
        peak=np.broadcast_to(derived.peak_ops_per_second(cfg, bits), operations.shape).copy(),
        names=names,
        performance=operations / np.atleast_1d(each.seconds),
        intensity=np.divide(operations, carried, out=np.full(carried.shape, np.inf), where=carried > 0),
    )


def _bandwidth(cfg: KPUConfig) -> np.ndarray:
    """[level] byte/s: the slower of the engines at their buses and the memory behind them."""
    move, bus, clock = cfg.data_movement, cfg.buses, cfg.clocks
    dma = move.dma_engine_count * bus.dma_bytes * clock.dma_mhz * 1e6
    movers = move.block_mover_count * bus.block_mover_bytes * clock.block_mover_mhz * 1e6
    streamers = move.streamer_count * bus.streamer_bytes * clock.streamer_mhz * 1e6
    external = derived.external_bytes_per_second(cfg)
    host = np.minimum(derived.host_bytes_per_second(cfg), external)
    return np.array([host, np.minimum(dma, external), movers, streamers], np.float64)
