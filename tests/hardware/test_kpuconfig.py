"""KPUConfig: checked construction, replacement, printing and its life as a pytree."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hardware_tables import put

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import leaf_paths, replace_path
from kpu_jax.hardware import KPUConfig, check_config, config_from_dict, derived, presets, technology
from kpu_jax.hardware.fields import FIELDS


def test_leaves_are_float64_and_paths_are_those_of_the_table(edge):
    cfg = config_from_dict(edge)
    assert {path for path, _ in leaf_paths(cfg)} == set(FIELDS)
    assert all(type(leaf) is np.float64 for _, leaf in leaf_paths(cfg))
    assert cfg.external_memory.bandwidth_gbps == 100
    assert cfg.clocks.fabric_mhz == 1000 and cfg.technology.node_nm == 16  # a published file gives neither


WRONG = [
    ("external_memory.bandwidth_gbps", 1e11, r"bandwidth_gbps .*\[GB/s\].*is this in bytes/s\? the unit is GB/s"),
    ("external_memory.bandwidth_gbps", 2e5, r"is this in MB/s\? the unit is GB/s"),
    ("clocks.fabric_mhz", 1e9, r"clocks\.fabric_mhz .*\[MHz\].*is this in Hz\? the unit is MHz"),
    ("clocks.fabric_mhz", 1.5, r"is this in GHz\? the unit is MHz"),
    ("on_chip_memory.l2.bank_capacity_kb", 65536, r"l2\.bank_capacity_kb .*\[KB\].*is this in bytes\? the unit is KB"),
    ("on_chip_memory.l1.buffer_capacity_kb", 32768, r"is this in bytes\? the unit is KB"),
    ("external_memory.bank_capacity_mb", 512 * 2**20, r"\[MB\].*is this in bytes\? the unit is MB"),
    ("latency.external_ns", 1e-7, r"latency\.external_ns .*\[ns\].*is this in seconds\? the unit is ns"),
    ("technology.mac_int8_pj", 2.5e-13, r"technology\.mac_int8_pj .*\[pJ\].*is this in joules\? the unit is pJ"),
    ("external_memory.bandwidth_gbps", -1, r"external_memory\.bandwidth_gbps must be a number at least .*, got -1"),
    ("external_memory.bandwidth_gbps", 0, r"external_memory\.bandwidth_gbps .*got 0"),
    ("external_memory.bandwidth_gbps", float("nan"), r"external_memory\.bandwidth_gbps .*got nan"),
    ("external_memory.bandwidth_gbps", float("inf"), r"got inf"),
    ("external_memory.bandwidth_gbps", True, r"external_memory\.bandwidth_gbps .*got True"),
    ("external_memory.bandwidth_gbps", "100", r"got '100'; remove the quotes"),
    ("external_memory.bandwidth_gbps", "fast", r"got 'fast'; write a plain number"),
    ("external_memory.bandwidth_gbps", None, r"external_memory\.bandwidth_gbps .*the value is empty"),
    ("external_memory.bandwidth_gbps", [1, 2], r"external_memory\.bandwidth_gbps must be one number .*got a list"),
    ("external_memory.bandwidth_gbps", 10**400, r"external_memory\.bandwidth_gbps .*got an integer of about 401 digits"),
    ("compute.tile_count", 1.5, r"compute\.tile_count must be an integer .*\[count\], got the fraction 1\.5"),
    ("compute.tile_count", 0, r"compute\.tile_count .*got 0"),
    ("on_chip_memory.l1.buffer_count", -4, r"buffer_count .*got -4 \(0 means derived\)"),
    ("compute.fold_overlap", 1, r"compute\.fold_overlap must be true or false, got 1"),
    ("compute.fold_overlap", "yes", r"must be true or false, got 'yes'; write it without quotes"),
    ("on_chip_memory.l3.tile_capacity_kb", 2**27, r"got 134217728; is this in bytes\? the unit is KB"),
    ("address_map.l3_tile_base", 2**60, r"at most 9007199254740991 \[byte address\]"),
    ("clocks.dma_mhz", "010", r"got '010'; write it without leading zeros"),
    ("clocks.dma_mhz", np.array("10"), r"clocks\.dma_mhz must be a number .*got array"),
    ("clocks.dma_mhz", np.array(True), r"clocks\.dma_mhz must be a number .*got array\(True\)"),
    ("clocks.dma_mhz", np.datetime64("2020"), r"clocks\.dma_mhz must be a number .*datetime64"),
    ("clocks.dma_mhz", jnp.float32(-1), r"clocks\.dma_mhz .*got -1"),
    ("compute.systolic_mode", False, r"compute\.systolic_mode = False is not supported, only true: .*systolic"),
    ("compute.processor_array.topology", "hexagonal", r"topology = 'hexagonal' .*only rectangular: .*rectangular mesh"),
    ("compute.procesor_array", {}, r"unknown field compute\.procesor_array: did you mean 'processor_array'\?"),
    ("external_memory.bandwith_gbps", 1, r"field external_memory\.bandwith_gbps: did you mean 'bandwidth_gbps'"),
    ("fabric_mhz", 1000, r"unknown field fabric_mhz: did you mean clocks\.fabric_mhz"),
    ("extern_memory", {}, r"unknown field extern_memory: did you mean 'external_memory'"),
    ("external_memory.bank_count", ..., r"missing required field: external_memory\.bank_count \[count\]"),
    ("compute", ..., r"missing required fields: compute\.tile_count \[count\], compute\.processor_array\.rows"),
    ("compute", 3, r"compute must be a section of fields, got int 3"),
    ("name", 7, r"name must be text, got 7"),
    ("technology.node_nm", 10, r"technology\.node_nm = 10 \[nm\] has no table, only 7, 16, 22, 45 nm"),
    ("technology.dram", "LPDDR9", r"technology\.dram = 'LPDDR9' is unknown: did you mean 'LPDDR"),
    ("technology.mac_int9_pj", 1, r"unknown field technology\.mac_int9_pj: did you mean 'mac_int"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), WRONG, ids=[f"{p}={str(v)[:12]}" for p, v, _ in WRONG])
def test_wrong_input_names_path_value_unit_and_remedy(edge, path, value, message):
    with pytest.raises(KPUError, match=message):
        config_from_dict(put(edge, path, value))


@pytest.mark.parametrize("path", [p for p, f in FIELDS.items() if not f.flag])
def test_every_number_is_checked(edge, path):
    for bad in (-2, float("nan"), True, "1", FIELDS[path].high * 2 + 1):
        with pytest.raises(KPUError, match=re.escape(path)):
            config_from_dict(put(edge, path, bad))
    if FIELDS[path].integer:
        with pytest.raises(KPUError, match=re.escape(path) + ".*fraction 1.5"):
            config_from_dict(put(edge, path, 1.5))


def test_not_a_mapping_and_a_field_given_twice(edge):
    with pytest.raises(KPUError, match="mapping of sections, got a list"):
        config_from_dict([1])  # type: ignore[arg-type]
    with pytest.raises(KPUError, match=r"clocks\.fabric_mhz is given twice"):
        config_from_dict({**edge, "clocks": {"fabric_mhz": 800}, "clocks.fabric_mhz": 900})


def test_address_regions_that_overlap_are_rejected(edge):
    overlap = put(put(edge, "address_map.host_memory_base", 0), "address_map.l3_tile_base", 0x1000)
    with pytest.raises(KPUError, match=r"address_map\.l3_tile_base = 0x1000 overlaps .*at least 0x20000000"):
        config_from_dict(overlap)
    cfg = config_from_dict(put(edge, "address_map.host_memory_base", 0))
    with pytest.raises(KPUError, match="overlaps"):
        cfg.replace({"address_map.l2_bank_base": 4096})


def test_replace_checks_host_values_and_leaves_the_original():
    cfg = presets.edge_ai()
    other = cfg.replace({"external_memory.bandwidth_gbps": 50, "compute": {"fold_overlap": False}})
    assert other.external_memory.bandwidth_gbps == 50 and type(other.external_memory.bandwidth_gbps) is np.float64
    assert other.compute.fold_overlap == 0.0 and other.compute.tile_count == 2
    assert cfg.external_memory.bandwidth_gbps == 100 and other != cfg
    assert cfg.replace(technology=technology(7, "HBM3")).technology == technology(7, "HBM3")
    assert cfg.replace({"compute.fold_overlap": cfg.compute.fold_overlap}) == cfg and hash(cfg.replace()) == hash(cfg)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"external_memory.bandwith_gbps": 1}, "did you mean 'bandwidth_gbps'"),
        ({"external_memory.bandwidth_gbps": 1e9}, r"external_memory\.bandwidth_gbps.*bytes/s"),
        ({"external_memory.bandwidth_gbps": np.ones(3)}, r"shape \(3,\); stack whole pytrees"),
        ({"technology.node_nm": 7}, "replace the section"),
        ({"technology.dram": "HBM2"}, "replace the section"),
        ({"name": "x"}, "belongs to a file"),
        ({"clocks": presets.edge_ai().buses}, "clocks must be a section"),
        ({"clocks.fabric_mhz": jnp.array(-500.0)}, r"clocks\.fabric_mhz .*got -500"),
        ({"clocks.fabric_mhz": jnp.ones(3)}, r"shape \(3,\); stack whole pytrees"),
        ({"clocks": replace_path(presets.edge_ai().clocks, "dma_mhz", -5)}, r"clocks\.dma_mhz must be .*got -5"),
        ("x", "replace takes a mapping of dotted paths to values, got 'x'"),
        (5, "replace takes a mapping"),
        ([], "replace takes a mapping"),
    ],
)
def test_replace_rejects(change, message):
    with pytest.raises(KPUError, match=message):
        presets.edge_ai().replace(change)


def test_replace_passes_tracers_unchecked_and_makes_numbers_of_jax_scalars():
    cfg = presets.edge_ai()
    assert type(cfg.replace({"clocks.fabric_mhz": jnp.float32(500)}).clocks.fabric_mhz) is np.float64
    assert cfg.replace({"compute.fold_overlap": jnp.float32(0)}).compute.fold_overlap == 0

    @jax.jit
    def bandwidth(x):
        return derived.external_bytes_per_second(cfg.replace({"external_memory.bandwidth_gbps": x}))

    assert bandwidth(25.0) == pytest.approx(50e9)


def test_a_constructor_without_sections_points_to_presets_and_files():
    with pytest.raises(KPUError, match=r"13 sections .*kpu\.preset\('edge_ai'\) or kpu\.load_config"):
        KPUConfig()
    cfg = presets.edge_ai()
    assert KPUConfig(*(getattr(cfg, f.name) for f in dataclasses.fields(cfg))) == cfg
    assert dataclasses.replace(cfg, clocks=presets.minimal().clocks).clocks == presets.minimal().clocks
    with pytest.raises(KPUError, match="clocks must be a Clocks, got 5"):
        dataclasses.replace(cfg, clocks=5)


def test_check_config_finds_leaves_that_no_constructor_saw():
    cfg = presets.edge_ai()
    check_config(cfg)
    stacked = jax.tree.map(lambda *x: np.stack(x), cfg, presets.minimal())
    for good in (stacked, jax.tree.map(jnp.asarray, stacked), replace_path(cfg, "compute.tile_count", 2)):
        check_config(good)
    jax.jit(lambda c: check_config(c) or c)(cfg)
    two = np.array([1.0, 2.5])
    for path, value, message in (
        ("clocks.fabric_mhz", np.float64(-500), r"clocks\.fabric_mhz must be .*\[MHz\], got -500"),
        ("clocks.fabric_mhz", np.float64("nan"), r"clocks\.fabric_mhz .*got nan"),
        ("clocks.fabric_mhz", jnp.array(jnp.inf), r"clocks\.fabric_mhz .*got inf"),
        ("compute.tile_count", two, r"compute\.tile_count .*fraction 2\.5 \(element 1 of the stack\)"),
        ("compute.fold_overlap", np.float64(0.5), r"compute\.fold_overlap must be true or false"),
        ("latency.host_ns", np.float64(1e-4), r"latency\.host_ns .*0 means none"),
        ("technology.pe_mm2", "1", r"technology\.pe_mm2 must hold numbers, got str '1'"),
        ("technology.pe_mm2", None, r"technology\.pe_mm2 must hold numbers, got NoneType"),
        ("technology.pe_mm2", 10**400, r"technology\.pe_mm2 must hold numbers of at most 1.8e308"),
        ("clocks", None, "not whole"),
    ):
        with pytest.raises(KPUError, match=message):
            check_config(replace_path(cfg, path, value))
    for wrong in (None, {}, "edge_ai", cfg.compute):
        with pytest.raises(KPUError, match=r"the chip must be a KPUConfig, got .*kpu\.preset"):
            check_config(wrong)


def test_repr_shows_units_shapes_and_derived_fields():
    cfg = presets.edge_ai()
    text = repr(cfg)
    assert re.search(r"external_memory\.bandwidth_gbps +100 +GB/s", text)
    assert re.search(r"on_chip_memory\.l1\.buffer_count +derived +count", text)
    assert re.search(r"technology\.mac_int8_pj +0\.25 +pJ", repr(cfg.technology))
    assert re.search(r"clocks\.fabric_mhz +750 +MHz", repr(cfg.clocks))
    stacked = jax.tree.map(lambda *x: np.stack(x), cfg, presets.minimal())
    assert re.search(r"compute\.tile_count +float64\[2\] +count", repr(stacked))
    seen: list[str] = []
    jax.jit(lambda c: seen.append(repr(c)) or c.compute.tile_count)(cfg)
    assert re.search(r"compute\.tile_count +traced float\d\d\[\] +count", seen[0])


def test_configurations_flatten_unflatten_and_share_one_structure():
    leaves, tree = jax.tree.flatten(presets.edge_ai())
    assert jax.tree.unflatten(tree, leaves) == presets.edge_ai()
    assert all(jax.tree.structure(presets.preset(name)) == tree for name in presets.PRESET_NAMES)
    assert "object" in repr(jax.tree.unflatten(tree, [object()] * len(leaves)))


def test_one_trace_serves_all_presets():
    traces: list[None] = []

    @jax.jit
    def tdp(cfg):
        traces.append(None)
        return derived.tdp_watts(cfg)

    for name in presets.PRESET_NAMES:
        tdp(presets.preset(name))
    assert len(traces) == 1
