"""The one table of configuration fields: unit, range, default and meaning of every leaf.

Loading, saving, checking and printing all read this table. Ranges are wide enough for any chip and narrow enough
to catch a value in the wrong unit (bytes for KB, Hz for MHz, bytes/s for GB/s).
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, check_flag, check_number, is_number, plain, shown
from kpu_jax.base.validation import LeafRules
from kpu_jax.hardware.technology_data import TECHNOLOGY_UNITS

KIB = 1024.0
MIB = 1024.0**2
MAX_ADDRESS = 2**53 - 1  # largest integer step that a float64 leaf holds exactly


class FieldError(KPUError):
    """A `KPUError` about one configuration field; `path` is its dotted path."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[type[FieldError], tuple[str, str]]:
        """Two arguments, so that the error crosses process boundaries."""
        return FieldError, (self.path, str(self))


@dataclasses.dataclass(frozen=True)
class Field:
    """One leaf: its unit, closed range [low, high], default (None: the file must give it) and meaning.

    `special` is a value accepted outside the range, and `special_means` what it stands for.
    """

    unit: str
    low: float
    high: float
    integer: bool = False
    default: float | None = None
    doc: str = ""
    special: float | None = None
    special_means: str = ""
    flag: bool = False

    @property
    def optional(self) -> bool:
        """True if a file may leave the field out."""
        return self.default is not None


def _count(doc: str, high: float = 65536, **more: Any) -> Field:
    return Field("count", 1, high, integer=True, doc=doc, **more)


def _capacity(unit: str, high: float, doc: str) -> Field:
    return Field(unit, 2.0**-20 if unit == "MB" else 2.0**-10, high, doc=doc)


def _rate(doc: str, **more: Any) -> Field:
    return Field("GB/s", 1e-3, 1e5, doc=doc, **more)


def _clock(doc: str) -> Field:
    return Field("MHz", 10, 20000, default=1000.0, doc=doc)


def _latency(default: float, doc: str) -> Field:
    return Field("ns", 1e-3, 1e6, default=default, doc=doc, special=0.0, special_means="none")


def _base(doc: str) -> Field:
    return Field(
        "byte address", 0, MAX_ADDRESS, integer=True, default=-1.0, doc=doc, special=-1.0, special_means="derived"
    )


def _vector(default: float) -> Field:
    return Field("cycle", 1e-3, 1e6, default=default, doc="fabric cycles per element and lane (assumption)")


