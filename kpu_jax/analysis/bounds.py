"""What no schedule can beat: compulsory bytes, the I/O lower bound, and the time of the multipliers and of the memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kpu_jax.analysis.subjects import rows_of
from kpu_jax.hardware import KPUConfig, derived
from kpu_jax.model.report import Report
from kpu_jax.workload import Op, Workload
from kpu_jax.workload.footprint import element_bytes


class Bounds(NamedTuple):
    """Lower bounds next to what was achieved; float64 [row of the workload], [1] for one operation, counts applied."""

    names: tuple[str, ...]
    external_bytes: np.ndarray  # read plus written at external memory [byte]
    compulsory_bytes: np.ndarray  # every external operand once [byte]
    io_bytes: np.ndarray  # I/O lower bound [byte]; 0 where it says nothing
    cycles: np.ndarray  # achieved [fabric cycles]
    compute_cycles: np.ndarray  # multiply-adds at the chip's peak [fabric cycles]
    memory_cycles: np.ndarray  # the larger of the two byte bounds at the external rate [fabric cycles]
    schedule_cycles: np.ndarray  # lower bound for this very schedule [fabric cycles]

    @property
    def least_bytes(self) -> np.ndarray:
        """The larger of the two bounds on external bytes [byte]."""
        return np.maximum(self.compulsory_bytes, self.io_bytes)

    @property
    def least_cycles(self) -> np.ndarray:
        """The larger of the compute and the memory bound [fabric cycles]."""
        return np.maximum(self.compute_cycles, self.memory_cycles)

    @property
    def traffic_ratio(self) -> np.ndarray:
        """External bytes over the least possible: 1 is optimal; nan where nothing must move."""
        return _ratio(self.external_bytes, self.least_bytes)

    @property
    def time_ratio(self) -> np.ndarray:
        """Cycles over the least possible: 1 is optimal; nan where nothing bounds them."""
        return _ratio(self.cycles, self.least_cycles)


def bounds(cfg: KPUConfig, workload: Op | Workload, report: Report) -> Bounds:
    """The bounds of `workload` on `cfg`, and how near its `report` comes to them.

    Compulsory bytes and the compute bound are exact lower bounds for any schedule. The I/O bound, 2 M N K / sqrt(S) - 2 S
    words with S words of fast memory (Smith et al., "A tight I/O lower bound for matrix multiplication", 2019), holds
    for dense GEMMs whose operands start and end in external memory, and is 0 for others. Raises `KPUError` for a report
    of another workload, a stacked one, or an infeasible one.
    """
    ops, names, each = rows_of("bounds", cfg, workload, report)
    count = np.atleast_1d(ops.count)
    bits = np.clip(np.maximum(ops.a_bits, ops.b_bits), 1, 32)
    compulsory, rate = np.atleast_1d(each.compulsory), derived.external_bytes_per_second(cfg)
    io = np.atleast_1d(io_lower_bound(cfg, ops)) * count
    least = np.maximum(compulsory, io)
    return Bounds(
        names=names,
        external_bytes=np.atleast_1d(sum(each.traffic["dram"].values())),
        compulsory_bytes=compulsory,
        io_bytes=io,
        cycles=np.atleast_1d(each.cycles),
        compute_cycles=np.atleast_1d(each.macs / derived.peak_macs_per_cycle(cfg, bits)),
        memory_cycles=least / rate * float(cfg.clocks.fabric_mhz) * 1e6,
        schedule_cycles=np.atleast_1d(each.cycles_bound),
    )


def io_lower_bound(cfg: KPUConfig, op: Op) -> np.ndarray:
    """Bytes that one execution of `op` must move over the external interface by the I/O law (`bounds`), 0 where none holds."""
    widths = element_bytes(op)
    narrowest = np.min(np.broadcast_arrays(*widths), axis=0)
    width = np.where(narrowest > 0, narrowest, 1.0)
    words = fast_memory_bytes(cfg, op) / width
    partial = width * (2 * op.batch * op.m * op.n * op.k / np.sqrt(words) - 2 * words)
    external = (op.loc_a == 1) & (op.loc_b == 1) & (op.loc_c == 1)
    dense = external & (op.kind == 0) & (op.density_a == 1) & (op.density_b == 1)
    return np.where(dense, np.maximum(partial, 0.0), 0.0)


def fast_memory_bytes(cfg: KPUConfig, op: Op) -> Any:
    """Bytes between external memory and the multipliers: L3, L2, L1, page buffers, and the registers of the PEs.

    A PE is granted the operands of one cycle, twice, and one accumulator.
    """
    ea, eb, _, acc = element_bytes(op)
    bits = np.clip(np.maximum(op.a_bits, op.b_bits), 1, 32)
    memories = (derived.l3_capacity_bytes, derived.l2_capacity_bytes, derived.l1_capacity_bytes, derived.page_buffer_capacity_bytes)
    return sum(memory(cfg) for memory in memories) + derived.pe_count(cfg) * (2 * derived.macs_per_pe(cfg, bits) * (ea + eb) + acc)


def _ratio(value: np.ndarray, least: np.ndarray) -> np.ndarray:
    return np.divide(value, least, out=np.full(np.shape(value), np.nan), where=least > 0)
