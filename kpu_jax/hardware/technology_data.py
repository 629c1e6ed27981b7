"""Energy, area and power per action at 45, 22, 16 and 7 nm, each number with its source.

Method. Arithmetic: 45 nm is Horowitz (bare multiplier and adder), 16 nm the notes of stillwater-sc/kpu-sim, 22 nm lies
between them on a line in log(energy) over log(node), and 7 nm follows from 16 nm by the exponent that leads from
Horowitz's 45 nm to Jouppi's 7 nm. The 45 and 16 nm sources do not count the same circuits: int8 is flat between them.
SRAM: CACTI 7, 32 KiB, 64-bit port, at 45 and 22 nm; below by the exponent of the 32 KB access in the same two papers.
Areas and leakage without a source say 'assumed'.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from kpu_jax.hardware.dram import DRAM_KINDS

TECHNOLOGY_UNITS: dict[str, tuple[str, str]] = {  # leaf -> unit, meaning
    "node_nm": ("nm", "process node that the constants stand for (a label: no formula reads it)"),
    "host_pj_per_byte": ("pJ/byte", "host link"),
    "dram_read_pj_per_byte": ("pJ/byte", "external memory read, device and interface"),
    "dram_write_pj_per_byte": ("pJ/byte", "external memory write, device and interface"),
    "sram_reference_kb": ("KB", "capacity that the two SRAM energies hold for"),
    "sram_read_pj_per_byte": ("pJ/byte", "SRAM read at the reference capacity; elsewhere x sqrt(capacity/reference)"),
    "sram_write_pj_per_byte": ("pJ/byte", "SRAM write at the reference capacity; elsewhere x sqrt(capacity/reference)"),
    "pe_pj_per_byte": ("pJ/byte", "operand register of a PE"),
    **{
        f"mac_{kind}_pj": ("pJ", f"one {kind} multiply-add")
        for kind in ("int4", "int8", "int16", "int32", "fp4", "fp8", "fp16", "bf16", "fp32")
    },
    "vector_op_pj": ("pJ", "one cycle of one vector lane"),
    "sram_mm2_per_mib": ("mm^2/MiB", "SRAM area"),
    "pe_mm2": ("mm^2", "one PE"),
    "vector_lane_mm2": ("mm^2", "one vector lane"),
    "dma_engine_mm2": ("mm^2", "one DMA engine"),
    "block_mover_mm2": ("mm^2", "one block mover"),
    "streamer_mm2": ("mm^2", "one streamer"),
    "controller_mm2": ("mm^2", "one memory controller without its PHY"),
    "phy_mm2_per_gbps": ("mm^2/(GB/s)", "external memory PHY"),
    "sram_leakage_mw_per_mib": ("mW/MiB", "SRAM leakage"),
    "logic_leakage_mw_per_mm2": ("mW/mm^2", "logic leakage"),
    "clock_pj_per_cycle_per_pe": ("pJ", "clock network, per PE and fabric cycle"),
    "tdp_w_per_tops": ("W/TOPS", "TDP estimate, compute part"),
    "tdp_mw_per_gbps": ("mW/(GB/s)", "TDP estimate, external bandwidth part"),
    "tdp_mw_per_kb": ("mW/KB", "TDP estimate, on-chip memory part"),
}
"""Leaf of `Technology` -> (unit, meaning)."""

NODES: dict[int, str] = {
    45: "arithmetic: Horowitz, ISSCC 2014; SRAM: CACTI 7",
    22: "arithmetic: between 45 and 16 nm; SRAM: CACTI 7, but its 22 nm leakage is not credible and not used",
    16: "arithmetic: stillwater-sc/kpu-sim notes; SRAM: CACTI 7 at 22 nm, scaled",
    7: "arithmetic: 16 nm scaled as Horowitz 45 nm to Jouppi 7 nm (unverified); SRAM: CACTI 7 at 22 nm, scaled",
}
"""Process node [nm] -> where its numbers come from."""

JOUPPI_7NM: dict[str, float] = {
    "mac_int8_pj": 0.077,
    "mac_int32_pj": 1.51,
    "mac_fp16_pj": 0.50,
    "mac_bf16_pj": 0.32,
    "mac_fp32_pj": 1.69,
}
"""Option: multiply + add at 7 nm by Jouppi et al., Ten Lessons, ISCA 2021, Table 2 (unverified) [pJ].