_HARDWARE: dict[str, Field] = {
    "host_memory.region_count": _count("host memory regions"),
    "host_memory.region_capacity_mb": _capacity("MB", 1e7, "capacity of one region"),
    "host_memory.bandwidth_gbps": _rate("host link bandwidth of one region"),
    "external_memory.bank_count": _count("external memory banks (channels)"),
    "external_memory.bank_capacity_mb": _capacity("MB", 1e7, "capacity of one bank"),
    "external_memory.bandwidth_gbps": _rate("bandwidth of one bank"),
    "memory_controller.controller_count": _count("memory controllers"),
    "memory_controller.page_buffer_count": _count("page buffers of the whole chip", 1e6),
    "memory_controller.page_buffer_capacity_kb": _capacity("KB", 4096, "capacity of one page buffer"),
    "memory_controller.bandwidth_gbps": _rate(
        "bandwidth of one controller", default=0.0, special=0.0, special_means="derived"
    ),
    "on_chip_memory.l3.tile_count": _count("L3 scratchpad tiles", 1e6),
    "on_chip_memory.l3.tile_capacity_kb": _capacity("KB", 1e5, "capacity of one L3 tile"),
    "on_chip_memory.l2.bank_count": _count("L2 banks of the whole chip", 1e7),
    "on_chip_memory.l2.bank_capacity_kb": _capacity("KB", 16384, "capacity of one L2 bank"),
    "on_chip_memory.l1.buffer_capacity_kb": _capacity("KB", 4096, "capacity of one L1 stream buffer"),
    "on_chip_memory.l1.buffer_count": _count(
        "L1 stream buffers of the whole chip", 1e9, default=0.0, special=0.0, special_means="derived"
    ),
    "data_movement.dma_engine_count": _count("DMA engines (external memory <-> L3)", 1e6),
    "data_movement.block_mover_count": _count("block movers (L3 <-> L2)", 1e6),
    "data_movement.streamer_count": _count("streamers (L2 <-> L1)", 1e6),
    "compute.tile_count": _count("compute tiles", 1e6),
    "compute.processor_array.rows": _count("PE rows of one compute tile"),
    "compute.processor_array.cols": _count("PE columns of one compute tile"),
    "compute.fold_overlap": Field(
        "true/false", 0, 1, integer=True, default=1.0, flag=True, doc="fill and drain of a pass hide behind its neighbours"
    ),
    "compute.drain_overlap": Field(
        "true/false", 0, 1, integer=True, default=1.0, flag=True,
        doc="results of an output-stationary pass leave during the next (a second register per PE), else they hold the array",
    ),
    "address_map.host_memory_base": _base("first byte of the host memory"),
    "address_map.external_memory_base": _base("first byte of the external memory"),
    "address_map.l3_tile_base": _base("first byte of the L3 tiles"),
    "address_map.l2_bank_base": _base("first byte of the L2 banks"),
    "address_map.l1_buffer_base": _base("first byte of the L1 stream buffers"),
    "address_map.page_buffer_base": _base("first byte of the page buffers"),
    "clocks.fabric_mhz": _clock("clock of the PE fabric; its cycle is the time base"),
    "clocks.dma_mhz": _clock("clock of the DMA engines"),
    "clocks.block_mover_mhz": _clock("clock of the block movers"),
    "clocks.streamer_mhz": _clock("clock of the streamers"),
    "buses.dma_bytes": Field("byte", 1, 65536, True, 64.0, "bytes per cycle of one DMA engine"),
    "buses.block_mover_bytes": Field("byte", 1, 65536, True, 64.0, "bytes per cycle of one block mover"),
    "buses.streamer_bytes": Field("byte", 1, 65536, True, 64.0, "bytes per cycle of one streamer"),
    "buses.burst_bytes": Field("byte", 1, 65536, True, 64.0, "smallest access to external memory"),
    "latency.host_ns": _latency(1000.0, "host link"),
    "latency.external_ns": _latency(100.0, "external memory"),
    "latency.block_mover_ns": _latency(5.0, "block mover"),
    "latency.streamer_ns": _latency(2.0, "streamer"),
    **{
        f"precision.macs_{bits}": Field(
            "MAC/cycle", 2.0**-10, 1024, default=32.0 / bits, doc=f"multiply-adds of {bits} bits per PE and cycle"
        )
        for bits in (32, 16, 8, 4)
    },
    "vector.cycles_add": _vector(1.0),
    "vector.cycles_relu": _vector(1.0),
    "vector.cycles_gelu": _vector(8.0),
    "vector.cycles_sigmoid": _vector(4.0),
    "vector.cycles_tanh": _vector(4.0),
    "vector.cycles_silu": _vector(5.0),
    "vector.cycles_leaky_relu": _vector(1.0),
    "vector.cycles_exp": _vector(4.0),
    "vector.cycles_div": _vector(4.0),
    "vector.cycles_sqrt": _vector(4.0),
}

_TECHNOLOGY_RANGES: dict[str, tuple[float, float, bool]] = {  # unit -> low, high, zero allowed
    "nm": (1, 250, False),
    "KB": (2.0**-10, 16384, False),
    "pJ/byte": (1e-6, 1e5, True),
    "pJ": (1e-6, 1e5, True),
    "mm^2": (1e-9, 1e3, True),
    "mm^2/MiB": (1e-5, 1e3, True),
    "mm^2/(GB/s)": (1e-7, 1e2, True),
    "mW/MiB": (1e-6, 1e5, True),
    "mW/mm^2": (1e-6, 1e5, True),
    "W/TOPS": (1e-6, 1e4, True),
    "mW/(GB/s)": (1e-6, 1e5, True),
    "mW/KB": (1e-9, 1e4, True),
}


