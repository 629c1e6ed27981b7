"""Energy, area and power constants as an input: a record of numbers, and where each one came from."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, nearest
from kpu_jax.base.pytree import build, record
from kpu_jax.hardware.dram import DRAM_KINDS, DramKind, dram_name
from kpu_jax.hardware.fields import FieldError, check_field
from kpu_jax.hardware.formatting import Leaf, Section
from kpu_jax.hardware.technology_data import JOUPPI_7NM, NODES, TECHNOLOGY_UNITS, entries

__all__ = ["DRAM_KINDS", "JOUPPI_7NM", "NODES", "DramKind", "Technology", "technology", "technology_sources"]


@record
class Technology(Section):
    """Constants per action; no formula of kpu_jax holds an energy or area of its own.

    Units are in `TECHNOLOGY_UNITS`, sources in `technology_sources`. SRAM energies hold at `sram_reference_kb`
    and scale with sqrt(capacity of one bank / reference). `node_nm` is a label that no formula reads.
    """

    path: ClassVar[str] = "technology"

    node_nm: Leaf
    host_pj_per_byte: Leaf
    dram_read_pj_per_byte: Leaf
    dram_write_pj_per_byte: Leaf
    sram_reference_kb: Leaf
    sram_read_pj_per_byte: Leaf
    sram_write_pj_per_byte: Leaf
    pe_pj_per_byte: Leaf
    mac_int4_pj: Leaf
    mac_int8_pj: Leaf
    mac_int16_pj: Leaf
    mac_int32_pj: Leaf
    mac_fp4_pj: Leaf
    mac_fp8_pj: Leaf
    mac_fp16_pj: Leaf
    mac_bf16_pj: Leaf
    mac_fp32_pj: Leaf
    vector_op_pj: Leaf
    sram_mm2_per_mib: Leaf
    pe_mm2: Leaf
    vector_lane_mm2: Leaf
    dma_engine_mm2: Leaf
    block_mover_mm2: Leaf
    streamer_mm2: Leaf
    controller_mm2: Leaf
    phy_mm2_per_gbps: Leaf
    sram_leakage_mw_per_mib: Leaf
    logic_leakage_mw_per_mm2: Leaf
    clock_pj_per_cycle_per_pe: Leaf
    tdp_w_per_tops: Leaf
    tdp_mw_per_gbps: Leaf
    tdp_mw_per_kb: Leaf


def _node(node_nm: Any) -> int:
    if isinstance(node_nm, jax.core.Tracer):
        raise FieldError("technology.node_nm", "technology.node_nm [nm] is traced and has no table; give every constant")
    number = float(check_field("technology.node_nm", node_nm))
    if number not in NODES:
        known = ", ".join(str(node) for node in sorted(NODES))
        raise FieldError(
            "technology.node_nm",
            f"technology.node_nm = {number:g} [nm] has no table, only {known} nm have one; "
            "choose one of them and override the constants that differ, or give every constant",
        )
    return int(number)


def technology(node_nm: float = 16, dram: str = "LPDDR5", **overrides: Any) -> Technology:
    """The constants of a process node [nm] with a DRAM kind; `overrides` replace single constants by name.

    A node without a table is accepted when the overrides give every constant. Overrides are checked as in a
    file; tracers pass unchecked. Raises `KPUError` for unknown names, and a node without a table.
    """
    unknown = [name for name in overrides if name not in TECHNOLOGY_UNITS]
    if unknown:
        raise FieldError(
            f"technology.{unknown[0]}", f"technology.{unknown[0]} is unknown: {nearest(unknown[0], TECHNOLOGY_UNITS)}"
        )
    given = {name: check_field(f"technology.{name}", value) for name, value in overrides.items()}
    if set(given) | {"node_nm"} == set(TECHNOLOGY_UNITS):
        values: dict[str, Any] = {"node_nm": check_field("technology.node_nm", node_nm)}
    else:
        values = {name: np.float64(e.value) for name, e in entries(_node(node_nm), _dram(dram)).items()}
    return build(Technology, **{name: {**values, **given}[name] for name in TECHNOLOGY_UNITS})


def _dram(name: Any) -> str:
    try:
        return dram_name(name)
    except KPUError as error:
        raise FieldError("technology.dram", str(error)) from None


def technology_sources(node_nm: float = 16, dram: str = "LPDDR5") -> list[tuple[str, float, str, str]]:
    """(field, value, unit, source) of every constant that `technology(node_nm, dram)` holds."""
    found = entries(_node(node_nm), _dram(dram))
    return [(name, e.value, TECHNOLOGY_UNITS[name][0], e.source) for name, e in found.items()]
