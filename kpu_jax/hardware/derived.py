"""Quantities that follow from a configuration. Pure functions of its leaves: jit, vmap and grad go through.

With host leaves the answer is float64 NumPy; with jax arrays or tracers among the leaves it is a jax array.
All but `address_map` are differentiable almost everywhere in every continuous leaf they read.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.errors import KPUError, is_number, shown
from kpu_jax.hardware.addresses import address_map
from kpu_jax.hardware.config import KPUConfig
from kpu_jax.hardware.fields import KIB, MIB
from kpu_jax.hardware.formatting import Leaf

__all__ = [
    "address_map",
    "controller_gbps",
    "external_bytes_per_second",
    "external_capacity_bytes",
    "host_bytes_per_second",
    "host_capacity_bytes",
    "l1_buffer_count",
    "l1_capacity_bytes",
    "l2_capacity_bytes",
    "l3_capacity_bytes",
    "macs_per_pe",
    "page_buffer_capacity_bytes",
    "pe_count",
    "peak_macs_per_cycle",
    "peak_ops_per_second",
    "tdp_watts",
]


def _numpy(*leaves: Any) -> Any:
    """`jax.numpy` if any leaf is a jax array or tracer, else `numpy`, which keeps float64 on the host."""
    return jnp if any(isinstance(leaf, jax.Array) for leaf in leaves) else np


def macs_per_pe(cfg: KPUConfig, bits: Leaf | float) -> Leaf:
    """Multiply-adds of one PE per fabric cycle at operand width `bits`: the smallest of 4, 8, 16, 32 that holds it.

    A concrete width outside (0, 32] is a `KPUError`; a traced one above 32 counts as 32.
    """
    if not is_number(bits):
        raise KPUError(f"bits must be a number, the width of an operand [bit] such as 8, got {shown(bits)}")
    if not isinstance(bits, jax.core.Tracer) and not np.all((np.asarray(bits) > 0) & (np.asarray(bits) <= 32)):
        raise KPUError(f"bits must be greater than 0 and at most 32 [bit], got {shown(bits)}")
    p = cfg.precision
    xp = _numpy(bits, p.macs_32, p.macs_16, p.macs_8, p.macs_4)
    wide = xp.where(bits <= 16, p.macs_16, p.macs_32)
    narrow = xp.where(bits <= 4, p.macs_4, p.macs_8)
    return xp.where(bits <= 8, narrow, wide)[()]


def pe_count(cfg: KPUConfig) -> Leaf:
    """PEs of the chip: compute tiles x rows x columns [count]."""
    array = cfg.compute.processor_array
    return cfg.compute.tile_count * array.rows * array.cols


def peak_macs_per_cycle(cfg: KPUConfig, bits: Leaf | float) -> Leaf:
    """Multiply-adds of the whole chip per fabric cycle [MAC/cycle]."""
    return pe_count(cfg) * macs_per_pe(cfg, bits)


def peak_ops_per_second(cfg: KPUConfig, bits: Leaf | float) -> Leaf:
    """Peak of the chip, two operations per multiply-add [op/s]."""
    return 2.0 * peak_macs_per_cycle(cfg, bits) * cfg.clocks.fabric_mhz * 1e6  # type: ignore[return-value]


def l1_buffer_count(cfg: KPUConfig) -> Leaf:
    """L1 stream buffers of the chip: the field, or 4 (rows + cols) compute tiles where it is 0 [count]."""
    given = cfg.on_chip_memory.l1.buffer_count
    array = cfg.compute.processor_array
    derived = 4.0 * (array.rows + array.cols) * cfg.compute.tile_count
    return _numpy(given, derived).where(given > 0, given, derived)[()]


def host_capacity_bytes(cfg: KPUConfig) -> Leaf:
    """Capacity of the host memory [byte]; 1 MB is 1024^2 bytes."""
    return cfg.host_memory.region_count * cfg.host_memory.region_capacity_mb * MIB


def external_capacity_bytes(cfg: KPUConfig) -> Leaf:
    """Capacity of the external memory [byte]; 1 MB is 1024^2 bytes."""
    return cfg.external_memory.bank_count * cfg.external_memory.bank_capacity_mb * MIB


def l3_capacity_bytes(cfg: KPUConfig) -> Leaf:
    """Capacity of all L3 tiles [byte]; 1 KB is 1024 bytes."""
    return cfg.on_chip_memory.l3.tile_count * cfg.on_chip_memory.l3.tile_capacity_kb * KIB


def l2_capacity_bytes(cfg: KPUConfig) -> Leaf:
    """Capacity of all L2 banks [byte]; 1 KB is 1024 bytes."""
    return cfg.on_chip_memory.l2.bank_count * cfg.on_chip_memory.l2.bank_capacity_kb * KIB


def l1_capacity_bytes(cfg: KPUConfig) -> Leaf:
    """Capacity of all L1 stream buffers [byte]; 1 KB is 1024 bytes."""
    return l1_buffer_count(cfg) * cfg.on_chip_memory.l1.buffer_capacity_kb * KIB


def page_buffer_capacity_bytes(cfg: KPUConfig) -> Leaf:
    """Capacity of all page buffers [byte]; 1 KB is 1024 bytes."""
    return cfg.memory_controller.page_buffer_count * cfg.memory_controller.page_buffer_capacity_kb * KIB


def _bank_gbps(cfg: KPUConfig) -> Leaf:
    return cfg.external_memory.bank_count * cfg.external_memory.bandwidth_gbps


def controller_gbps(cfg: KPUConfig) -> Leaf:
    """Bandwidth of one memory controller: the field, or its share of the banks' where it is 0 [GB/s]."""
    given = cfg.memory_controller.bandwidth_gbps
    share = _bank_gbps(cfg) / cfg.memory_controller.controller_count
    return _numpy(given, share).where(given > 0, given, share)[()]