def _technology(unit: str, doc: str) -> Field:
    low, high, zero = _TECHNOLOGY_RANGES[unit]
    return Field(unit, low, high, doc=doc, special=0.0 if zero else None, special_means="none" if zero else "")


FIELDS: dict[str, Field] = {
    **_HARDWARE,
    **{f"technology.{name}": _technology(unit, doc) for name, (unit, doc) in TECHNOLOGY_UNITS.items()},
}
"""Dotted path of every leaf of `KPUConfig` -> its `Field`. Technology leaves get their defaults from a node's table."""

_SLIPS: dict[str, tuple[tuple[str, float], ...]] = {  # unit -> (likely wrong unit, factor into the right one)
    "GB/s": (("MB/s", 1e-3), ("bytes/s", 1e-9)),
    "MHz": (("kHz", 1e-3), ("Hz", 1e-6), ("GHz", 1e3)),
    "KB": (("bytes", 1 / KIB),),
    "MB": (("bytes", 1 / MIB),),
    "ns": (("microseconds", 1e3), ("seconds", 1e9)),
    "pJ": (("joules", 1e12),),
    "pJ/byte": (("joules/byte", 1e12),),
    "mm^2": (("square micrometres", 1e-6),),
}


def _hint(field: Field, value: Any) -> str:
    """The remedy for a rejected value: the unit that it is likely in, or how to write a number."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return "; write a plain number"
        return "; write it without leading zeros" if re.match(r"[-+]?0\d", value) else "; remove the quotes: this is text, not a number"
    if value is None:
        return "; the value is empty"
    if not is_number(value) or np.ndim(value):
        return ""
    try:
        number = float(value)
    except OverflowError:
        return ""
    if number > 0 and not field.low <= number <= field.high:
        # A value in the wrong unit may also lie somewhat beyond the range.
        for slack in (1, 16):
            for unit, factor in _SLIPS.get(field.unit, ()):
                if field.low / slack <= number * factor <= field.high * slack:
                    return f"; is this in {unit}? the unit is {field.unit}"
    return ""


def _check_field_flag(path: str, value: Any) -> np.float64:
    """A boolean, or the 0.0 or 1.0 that a configuration's leaf holds."""
    if isinstance(value, (np.floating, np.ndarray, jax.Array)) and not np.ndim(value) and value in (0.0, 1.0):
        return np.float64(value)
    try:
        return np.float64(check_flag(path, value))
    except KPUError as error:
        quotes = "; write it without quotes" if isinstance(value, str) else ""
        raise FieldError(path, f"{error}{quotes}") from None


def check_field(path: str, value: Any) -> Any:
    """`value` as a leaf: np.float64, checked against the table; tracers pass unchanged.

    Raises `FieldError` naming path, value, unit, range and, where the value suggests one, the likely unit.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    field = FIELDS[path]
    if isinstance(value, (Mapping, list, tuple, set)):
        raise FieldError(path, f"{path} must be one number [{field.unit}], got a {type(value).__name__} {shown(value)}")
    if field.flag:
        return _check_field_flag(path, value)
    if field.special is not None and is_number(value) and not np.ndim(value) and value == field.special:
        return np.float64(field.special)
    try:
        return np.float64(check_number(path, value, field.unit, low=field.low, high=field.high, integer=field.integer))
    except KPUError as error:
        also = f" ({plain(field.special)} means {field.special_means})" if field.special is not None else ""
        raise FieldError(path, f"{error}{also}{_hint(field, value)}") from None


@functools.cache
def section_rules(path: str) -> LeafRules:
    """The table's limits for all leaves of the section at `path` ("": of a whole configuration)."""
    start = f"{path}." if path else ""
    return LeafRules({p.removeprefix(start): f for p, f in FIELDS.items() if p.startswith(start)}, check_field)


def section_paths() -> Iterator[str]:
    """Dotted path of every section (an inner node of the configuration tree)."""
    seen: dict[str, None] = {}
    for path in FIELDS:
        while "." in path:
            path = path.rpartition(".")[0]
            seen[path] = None
    return iter(seen)
