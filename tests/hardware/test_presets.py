"""Presets against the published table and the ranges of the product family."""

from __future__ import annotations

import pytest
from hardware_tables import COLUMNS, FABRIC_MHZ, PUBLISHED

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import get_path
from kpu_jax.hardware import derived, preset, presets

FAMILY = {  # tiles, PEs per side, node nm, L3 MB, L2 KB per tile, L1 KB per tile, fabric MHz, external GB/s
    "t64": (64, (16, 32), (22,), (16, 32), (128, 256), (16, 32), (1000, 1500), (50, 100)),
    "t256": (256, (32, 64), (16, 7), (64, 128), (256, 512), (32, 64), (1500, 2000), (150, 300)),
    "t768": (768, (64, 128), (16, 7, 4), (192, 384), (512, 1024), (64, 128), (1500, 2500), (400, 800)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    cfg = preset(name)
    assert tuple(get_path(cfg, path) for path in COLUMNS) == PUBLISHED[name]
    assert cfg.clocks.fabric_mhz == FABRIC_MHZ[name]
    assert cfg.technology.node_nm == (7 if name == "datacenter" else 16)


@pytest.mark.parametrize("name", FAMILY)
def test_family_is_the_middle_of_each_range(name):
    tiles, side, nodes, l3, l2, l1, mhz, gbps = FAMILY[name]
    cfg = preset(name)
    assert cfg.compute.tile_count == tiles
    assert cfg.compute.processor_array.rows == cfg.compute.processor_array.cols == sum(side) / 2
    assert cfg.technology.node_nm in nodes
    assert derived.l3_capacity_bytes(cfg) / 2**20 == sum(l3) / 2
    assert derived.l2_capacity_bytes(cfg) / 2**10 / tiles == sum(l2) / 2
    assert derived.l1_capacity_bytes(cfg) / 2**10 / tiles == sum(l1) / 2
    assert cfg.clocks.fabric_mhz == sum(mhz) / 2
    assert derived.external_bytes_per_second(cfg) == sum(gbps) / 2 * 1e9
    movement = cfg.data_movement
    assert movement.dma_engine_count == tiles / 8
    assert (movement.block_mover_count, movement.streamer_count) == (tiles, 4 * tiles)


@pytest.mark.parametrize("name", presets.PRESET_NAMES)
def test_engines_match_the_memory_and_the_fabric(name):
    cfg = preset(name)
    dma = cfg.data_movement.dma_engine_count * cfg.buses.dma_bytes * cfg.clocks.dma_mhz * 1e6
    assert dma == derived.external_bytes_per_second(cfg)  # exact: all factors are dyadic
    assert cfg.clocks.block_mover_mhz == cfg.clocks.streamer_mhz == cfg.clocks.fabric_mhz
    assert derived.address_map(cfg)["host_memory_base"] == 0


def test_names():
    assert set(dir(presets)) == {*presets.PRESET_NAMES, "PRESET_NAMES", "preset"}
    with pytest.raises(KPUError, match=r"did you mean 'edge_ai'\? valid"):
        preset("EDGE_AI")
    assert presets.t64() is preset("t64")
    assert {getattr(presets, name)() for name in presets.PRESET_NAMES} == {preset(n) for n in presets.PRESET_NAMES}
    with pytest.raises(KPUError, match=r"preset = 'edge_a1' is unknown: did you mean 'edge_ai'"):
        preset("edge_a1")
