"""One operation on one chip as plain numbers, for the bounds of the search."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.engines.rates import activation_cycles, rates_of
from kpu_jax.explore.optimal.axis_counts import UNBOUNDED
from kpu_jax.hardware import derived
from kpu_jax.mapping import DATAFLOWS
from kpu_jax.mapping.rate import rate_of
from kpu_jax.model.costs import costs_of
from kpu_jax.workload.footprint import element_bytes, operand_bytes


class Engines(NamedTuple):
    """The engines of a class, serving one transfer as a whole (`engines.rates.Gang`)."""

    bytes: float  # per cycle of their own clock
    cycles: float  # of the fabric, per one of theirs
    limit: float  # bytes per fabric cycle of the memory behind them
    latency: float  # fabric cycles

    def hold(self, size: Any) -> Any:
        """Fabric cycles that a transfer of `size` bytes takes; never less for more bytes."""
        return np.maximum(size / self.limit, np.ceil(size / self.bytes) * self.cycles)

    def hold_at_least(self, size: Any) -> Any:
        """Fabric cycles that transfers of `size` bytes together take at least."""
        return size / min(self.limit, self.bytes / self.cycles)


class Problem:
    """All that the bounds need to know of a chip and an operation; sizes in elements, bytes, fabric cycles, pJ."""

    def __init__(self, cfg: Any, op: Any) -> None:
        with jax.enable_x64(True):
            rates = [rates_of(cfg, op, jnp.float64(flow)) for flow in range(len(DATAFLOWS))]
            costs = costs_of(cfg)
            self.rate = float(rate_of(cfg, op))
            self.activation = float(activation_cycles(cfg, op))
        self.kind = int(op.kind)
        self.fabric, self.conv = self.kind < 2, self.kind == 1
        self.sizes = tuple(float(getattr(op, axis)) for axis in "mnk")
        self.batch, self.mac_pj = float(op.batch), float(op.zero_gating) * float(costs.mac[int(op.mac_format)])
        self.images, self.channels, self.in_w = float(op.images), float(op.channels), float(op.in_w)
        self.out_h, self.out_w, self.kernel = float(op.out_h), float(op.out_w), float(op.kernel_h) * float(op.kernel_w)
        self.widths = tuple(float(v) for v in element_bytes(op))
        self.whole = tuple(float(v) for v in operand_bytes(op))
        self.locations = tuple(int(v) for v in (op.loc_a, op.loc_b, op.loc_c))
        self.outside = tuple(location < 2 for location in self.locations)
        self.biased, self.reserved_l3 = int(op.has_bias) > 0, float(op.reserved_l3_bytes)

        first = rates[0]
        self.dma, self.mover, self.streamer = (
            Engines(float(g.engines * g.bus), float(g.cycles), float(g.limit), float(g.latency))
            for g in (first.dma, first.block_mover, first.streamer)
        )
        self.fill_drain = tuple(float(r.fill_drain) for r in rates)
        self.overlap = float(first.overlap) > 0
        self.bias, self.element = float(first.bias), float(first.element)
        self.vector = self.bias + float(first.activation)  # per element that leaves L1 complete
        array = cfg.compute.processor_array
        self.rows, self.cols, self.burst = float(array.rows), float(array.cols), float(cfg.buses.burst_bytes)
        self.add_cycles = float(cfg.vector.cycles_add)

        self.read = {level: float(v) for level, v in costs.read.items()}
        self.write = {level: float(v) for level, v in costs.write.items()}
        self.vector_pj = float(costs.vector)
        self.seconds_per_cycle = 1 / (float(cfg.clocks.fabric_mhz) * 1e6)
        self.pj_per_cycle = float(costs.leakage_w) * 1e12 * self.seconds_per_cycle + float(costs.clock_pj)

        self.tiles = int(cfg.compute.tile_count)
        self.l3_bytes, self.l2_bytes = (float(f(cfg)) for f in (derived.l3_capacity_bytes, derived.l2_capacity_bytes))
        self.l1_bytes = float(cfg.on_chip_memory.l1.buffer_capacity_kb) * 1024
        self.l1_buffers = float(derived.l1_buffer_count(cfg))

    def extents(self, flow: int) -> tuple[float, float, float]:
        """Elements along (m, n, k) that one pass covers under a dataflow."""
        if not self.fabric:
            return UNBOUNDED, UNBOUNDED, UNBOUNDED
        m = (self.rows, UNBOUNDED, self.cols)[flow]
        n = (self.cols, self.cols, UNBOUNDED)[flow]
        return m, n, UNBOUNDED if flow == 0 else self.rows * self.rate

    @property
    def together(self) -> tuple[float, float, float]:
        """Elements along (m, n, k) that stream side by side."""
        return (1.0, 1.0, self.rate) if self.fabric else (self.cols, 1.0, 1.0)
