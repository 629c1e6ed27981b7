"""The peers' memories as a chip of ours."""

from __future__ import annotations

from collections.abc import Mapping

import kpu_jax as kpu


def chip_of(chip: Mapping[str, float]) -> kpu.KPUConfig:
    """One compute tile of `rows` x `cols` with `l3_bytes` and `l2_bytes`; L1 holds any stream."""
    memories = {
        "l3": {"tile_count": 1, "tile_capacity_kb": chip["l3_bytes"] / 1024},
        "l2": {"bank_count": 1, "bank_capacity_kb": chip["l2_bytes"] / 1024},
        "l1": {"buffer_capacity_kb": 64},
    }
    array = {"rows": chip["rows"], "cols": chip["cols"]}
    return kpu.presets.minimal().replace({"on_chip_memory": memories, "compute": {"processor_array": array}, "precision.macs_8": 1})
