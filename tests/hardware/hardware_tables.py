"""The published configurations as their table gives them, without the optional sections."""

from __future__ import annotations

import copy
from typing import Any

COLUMNS = [
    "host_memory.region_count",
    "host_memory.region_capacity_mb",
    "host_memory.bandwidth_gbps",
    "external_memory.bank_count",
    "external_memory.bank_capacity_mb",
    "external_memory.bandwidth_gbps",
    "memory_controller.controller_count",
    "memory_controller.page_buffer_count",
    "memory_controller.page_buffer_capacity_kb",
    "on_chip_memory.l3.tile_count",
    "on_chip_memory.l3.tile_capacity_kb",
    "on_chip_memory.l2.bank_count",
    "on_chip_memory.l2.bank_capacity_kb",
    "on_chip_memory.l1.buffer_capacity_kb",
    "data_movement.dma_engine_count",
    "data_movement.block_mover_count",
    "data_movement.streamer_count",
    "compute.tile_count",
    "compute.processor_array.rows",
    "compute.processor_array.cols",
]

PUBLISHED = {
    "minimal": (1, 128, 25, 1, 256, 50, 1, 2, 16, 1, 64, 4, 32, 32, 1, 1, 4, 1, 8, 8),
    "edge_ai": (1, 512, 50, 2, 512, 100, 2, 4, 32, 2, 128, 16, 64, 64, 2, 4, 16, 2, 16, 16),
    "embodied_ai": (2, 2048, 100, 8, 512, 25, 4, 16, 32, 64, 256, 1024, 64, 64, 8, 64, 256, 64, 24, 24),
    "datacenter": (4, 16384, 200, 6, 4096, 800, 6, 32, 128, 256, 512, 4096, 128, 128, 32, 256, 1024, 256, 32, 32),
}
FABRIC_MHZ = {"minimal": 500, "edge_ai": 750, "embodied_ai": 1000, "datacenter": 1500}
L1_BUFFERS = {"minimal": 64, "edge_ai": 256, "embodied_ai": 12288, "datacenter": 65536}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted paths to nested sections."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *sections, name = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree


def put(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a nested mapping with one path set, or deleted for `...`."""
    tree = copy.deepcopy(tree)
    *sections, name = path.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
    if value is ...:
        del node[name]
    else:
        node[name] = value
    return tree
