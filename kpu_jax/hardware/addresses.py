"""The machine's address map: six regions, given or laid out one after another, never overlapping."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from kpu_jax.base.pytree import is_traced, leaf_paths
from kpu_jax.hardware.fields import KIB, MIB, FieldError

ALIGNMENT = 4096  # bytes: derived bases start on a 4 KiB boundary


def region_sizes(config: Any) -> dict[str, int]:
    """Bytes of each region of a concrete `KPUConfig`, by the name of its base field, in layout order."""
    tile = config.compute
    chip = config.on_chip_memory
    array = tile.processor_array
    buffers = float(chip.l1.buffer_count) or 4 * (float(array.rows) + float(array.cols)) * float(tile.tile_count)
    host, external, controller = config.host_memory, config.external_memory, config.memory_controller
    sizes = {
        "host_memory_base": float(host.region_count) * float(host.region_capacity_mb) * MIB,
        "external_memory_base": float(external.bank_count) * float(external.bank_capacity_mb) * MIB,
        "l3_tile_base": float(chip.l3.tile_count) * float(chip.l3.tile_capacity_kb) * KIB,
        "l2_bank_base": float(chip.l2.bank_count) * float(chip.l2.bank_capacity_kb) * KIB,
        "l1_buffer_base": buffers * float(chip.l1.buffer_capacity_kb) * KIB,
        "page_buffer_base": float(controller.page_buffer_count) * float(controller.page_buffer_capacity_kb) * KIB,
    }
    return {name: math.ceil(size) for name, size in sizes.items()}


def address_map(config: Any) -> dict[str, int]:
    """Concrete base address [byte] of each region (host only, not traceable).

    Given bases stay. Derived ones (-1) follow the highest given region, or start at 0, in the order host,
    external, L3, L2, L1, page buffers, each on a 4 KiB boundary. Raises `FieldError` for overlapping regions.
    """
    for name, leaf in leaf_paths(config):
        if is_traced(leaf) or np.ndim(leaf):
            raise FieldError(name, f"address_map needs one concrete configuration, but {name} is traced or stacked")
    sizes = region_sizes(config)
    bases = {name: int(getattr(config.address_map, name)) for name in sizes}
    given = sorted((base, name) for name, base in bases.items() if base >= 0)
    for (low, first), (high, second) in itertools.pairwise(given):
        if low + sizes[first] > high:
            raise FieldError(
                f"address_map.{second}",
                f"address_map.{second} = {high:#x} overlaps address_map.{first} = {low:#x}, "
                f"which holds {sizes[first]} bytes; it must be at least {low + sizes[first]:#x} [byte address]",
            )
    cursor = max((base + sizes[name] for base, name in given), default=0)
    for name, base in bases.items():
        if base < 0:
            bases[name] = -(-cursor // ALIGNMENT) * ALIGNMENT
            cursor = bases[name] + sizes[name]
    return bases
