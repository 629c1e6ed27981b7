"""Technology constants against the reference data they are derived from."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import leaf_paths
from kpu_jax.hardware import DRAM_KINDS, JOUPPI_7NM, NODES, technology, technology_sources

DATA = Path(__file__).parents[1] / "reference" / "data"


def rows(name):
    with (DATA / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def cacti(node):
    """CACTI 7 rows of the 64-bit port, the access that the constants are taken from."""
    return [r for r in rows("sram_cacti7.csv") if int(r["node_nm"]) == node and r["port_width_bits"] == "64"]


@pytest.mark.parametrize(("node", "spread"), [(22, 1.20), (45, 1.30)])
def test_sqrt_capacity_law_against_cacti(node, spread):
    """Reads from 4 KiB to 8 MiB, a range of 45 in energy, stay within the spread.

    The spread is the scatter of CACTI itself around a square root through 32 KiB: 0.84 to 1.01 at 22 nm,
    0.78 to 1.17 at 45 nm, which steps between 32 and 64 KiB where CACTI changes the bank layout.
    """
    tech = technology(node)
    for row in cacti(node):
        law = tech.sram_read_pj_per_byte * math.sqrt(int(row["size_bytes"]) / 1024 / tech.sram_reference_kb)
        ratio = law / (float(row["read_pJ_per_access"]) / 8)
        assert 1 / spread < ratio < spread, (row["size_bytes"], ratio)


@pytest.mark.parametrize("node", [22, 45])
def test_sram_constants_are_the_cacti_rows(node):
    """Equal to the printed digits: the constants are the 32 KiB row."""
    row = next(r for r in cacti(node) if r["size_bytes"] == "32768")
    tech = technology(node)
    assert tech.sram_read_pj_per_byte == pytest.approx(float(row["read_pJ_per_access"]) / 8, rel=1e-12)
    assert tech.sram_write_pj_per_byte == pytest.approx(float(row["write_pJ_per_access"]) / 8, rel=1e-12)
    assert tech.sram_mm2_per_mib == pytest.approx(float(row["area_mm2_per_MiB"]), rel=1e-12)


def test_sram_leakage_is_that_of_45_nm():
    """Per MiB within 15 % of CACTI's 45 nm rows, whose periphery share varies with size; never its 22 nm rows."""
    for row in cacti(45):
        per_mib = float(row["leakage_mW"]) / int(row["size_bytes"]) * 2**20
        for node in NODES:
            assert technology(node).sram_leakage_mw_per_mib == pytest.approx(per_mib, rel=0.15)


@pytest.mark.parametrize("kind", ["int8", "int32", "fp16", "fp32"])
def test_45_nm_arithmetic_is_horowitz(kind):
    table = {r["op"]: r for r in rows("energy_per_op.csv")}
    expected = sum(float(table[f"{kind}_{op}"]["pJ_45nm"]) for op in ("mul", "add"))
    assert getattr(technology(45), f"mac_{kind}_pj") == pytest.approx(expected, rel=1e-12)


def test_7_nm_option_is_jouppi_and_16_nm_the_notes():
    table = {r["op"]: r for r in rows("energy_per_op.csv")}
    for name, value in JOUPPI_7NM.items():
        kind = name.removeprefix("mac_").removesuffix("_pj")
        assert value == pytest.approx(sum(float(table[f"{kind}_{op}"]["pJ_7nm"]) for op in ("mul", "add")))
    at_16 = technology(16)
    assert (at_16.mac_int8_pj, at_16.mac_bf16_pj, at_16.mac_fp32_pj) == (0.25, 0.40, 0.80)
    assert technology(7, **JOUPPI_7NM).mac_fp32_pj == 1.69


@pytest.mark.parametrize("field", [n for n, _ in leaf_paths(technology()) if n.endswith(("_pj", "_pj_per_byte"))])
def test_a_newer_node_never_costs_more_energy(field):
    """16 % allowed between 45 and 16 nm: int8 is 0.23 by Horowitz (bare datapath) and 0.25 by the 16 nm notes."""
    energy = {node: getattr(technology(node), field) for node in NODES}
    assert energy[7] <= energy[16]
    assert energy[16] <= 1.16 * energy[22] <= 1.16**2 * energy[45]


@pytest.mark.parametrize("node", NODES)
def test_wider_arithmetic_and_larger_shrink_are_ordered(node):
    tech = technology(node)
    assert tech.mac_int4_pj < tech.mac_int8_pj < tech.mac_int16_pj < tech.mac_int32_pj
    assert tech.mac_fp4_pj < tech.mac_fp8_pj < tech.mac_bf16_pj < tech.mac_fp16_pj < tech.mac_fp32_pj
    older = technology(45)
    assert tech.pe_mm2 <= older.pe_mm2 and tech.sram_mm2_per_mib <= older.sram_mm2_per_mib


@pytest.mark.parametrize(
    ("kind", "row"), [("LPDDR4", "LPDDR4"), ("GDDR5", "GDDR5"), ("HBM3", "HBM3"), ("DDR3", "DDR3/DDR4 system")]
)
def test_dram_defaults_are_reference_rows(kind, row):
    """0.5 %: the reference rounds 1300/64 to 20.3."""
    value = next(float(r["pJ_per_bit"]) for r in rows("dram_energy.csv") if r["technology"] == row)
    if kind == "LPDDR4":
        value = 8.0  # the file has two LPDDR4 rows; the default is the one read from a file
    assert DRAM_KINDS[kind].pj_per_bit == pytest.approx(value, rel=5e-3)
    assert technology(16, kind).dram_read_pj_per_byte == DRAM_KINDS[kind].pj_per_bit * 8


def test_unverified_dram_rows_are_options_never_defaults():
    assert all(kind.verified for name, kind in DRAM_KINDS.items() if "_" not in name)
    assert not DRAM_KINDS["HBM2_oconnor"].verified


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("dram", DRAM_KINDS)
def test_every_constant_has_a_unit_and_a_source(node, dram):
    sources = technology_sources(node, dram)
    leaves = dict(leaf_paths(technology(node, dram)))
    assert [s[0] for s in sources] == list(leaves)
    for name, value, unit, source in sources:
        assert leaves[name] == value and type(leaves[name]) is np.float64
        assert unit and source and math.isfinite(value) and value > 0


def test_overrides_are_checked():
    assert technology(16, "lpddr5", mac_int8_pj=0.5).mac_int8_pj == 0.5
    with pytest.raises(KPUError, match=r"technology\.mac_int8_pj .*got -1"):
        technology(mac_int8_pj=jnp.float32(-1))
    every = {name: leaf for name, leaf in leaf_paths(technology(16)) if name != "node_nm"}
    assert technology(12, **every).node_nm == 12  # no table needed when every constant is given
    for call, message in (
        (lambda: technology(10), r"technology\.node_nm = 10 .*7, 16, 22, 45"),
        (lambda: technology("16"), r"technology\.node_nm .*\[nm\], got '16'"),
        (lambda: technology(16, "HBM"), r"technology\.dram = 'HBM' is unknown: did you mean 'HBM"),
        (lambda: technology(16, None), r"technology\.dram = None is unknown"),
        (lambda: technology(mac_int8=1), r"technology\.mac_int8 is unknown: did you mean 'mac_int8_pj'"),
        (lambda: technology(mac_int8_pj=-1), r"technology\.mac_int8_pj .*\[pJ\], got -1"),
        (lambda: technology_sources(3), r"technology\.node_nm = 3"),
    ):
        with pytest.raises(KPUError, match=message):
            call()