Not the default: beside the 16 nm notes its fp32 would make a newer node cost more. `technology(7, **JOUPPI_7NM)`.
"""


class Entry(NamedTuple):
    """A number and its source."""

    value: float
    source: str


_LOGIC_EXPONENT = math.log(0.23 / 0.077) / math.log(45 / 7)  # int8 multiply-add: Horowitz 45 nm, Jouppi 7 nm
_SRAM_EXPONENT = math.log(20 / 8.5) / math.log(45 / 7)  # 32 KB access: Horowitz 45 nm, Jouppi 7 nm
_LOGIC_LAW = f"exponent {_LOGIC_EXPONENT:.2f} of int8 Horowitz 45 nm to Jouppi 7 nm (unverified)"
_SRAM_LAW = f"exponent {_SRAM_EXPONENT:.2f} of a 32 KB access Horowitz 45 nm to Jouppi 7 nm (unverified)"
_HOROWITZ = "Horowitz, ISSCC 2014, 45 nm"
_NOTES = "stillwater-sc/kpu-sim notes, 16 nm"


def _logic(node: int) -> float:
    """Logic energy relative to 16 nm."""
    return (node / 16) ** _LOGIC_EXPONENT


def _shrink(node: int) -> float:
    """Logic area relative to 45 nm: the square of the node's name (assumed; optimistic below 22 nm)."""
    return (node / 45) ** 2


def _arithmetic_45() -> dict[str, Entry]:
    return {
        "int8": Entry(0.2 + 0.03, f"{_HOROWITZ}: int8 mul 0.2 + add 0.03"),
        "int32": Entry(3.1 + 0.1, f"{_HOROWITZ}: int32 mul 3.1 + add 0.1"),
        "fp16": Entry(1.1 + 0.4, f"{_HOROWITZ}: fp16 mul 1.1 + add 0.4"),
        "bf16": Entry(1.5 * 0.32 / 0.50, f"{_HOROWITZ} fp16 x 0.32/0.50 (bf16/fp16 of Jouppi 7 nm, unverified)"),
        "fp32": Entry(3.7 + 0.9, f"{_HOROWITZ}: fp32 mul 3.7 + add 0.9"),
    }


def _arithmetic_16() -> dict[str, Entry]:
    return {
        "int8": Entry(0.25, _NOTES),
        "int32": Entry(0.80 * 3.2 / 4.6, f"fp32 of {_NOTES} x 3.2/4.6 (int32/fp32 of {_HOROWITZ})"),
        "fp16": Entry(0.40 * 0.50 / 0.32, f"bf16 of {_NOTES} x 0.50/0.32 (fp16/bf16 of Jouppi 7 nm, unverified)"),
        "bf16": Entry(0.40, _NOTES),
        "fp32": Entry(0.80, _NOTES),
    }


def _arithmetic(node: int) -> dict[str, Entry]:
    """Multiply-adds with a source; the four without one are assumed from these by `_macs`."""
    if node == 45:
        return _arithmetic_45()
    at_16 = _arithmetic_16()
    if node == 16:
        return at_16
    if node < 16:
        return {k: Entry(e.value * _logic(node), f"16 nm x ({node}/16), {_LOGIC_LAW}") for k, e in at_16.items()}
    part = math.log(node / 16) / math.log(45 / 16)
    between = "line in log(energy) over log(node) between Horowitz 45 nm and kpu-sim 16 nm"
    old = _arithmetic_45()
    return {k: Entry(e.value ** (1 - part) * old[k].value ** part, between) for k, e in at_16.items()}


def _macs(node: int) -> dict[str, Entry]:
    base = _arithmetic(node)
    int8 = base["int8"].value
    int16 = math.sqrt(int8 * base["int32"].value)
    return {
        "mac_int4_pj": Entry(int8 / 2, "assumed: half of int8"),
        "mac_int8_pj": base["int8"],
        "mac_int16_pj": Entry(int16, "assumed: geometric mean of int8 and int32"),
        "mac_int32_pj": base["int32"],
        "mac_fp4_pj": Entry(int8 / 2, "assumed: that of int4"),
        "mac_fp8_pj": Entry(int8, "assumed: that of int8"),
        "mac_fp16_pj": base["fp16"],
        "mac_bf16_pj": base["bf16"],
        "mac_fp32_pj": base["fp32"],
        "vector_op_pj": Entry(base["fp32"].value, "assumed: one fp32 multiply-add"),
        "clock_pj_per_cycle_per_pe": Entry(0.2 * int8, "assumed: a fifth of an int8 multiply-add"),
        "pe_pj_per_byte": Entry(
            0.15 * _logic(node),
            f"stream 0.15 pJ/byte of {_NOTES}" + (f" x ({node}/16), {_LOGIC_LAW}" if node != 16 else ""),
        ),
    }


