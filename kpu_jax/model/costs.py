"""What a chip costs: energy per action, area, static power. Every constant comes from `cfg.technology`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.engines.rates import activation_cycles, element_cycles
from kpu_jax.hardware import derived
from kpu_jax.model.traffic import LEVELS, OPERANDS, Traffic
from kpu_jax.workload import MAC_FORMATS

Scalar = jax.Array
MIB = 1024.0**2


class Costs(NamedTuple):
    """Energy per action [pJ/byte, pJ] and static power of a chip."""

    read: dict[str, Scalar]  # per memory level [pJ/byte]
    write: dict[str, Scalar]
    mac: tuple[Scalar, ...]  # per multiply-add, by MAC format [pJ]
    vector: Scalar  # per cycle of one vector lane [pJ]
    leakage_w: Scalar
    clock_pj: Scalar  # per fabric cycle, all PEs [pJ]


def area_mm2(cfg: Any) -> dict[str, Scalar]:
    """Area by component [mm^2]: SRAM linear in capacity, the rest linear in counts. Calibrated by technology."""
    t, move, array = cfg.technology, cfg.data_movement, cfg.compute.processor_array
    sram = derived.page_buffer_capacity_bytes(cfg)
    total_gbps = cfg.external_memory.bank_count * cfg.external_memory.bandwidth_gbps
    return {
        "l3": derived.l3_capacity_bytes(cfg) / MIB * t.sram_mm2_per_mib,
        "l2": derived.l2_capacity_bytes(cfg) / MIB * t.sram_mm2_per_mib,
        "l1": derived.l1_capacity_bytes(cfg) / MIB * t.sram_mm2_per_mib,
        "page_buffers": sram / MIB * t.sram_mm2_per_mib,
        "fabric": derived.pe_count(cfg) * t.pe_mm2,
        "vector": cfg.compute.tile_count * array.cols * t.vector_lane_mm2,
        "movers": move.dma_engine_count * t.dma_engine_mm2
        + move.block_mover_count * t.block_mover_mm2
        + move.streamer_count * t.streamer_mm2,
        "controllers": cfg.memory_controller.controller_count * t.controller_mm2 + total_gbps * t.phy_mm2_per_gbps,
    }


def total_area_mm2(cfg: Any) -> Any:
    """Area of the chip [mm^2]."""
    return sum(area_mm2(cfg).values())


def costs_of(cfg: Any) -> Costs:
    """Energy per action and static power of chip `cfg`. SRAM energy grows with the square root of one bank."""
    t, memory = cfg.technology, cfg.on_chip_memory

    def sram(capacity_kb: Scalar, pj: Scalar) -> Scalar:
        return pj * jnp.sqrt(capacity_kb / t.sram_reference_kb)

    sizes = {"l3": memory.l3.tile_capacity_kb, "l2": memory.l2.bank_capacity_kb, "l1": memory.l1.buffer_capacity_kb}
    fixed_read = {"host": t.host_pj_per_byte, "dram": t.dram_read_pj_per_byte, "pe": t.pe_pj_per_byte}
    fixed_write = {"host": t.host_pj_per_byte, "dram": t.dram_write_pj_per_byte, "pe": t.pe_pj_per_byte}
    area = area_mm2(cfg)
    mib = sum(
        f(cfg)
        for f in (
            derived.l3_capacity_bytes,
            derived.l2_capacity_bytes,
            derived.l1_capacity_bytes,
            derived.page_buffer_capacity_bytes,
        )
    )
    logic = area["fabric"] + area["vector"] + area["movers"] + area["controllers"]
    leakage_mw = mib / MIB * t.sram_leakage_mw_per_mib + logic * t.logic_leakage_mw_per_mm2
    return Costs(
        read={**fixed_read, **{lv: sram(kb, t.sram_read_pj_per_byte) for lv, kb in sizes.items()}},
        write={**fixed_write, **{lv: sram(kb, t.sram_write_pj_per_byte) for lv, kb in sizes.items()}},
        mac=tuple(getattr(t, f"mac_{name}_pj") for name in MAC_FORMATS),
        vector=t.vector_op_pj,
        leakage_w=leakage_mw * 1e-3,
        clock_pj=t.clock_pj_per_cycle_per_pe * derived.pe_count(cfg),
    )


def energy_pj(cfg: Any, op: Any, traffic: Traffic, cycles: Scalar) -> dict[str, Scalar]:
    """Energy by memory level and kind of action [pJ] of `op` on `cfg` in `cycles` of its fabric clock.

    Exact given the traffic and the technology's energies per action (which are calibrated).
    """
    costs, work = costs_of(cfg), traffic.elements
    mac = costs.mac[0]
    for code, pj in enumerate(costs.mac[1:], 1):
        mac = jnp.where(op.mac_format == code, pj, mac)
    macs = jnp.where(op.kind < 2, op.batch * op.m * op.n * op.k, 0.0)
    lane_cycles = (work.biased + work.summed) * cfg.vector.cycles_add
    lane_cycles += work.activated * activation_cycles(cfg, op) + work.computed * element_cycles(cfg, op)
    return {
        **moved_pj(costs, traffic.reads, traffic.writes),
        "overfetch": traffic.padding_read * costs.read["dram"] + traffic.padding_write * costs.write["dram"],
        "mac": macs * op.zero_gating * mac,
        "vector": lane_cycles * costs.vector,
        **standing_pj(cfg, costs, cycles),
    }


def moved_pj(costs: Costs, reads: Any, writes: Any) -> dict[str, Any]:
    """Energy of `reads` and `writes` [memory level][operand] [byte], by level [pJ]."""
    return {
        lv: sum(reads[lv][x] for x in OPERANDS) * costs.read[lv] + sum(writes[lv][x] for x in OPERANDS) * costs.write[lv]
        for lv in LEVELS
    }


def standing_pj(cfg: Any, costs: Costs, cycles: Any) -> dict[str, Any]:
    """Energy that the chip takes by being on for `cycles` of its fabric clock, by kind [pJ]."""
    return {"leakage": costs.leakage_w * cycles / (cfg.clocks.fabric_mhz * 1e-6), "clock": costs.clock_pj * cycles}


def edp_and_power(energy_pj: Any, seconds: Any) -> dict[str, Any]:
    """Energy-delay product [J s] and mean power [W] of an energy [pJ] spent in a time [s] that is not 0."""
    return {"edp": energy_pj * 1e-12 * seconds, "power_w": energy_pj * 1e-12 / seconds}
