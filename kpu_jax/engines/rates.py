"""How long each engine class takes: gang rates, external rate, latencies, in cycles of the fabric clock."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div
from kpu_jax.hardware.derived import external_bytes_per_second, host_bytes_per_second
from kpu_jax.workload import ACTIVATIONS

Scalar = jax.Array


@jax.custom_jvp
def binding(memory: Scalar, engines: Scalar) -> Scalar:
    """The larger; at a tie (every preset's DMA gives just the external rate) the slope is that of the `memory`.

    A tie is one up to rounding, so that compiled and eager code, which round differently, agree on the slope.
    """
    return jnp.maximum(memory, engines)


@binding.defjvp
def _binding_jvp(primals: Any, tangents: Any) -> tuple[Scalar, Scalar]:
    memory, engines = primals
    slack = 8 * jnp.finfo(jnp.result_type(memory, engines)).eps * jnp.abs(engines)
    by_memory, by_engines = tangents
    return jnp.maximum(memory, engines), jnp.where(memory >= engines - slack, by_memory, by_engines)


class Gang(NamedTuple):
    """All engines of a class, serving one transfer as a whole."""

    engines: Scalar
    bus: Scalar  # bytes per engine and engine cycle
    cycles: Scalar  # fabric cycles per engine cycle
    limit: Scalar  # bytes per fabric cycle that the memory behind it sustains
    latency: Scalar  # fabric cycles from the end of a transfer to its completion; the engine is free meanwhile

    def hold(self, size: Scalar) -> Scalar:
        """Fabric cycles for which a transfer of `size` bytes holds the gang (`design.md`, section 2).

        Engines and buses are whole numbers, so one ceiling serves both: ceil(ceil(x / m) / n) = ceil(x / (m n)).
        """
        return binding(size / self.limit, self.serve(size))

    def serve(self, size: Scalar) -> Scalar:
        """Fabric cycles of the engines' own work on a transfer, if the memory behind them keeps up."""
        return ceil_div(size, self.engines * self.bus) * self.cycles

    def slower(self, factor: Scalar) -> Gang:
        """The same engines with all durations and latencies `factor` times as long."""
        return self._replace(cycles=self.cycles * factor, limit=self.limit / factor, latency=self.latency * factor)

    def hold_at_least(self, size: Scalar) -> Scalar:
        """A lower bound on the holds of transfers that carry `size` bytes in total: no rounding up."""
        return size / self.peak

    @property
    def peak(self) -> Scalar:
        """Bytes per fabric cycle when nothing is rounded up."""
        return -binding(-self.limit, -(self.engines * self.bus / self.cycles))


class Rates(NamedTuple):
    """Everything about the chip that the duration of a schedule depends on."""

    host: Gang  # the link; its transfers also hold the memory channels, and so the DMA
    dma: Gang
    block_mover: Gang
    streamer: Gang
    bias: Scalar  # vector-engine cycles per element and lane
    activation: Scalar
    element: Scalar  # vector-engine cycles per element and lane of a vector operation
    stream: Scalar  # cycles for which one streamed element holds the fabric: 1 of its own clock
    overlap: Scalar  # 1: passes overlap (the KPU), 0: each pass fills and drains on its own
    fill_drain: Scalar  # fabric cycles between the last operand of a pass and its completion
    unload: Scalar  # fabric cycles for which leaving results hold the array after a pass


def activation_cycles(cfg: Any, op: Any) -> Any:
    """Vector-engine cycles per element and lane of the operation's activation."""
    cycles = jnp.zeros_like(op.activation)
    for code, name in enumerate(ACTIVATIONS[1:], 1):
        cycles = jnp.where(op.activation == code, getattr(cfg.vector, f"cycles_{name}"), cycles)
    return cycles


def element_cycles(cfg: Any, op: Any) -> Scalar:
    """Vector-engine cycles per element and lane of a vector operation: its primitives one after the other."""
    v = cfg.vector
    simple = op.vector_simple * v.cycles_add
    special = op.vector_exp * v.cycles_exp + op.vector_div * v.cycles_div + op.vector_sqrt * v.cycles_sqrt
    return simple + special + activation_cycles(cfg, op)


def fill_drain(cfg: Any, op: Any, dataflow: Scalar) -> Scalar:
    """Fabric cycles that a pass takes beyond its stream (`design.md`, section 2).

    rows + cols - 2; without overlap a weight- or input-stationary pass also waits for its preload, rows more.
    """
    array, alone = cfg.compute.processor_array, cfg.compute.fold_overlap <= 0
    preload = jnp.where(alone & (dataflow > 0), array.rows, 0.0)
    return jnp.where(op.kind < 2, array.rows + array.cols - 2 + preload, 0.0)


def unload(cfg: Any, op: Any, dataflow: Scalar) -> Scalar:
    """Fabric cycles for which leaving results hold the array after a pass: none if they leave during the next.

    Without a second register per PE, output-stationary results are shifted out along the columns, `rows` cycles.
    """
    held = (cfg.compute.drain_overlap <= 0) & (dataflow == 0) & (op.kind < 2)
    return jnp.where(held, cfg.compute.processor_array.rows, 0.0)


def rates_of(cfg: Any, op: Any, dataflow: Scalar) -> Rates:
    """The rates of chip `cfg` for `op` under a `dataflow` (a code).

    Exact; differentiable in clocks, bandwidths, buses and latencies.
    """
    hz = cfg.clocks.fabric_mhz * 1e6
    ns = hz * 1e-9
    move, buses, clocks, latency = cfg.data_movement, cfg.buses, cfg.clocks, cfg.latency
    external = external_bytes_per_second(cfg) / hz
    host = jnp.minimum(host_bytes_per_second(cfg) / hz, external)
    one, unlimited = jnp.ones_like(hz), jnp.full_like(hz, 1e30)

    def gang(engines: Scalar, bus: Scalar, mhz: Scalar, limit: Scalar, delay_ns: Scalar) -> Gang:
        return Gang(engines, bus, clocks.fabric_mhz / mhz, limit, delay_ns * ns)

    return Rates(
        host=Gang(one, unlimited, one * 0, host, latency.host_ns * ns),
        dma=gang(move.dma_engine_count, buses.dma_bytes, clocks.dma_mhz, external, latency.external_ns),
        block_mover=gang(
            move.block_mover_count, buses.block_mover_bytes, clocks.block_mover_mhz, unlimited, latency.block_mover_ns
        ),
        streamer=gang(move.streamer_count, buses.streamer_bytes, clocks.streamer_mhz, unlimited, latency.streamer_ns),
        bias=jnp.where(op.has_bias > 0, cfg.vector.cycles_add, 0.0),
        activation=jnp.where(op.kind < 2, activation_cycles(cfg, op), 0.0),
        element=jnp.where(op.kind < 2, 0.0, element_cycles(cfg, op)),
        stream=one,
        overlap=cfg.compute.fold_overlap,
        fill_drain=fill_drain(cfg, op, dataflow),
        unload=unload(cfg, op, dataflow),
    )