# CACTI 7 (itrs-lop), 32 KiB, 64-bit port: read and write [pJ per 8 bytes], area [mm^2/MiB]
_CACTI = {45: (8.2718, 6.4559, 4.0251), 22: (2.4373, 2.0205, 1.1446)}
_CACTI_LEAKAGE_45 = 0.4037 * 32  # 45 nm, 32 KiB: 0.4037 mW
_BITCELL_UM2 = {22: 0.092, 16: 0.070, 7: 0.027}  # Intel 22 nm; TSMC 16 nm and 7 nm; published cells, unverified


def _sram(node: int) -> dict[str, Entry]:
    cacti = "CACTI 7, 32 KiB, 64-bit port"
    base = max(node, 22)
    read, write, area = _CACTI[base]
    scale = (node / base) ** _SRAM_EXPONENT
    energy = f"{cacti}, {node} nm" if node == base else f"{cacti}, 22 nm x ({node}/22), {_SRAM_LAW}"
    cell = _BITCELL_UM2.get(node, 0.0) / _BITCELL_UM2[22] if node != base else 1.0
    cells = f"{cacti}, {node} nm" if node == base else f"{cacti}, 22 nm x bit cell {_BITCELL_UM2[node]:g}/0.092 um^2"
    leakage = f"{cacti}, 45 nm"
    if node != 45:
        leakage += f"; assumed the same per MiB at {node} nm (CACTI's 22 nm leakage, 9 times that, is not credible)"
    return {
        "sram_reference_kb": Entry(32.0, "the capacity of the CACTI rows used"),
        "sram_read_pj_per_byte": Entry(read / 8 * scale, energy),
        "sram_write_pj_per_byte": Entry(write / 8 * scale, energy),
        "sram_mm2_per_mib": Entry(area * cell, cells),
        "sram_leakage_mw_per_mib": Entry(_CACTI_LEAKAGE_45, leakage),
    }


_LOGIC_LEAKAGE = {45: 10.0, 22: 15.0, 16: 20.0, 7: 30.0}  # mW/mm^2, assumed: area shrinks faster than leakage


def _areas(node: int, stacked: bool) -> dict[str, Entry]:
    shrink = _shrink(node)
    square = f"at 45 nm x ({node}/45)^2 (assumed)" if node != 45 else "at 45 nm (assumed)"
    # Horowitz, ISSCC 2014, as tabulated by Sze et al., Proc. IEEE 2017: fp32 multiplier 7700, adder 4184 um^2
    pe = 1.5 * (7700 + 4184) * 1e-6
    assumed = {"dma_engine_mm2": 0.8, "block_mover_mm2": 0.4, "streamer_mm2": 0.16, "controller_mm2": 8.0}
    return {
        "pe_mm2": Entry(
            pe * shrink, f"fp32 mul 7700 + add 4184 um^2 of {_HOROWITZ} (unverified), x 1.5 for registers {square}"
        ),
        "vector_lane_mm2": Entry(2 * pe * shrink, "assumed: two PEs"),
        **{name: Entry(mm2 * shrink, f"assumed: {mm2:g} mm^2 {square}") for name, mm2 in assumed.items()},
        "phy_mm2_per_gbps": Entry(0.03 if stacked else 0.1, "assumed: 0.1 for DDR, LPDDR and GDDR, 0.03 for HBM"),
        "logic_leakage_mw_per_mm2": Entry(_LOGIC_LEAKAGE[node], "assumed"),
    }


def _memory(dram: str) -> dict[str, Entry]:
    kind = DRAM_KINDS[dram]
    energy = Entry(kind.pj_per_bit * 8, f"{dram}: {kind.source}")
    return {
        "host_pj_per_byte": Entry(40.0, "assumed: PCIe at 5 pJ/bit"),
        "dram_read_pj_per_byte": energy,
        "dram_write_pj_per_byte": energy,
    }


def entries(node: int, dram: str) -> dict[str, Entry]:
    """Every constant of `Technology` at a node of `NODES` with a kind of `DRAM_KINDS`, in the record's order."""
    tdp = "product table of stillwater-sc/kpu-sim"
    found = {
        "node_nm": Entry(float(node), "the node asked for"),
        **_memory(dram),
        **_sram(node),
        **_macs(node),
        **_areas(node, DRAM_KINDS[dram].stacked),
        "tdp_w_per_tops": Entry(0.5, tdp),
        "tdp_mw_per_gbps": Entry(15.0, tdp),
        "tdp_mw_per_kb": Entry(0.1, tdp),
    }
    return {name: found[name] for name in TECHNOLOGY_UNITS}
