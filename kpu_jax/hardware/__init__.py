"""What the chip is: its configuration, the published presets, its technology, and files of them."""

from kpu_jax.hardware import derived, presets
from kpu_jax.hardware.config import KPUConfig, check_config
from kpu_jax.hardware.derived import tdp_watts
from kpu_jax.hardware.dictionary import config_from_dict, config_to_dict
from kpu_jax.hardware.io import load_config, save_config
from kpu_jax.hardware.presets import PRESET_NAMES, preset
from kpu_jax.hardware.technology import (
    DRAM_KINDS,
    JOUPPI_7NM,
    NODES,
    DramKind,
    Technology,
    technology,
    technology_sources,
)

__all__ = [
    "DRAM_KINDS",
    "JOUPPI_7NM",
    "NODES",
    "PRESET_NAMES",
    "DramKind",
    "KPUConfig",
    "Technology",
    "check_config",
    "config_from_dict",
    "config_to_dict",
    "derived",
    "load_config",
    "preset",
    "presets",
    "save_config",
    "tdp_watts",
    "technology",
    "technology_sources",
]