def external_bytes_per_second(cfg: KPUConfig) -> Leaf:
    """External memory rate [byte/s]: the least of what banks, page buffers and controllers carry.

    Banks x bandwidth; page buffers x capacity / external latency (each holds one page for one latency);
    controllers x controller bandwidth, where the file gives one. A latency of 0 sets no limit.
    """
    banks = _bank_gbps(cfg) * 1e9
    pages = page_buffer_capacity_bytes(cfg)
    seconds = cfg.latency.external_ns * 1e-9
    controller = cfg.memory_controller.bandwidth_gbps
    carried = cfg.memory_controller.controller_count * controller * 1e9
    xp = _numpy(banks, pages, seconds, carried)
    by_pages = xp.where(seconds > 0, pages / xp.where(seconds > 0, seconds, 1.0), jnp.inf)
    by_controllers = xp.where(controller > 0, carried, jnp.inf)
    return xp.minimum(banks, xp.minimum(by_pages, by_controllers))[()]


def host_bytes_per_second(cfg: KPUConfig) -> Leaf:
    """Host link rate: regions x bandwidth [byte/s]."""
    return cfg.host_memory.region_count * cfg.host_memory.bandwidth_gbps * 1e9


def tdp_watts(cfg: KPUConfig) -> Leaf:
    """Thermal design power by the estimate of kpu-sim's product table [W]: a constraint, not an energy model.

    0.5 W per int8 TOPS + 15 mW per GB/s of the external banks + 0.1 mW per KB of L3, L2, L1 and page buffers,
    with the three coefficients taken from `cfg.technology`.
    """
    t = cfg.technology
    on_chip = l3_capacity_bytes(cfg) + l2_capacity_bytes(cfg) + l1_capacity_bytes(cfg)
    kilobytes = (on_chip + page_buffer_capacity_bytes(cfg)) / KIB
    compute = t.tdp_w_per_tops * peak_ops_per_second(cfg, 8.0) * 1e-12
    return compute + 1e-3 * (t.tdp_mw_per_gbps * _bank_gbps(cfg) + t.tdp_mw_per_kb * kilobytes)
