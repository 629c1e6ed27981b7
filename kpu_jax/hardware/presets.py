"""The published chips and the product family, each backed by a YAML file of this package."""

from __future__ import annotations

import functools
import importlib.resources

from kpu_jax.base.errors import check_choice
from kpu_jax.hardware.config import KPUConfig
from kpu_jax.hardware.io import load_config

PRESET_NAMES = ("minimal", "edge_ai", "embodied_ai", "datacenter", "t64", "t256", "t768")
"""Names that `preset` knows; each is a function of this module too."""

__all__ = ["PRESET_NAMES", "datacenter", "edge_ai", "embodied_ai", "minimal", "preset", "t64", "t256", "t768"]


def __dir__() -> list[str]:
    """What completion offers: the presets, without this module's imports."""
    return __all__


@functools.cache
def _load(name: str) -> KPUConfig:
    source = importlib.resources.files("kpu_jax.hardware") / "preset_files" / f"{name}.yaml"
    with importlib.resources.as_file(source) as path:
        return load_config(path)


def preset(name: str) -> KPUConfig:
    """The preset of that name; an unknown one is a `KPUError` with the nearest names."""
    return _load(check_choice("preset", name, PRESET_NAMES))


def minimal() -> KPUConfig:
    """1 tile of 8 x 8 PEs, 500 MHz, 50 GB/s, 16 nm: the smallest published chip."""
    return _load("minimal")


def edge_ai() -> KPUConfig:
    """2 tiles of 16 x 16 PEs, 750 MHz, 200 GB/s, 16 nm."""
    return _load("edge_ai")


def embodied_ai() -> KPUConfig:
    """64 tiles of 24 x 24 PEs, 1000 MHz, 200 GB/s, 16 nm."""
    return _load("embodied_ai")


def datacenter() -> KPUConfig:
    """256 tiles of 32 x 32 PEs, 1500 MHz, 4800 GB/s, 7 nm."""
    return _load("datacenter")


def t64() -> KPUConfig:
    """64 tiles of 24 x 24 PEs, 1250 MHz, 75 GB/s, 22 nm: the middle of the T64 ranges."""
    return _load("t64")


def t256() -> KPUConfig:
    """256 tiles of 48 x 48 PEs, 1750 MHz, 225 GB/s, 16 nm: the middle of the T256 ranges."""
    return _load("t256")


def t768() -> KPUConfig:
    """768 tiles of 96 x 96 PEs, 2000 MHz, 600 GB/s, 7 nm: the middle of the T768 ranges."""
    return _load("t768")
