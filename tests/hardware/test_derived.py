"""Derived quantities: values by hand, and jit, vmap and grad through them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import get_path
from kpu_jax.hardware import derived, preset, presets

FUNCTIONS = {
    name: getattr(derived, name)
    for name in derived.__all__
    if name not in ("address_map", "macs_per_pe", "peak_macs_per_cycle", "peak_ops_per_second")
}
FUNCTIONS |= {
    "macs_per_pe": lambda cfg: derived.macs_per_pe(cfg, 8.0),
    "peak_macs_per_cycle": lambda cfg: derived.peak_macs_per_cycle(cfg, 16.0),
    "peak_ops_per_second": lambda cfg: derived.peak_ops_per_second(cfg, 4.0),
}


def test_values_by_hand():
    cfg = presets.edge_ai()
    assert derived.pe_count(cfg) == 512
    assert derived.peak_macs_per_cycle(cfg, 8) == 2048
    assert derived.peak_ops_per_second(cfg, 8) == 2 * 2048 * 750e6
    assert derived.l1_buffer_count(cfg) == 256
    assert derived.host_capacity_bytes(cfg) == 512 * 2**20
    assert derived.external_capacity_bytes(cfg) == 2**30
    assert derived.l3_capacity_bytes(cfg) == 256 * 1024
    assert derived.l2_capacity_bytes(cfg) == 2**20
    assert derived.l1_capacity_bytes(cfg) == 256 * 64 * 1024
    assert derived.page_buffer_capacity_bytes(cfg) == 128 * 1024
    assert derived.host_bytes_per_second(cfg) == 50e9
    kilobytes = 256 + 1024 + 16384 + 128
    assert derived.tdp_watts(cfg) == pytest.approx(0.5 * 3.072 + 0.015 * 200 + 1e-4 * kilobytes, rel=1e-14)
    assert type(derived.tdp_watts(cfg)) is np.float64


@pytest.mark.parametrize(("bits", "macs"), [(1, 8), (4, 8), (5, 4), (8, 4), (9, 2), (16, 2), (17, 1), (32, 1)])
def test_macs_per_pe_is_the_smallest_class_that_holds_the_width(bits, macs):
    cfg = presets.edge_ai()
    assert derived.macs_per_pe(cfg, bits) == macs
    assert jax.jit(derived.macs_per_pe)(cfg, float(bits)) == macs


@pytest.mark.parametrize("bits", [0, -8, 33, float("nan")])
def test_macs_per_pe_rejects_widths(bits):
    with pytest.raises(KPUError, match="bits must be greater than 0 and at most 32"):
        derived.macs_per_pe(presets.edge_ai(), bits)


def test_a_width_is_a_number():
    with pytest.raises(KPUError, match=r"bits must be a number, .*\[bit\] such as 8, got 'int8'"):
        derived.peak_ops_per_second(presets.edge_ai(), "int8")


def test_external_rate_is_the_least_of_banks_pages_and_controllers():
    cfg = presets.edge_ai()  # banks 200 GB/s; page buffers 128 KiB per 100 ns = 1311 GB/s
    assert derived.external_bytes_per_second(cfg) == 200e9
    slow = cfg.replace({"latency.external_ns": 1000})
    assert derived.external_bytes_per_second(slow) == pytest.approx(128 * 1024 / 1e-6, rel=1e-12)
    assert derived.external_bytes_per_second(cfg.replace({"latency.external_ns": 0})) == 200e9
    assert derived.external_bytes_per_second(cfg.replace({"memory_controller.bandwidth_gbps": 30})) == 60e9
    assert derived.controller_gbps(cfg) == 100
    faster = cfg.replace({"external_memory.bandwidth_gbps": 200})
    assert derived.external_bytes_per_second(faster) == 400e9  # derived controllers never limit
    assert derived.l1_buffer_count(cfg.replace({"on_chip_memory.l1.buffer_count": 10})) == 10


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jit_vmap_and_stacked_equal_the_host(name):
    """2e-6: float32 under jit, a handful of roundings."""
    function = FUNCTIONS[name]
    chips = [preset(n) for n in presets.PRESET_NAMES]
    host = np.array([function(cfg) for cfg in chips])
    assert host.dtype == np.float64
    np.testing.assert_allclose([jax.jit(function)(cfg) for cfg in chips], host, rtol=2e-6)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *chips)
    np.testing.assert_array_equal(function(stacked), host)
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(stacked), host, rtol=2e-6)
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.vmap(function)(stacked), host, rtol=1e-15)


def test_two_presets_stack_and_one_leaf_is_swept():
    pair = jax.tree.map(lambda a, b: jnp.stack([a, b]), presets.minimal(), presets.edge_ai())
    np.testing.assert_allclose(jax.vmap(derived.l1_buffer_count)(pair), [64, 256])
    cfg = presets.edge_ai()
    rates = jax.vmap(lambda x: derived.external_bytes_per_second(cfg.replace({"external_memory.bandwidth_gbps": x})))(
        jnp.array([25.0, 100.0, 1e4])
    )
    np.testing.assert_allclose(rates, [50e9, 200e9, 128 * 1024 / 1e-7], rtol=2e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_finite_and_those_of_finite_differences(name):
    """1e-6: central differences of piecewise linear or bilinear functions in float64, step 1e-4 relative."""
    function = FUNCTIONS[name]
    with jax.enable_x64(True):
        cfg = presets.edge_ai()
        flat, tree = jax.tree.flatten(cfg)
        x = jnp.asarray(np.array(flat))
        gradient = np.asarray(jax.grad(lambda v: function(jax.tree.unflatten(tree, list(v))))(x))
        assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)
        for i in np.flatnonzero(gradient):
            step = 1e-4 * abs(flat[i])
            up, down = (
                function(jax.tree.unflatten(tree, [*flat[:i], flat[i] + s, *flat[i + 1 :]])) for s in (step, -step)
            )
            assert gradient[i] == pytest.approx((up - down) / (2 * step), rel=1e-6)


def test_gradient_signs():
    cfg = presets.edge_ai()

    def slope(path, function):
        value = float(get_path(cfg, path))
        return jax.grad(lambda x: function(cfg.replace({path: x})))(value)

    assert slope("external_memory.bandwidth_gbps", derived.external_bytes_per_second) == pytest.approx(2e9)
    assert slope("latency.external_ns", derived.external_bytes_per_second) == 0  # banks limit
    assert slope("clocks.fabric_mhz", derived.tdp_watts) > 0
    slow = cfg.replace({"latency.external_ns": 1e4})
    rate = jax.grad(lambda x: derived.external_bytes_per_second(slow.replace({"latency.external_ns": x})))(1e4)
    assert rate < 0


def test_address_map_lays_regions_out_without_overlap():
    cfg = presets.edge_ai().replace({"address_map.l3_tile_base": 0x100})
    bases = derived.address_map(cfg)
    assert bases["l3_tile_base"] == 0x100
    assert bases["host_memory_base"] == 0x100 + 256 * 1024 + (-(0x100) % 4096)  # after the given region, 4 KiB aligned
    assert bases["external_memory_base"] == bases["host_memory_base"] + 512 * 2**20
    assert bases["page_buffer_base"] == bases["l1_buffer_base"] + 16 * 2**20
    assert all(isinstance(base, int) for base in bases.values())
    with pytest.raises(KPUError, match="traced or stacked"):
        jax.jit(derived.address_map)(cfg)
