"""Units with the prefix in which a number reads well."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

_PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}


class Unit(NamedTuple):
    """A unit with its prefix: shown value = value x `factor`."""

    factor: float
    name: str


def unit_for(values: Any, unit: str) -> Unit:
    """The prefixed `unit` in which the largest of `values` reads as 1 to 1000; values that are not finite do not count."""
    array = np.abs(np.asarray(values, float))
    most = float(np.max(array[np.isfinite(array)], initial=0.0))
    power = 0 if most == 0 else 3 * math.floor(math.log10(most) / 3 + 1e-9)
    power = min(max(power, min(_PREFIXES)), max(_PREFIXES))
    if unit == "cycles":  # a count, which has no small prefixes
        power = 0 if power < 6 else power
    return Unit(10.0**-power, f"{_PREFIXES[power]}{unit}" if unit != "cycles" or not power else f"10^{power} cycles")


def quantity(value: Any, unit: str) -> str:
    """A number with its prefixed unit, such as "1.234 ms"."""
    scale = unit_for([value], unit)
    return f"{float(value) * scale.factor:,.4g} {scale.name}"


_SUFFIXES = {"ms": "ms", "mj": "mJ", "js": "J s", "mm2": "mm^2", "w": "W", "mhz": "MHz", "gbps": "GB/s", "kb": "KB", "mb": "MB",
             "ns": "ns", "bytes": "byte", "pj": "pJ"}  # fmt: skip


def name_and_unit(column: str) -> tuple[str, str]:
    """("latency", "ms") of the column "latency_ms"; no unit where the name does not end in one."""
    stem, _, last = column.rpartition("_")
    unit = _SUFFIXES.get(last, "") if stem else ""
    return (stem if unit else column).replace("_", " "), unit


def heading(column: str) -> str:
    """The column "latency_ms" as people read it: "latency [ms]"."""
    name, unit = name_and_unit(column)
    return f"{name} [{unit}]" if unit else name
