"""`KPUConfig`: what the chip is, as a nested pytree whose attribute paths are the paths of the YAML file.

Every leaf is np.float64 on the host, or a jax array or tracer inside jit, vmap and grad. Build one with
`config_from_dict`, `load_config` or a preset, and change it with `replace`; those check every number, and
`check_config` checks what came about otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, nearest, shown, word
from kpu_jax.base.pytree import is_traced, record, replace_path
from kpu_jax.base.validation import check_type
from kpu_jax.hardware.addresses import address_map
from kpu_jax.hardware.fields import FIELDS, FieldError, check_field, section_paths, section_rules
from kpu_jax.hardware.formatting import Leaf, Section
from kpu_jax.hardware.technology import Technology

_FROM_A_CHIP = "start from kpu.preset('edge_ai') or kpu.load_config(file)"


@record
class HostMemory(Section):
    """Host memory: regions, capacity of each [MB], link bandwidth of each [GB/s]."""

    path: ClassVar[str] = "host_memory"
    region_count: Leaf
    region_capacity_mb: Leaf
    bandwidth_gbps: Leaf


@record
class ExternalMemory(Section):
    """External memory: banks (channels), capacity of each [MB], bandwidth of each [GB/s]."""

    path: ClassVar[str] = "external_memory"
    bank_count: Leaf
    bank_capacity_mb: Leaf
    bandwidth_gbps: Leaf


@record
class MemoryController(Section):
    """Controllers; page buffers of the chip and capacity of each [KB]; bandwidth of one controller [GB/s].

    Bandwidth 0 means derived: the controllers together carry exactly what the banks deliver.
    """

    path: ClassVar[str] = "memory_controller"
    controller_count: Leaf
    page_buffer_count: Leaf
    page_buffer_capacity_kb: Leaf
    bandwidth_gbps: Leaf


@record
class L3Memory(Section):
    """Scratchpad tiles of the chip and capacity of each [KB]."""

    path: ClassVar[str] = "on_chip_memory.l3"
    tile_count: Leaf
    tile_capacity_kb: Leaf


@record
class L2Memory(Section):
    """Banks of the chip and capacity of each [KB]."""

    path: ClassVar[str] = "on_chip_memory.l2"
    bank_count: Leaf
    bank_capacity_kb: Leaf


@record
class L1Memory(Section):
    """Stream buffers: capacity of each [KB]; their number on the chip, 0 meaning 4 (rows + cols) compute tiles."""

    path: ClassVar[str] = "on_chip_memory.l1"
    buffer_capacity_kb: Leaf
    buffer_count: Leaf


@record
class OnChipMemory(Section):
    """The software-managed memories of the chip."""

    path: ClassVar[str] = "on_chip_memory"
    l3: L3Memory
    l2: L2Memory
    l1: L1Memory


@record
class DataMovement(Section):
    """Engines of each class on the chip."""

    path: ClassVar[str] = "data_movement"
    dma_engine_count: Leaf
    block_mover_count: Leaf
    streamer_count: Leaf


@record
class ProcessorArray(Section):
    """PE rows and columns of one compute tile."""

    path: ClassVar[str] = "compute.processor_array"
    rows: Leaf
    cols: Leaf


@record
class Compute(Section):
    """Compute tiles, the array of each, and what of a pass hides behind the next (1.0) or holds the array (0.0).

    `fold_overlap`: its fill and drain. `drain_overlap`: the `rows` cycles in which output-stationary results leave.
    """

    path: ClassVar[str] = "compute"
    tile_count: Leaf
    processor_array: ProcessorArray
    fold_overlap: Leaf
    drain_overlap: Leaf


@record
class AddressMap(Section):
    """First byte of each region; -1 means derived, see `kpu_jax.hardware.derived.address_map`."""

    path: ClassVar[str] = "address_map"
    host_memory_base: Leaf
    external_memory_base: Leaf
    l3_tile_base: Leaf
    l2_bank_base: Leaf
    l1_buffer_base: Leaf
    page_buffer_base: Leaf


@record
class Clocks(Section):
    """Clock of the fabric and of each engine class [MHz]; 1000 where a file does not say (assumption)."""

    path: ClassVar[str] = "clocks"
    fabric_mhz: Leaf
    dma_mhz: Leaf
    block_mover_mhz: Leaf
    streamer_mhz: Leaf


@record
class Buses(Section):
    """Bytes per engine clock of one engine, and the external burst [byte]; 64 each, as in stillwater-sc/kpu-sim."""

    path: ClassVar[str] = "buses"
    dma_bytes: Leaf
    block_mover_bytes: Leaf
    streamer_bytes: Leaf
    burst_bytes: Leaf


@record
class Latency(Section):
    """Fixed latency of a transfer [ns]: it delays completion and does not hold the engine.

    Defaults: host 1000, PCIe round trips of 0.5 to 1 us are measured in Neugebauer et al., 'Understanding PCIe
    performance for end host networking', SIGCOMM 2018; external 100, assumption: a closed-page DRAM access with
    its controller; block mover 5 and streamer 2, assumptions: a CACTI 7 access of the memories at both ends
    (0.7 to 1.4 ns at 22 nm) and a few cycles of pipeline.
    """

    path: ClassVar[str] = "latency"
    host_ns: Leaf
    external_ns: Leaf
    block_mover_ns: Leaf
    streamer_ns: Leaf


@record
class Precision(Section):
    """Multiply-adds of one PE per fabric cycle by operand width; 1, 2, 4, 8 as in the KPU product table."""

    path: ClassVar[str] = "precision"
    macs_32: Leaf
    macs_16: Leaf
    macs_8: Leaf
    macs_4: Leaf


@record
class Vector(Section):
    """Fabric cycles per element and vector lane. Assumption: 1 for one comparison or addition, 4 for a table lookup
    with interpolation, a division or a root, 5 for SiLU (sigmoid and product), 8 for GELU (tanh and polynomial)."""

    path: ClassVar[str] = "vector"
    cycles_add: Leaf
    cycles_relu: Leaf
    cycles_gelu: Leaf
    cycles_sigmoid: Leaf
    cycles_tanh: Leaf
    cycles_silu: Leaf
    cycles_leaky_relu: Leaf
    cycles_exp: Leaf
    cycles_div: Leaf
    cycles_sqrt: Leaf


@record
class KPUConfig(Section):
    """A chip. Numbers only: a name and a description belong to the file."""

    host_memory: HostMemory
    external_memory: ExternalMemory
    memory_controller: MemoryController
    on_chip_memory: OnChipMemory
    data_movement: DataMovement
    compute: Compute
    address_map: AddressMap
    clocks: Clocks
    buses: Buses
    latency: Latency
    precision: Precision
    vector: Vector
    technology: Technology

    def __init__(self, *sections: Section, **named: Section) -> None:
        """All sections, in order or by name, as `dataclasses.replace` gives them; leaves are not checked.

        A chip comes from `kpu.preset(name)`, `kpu.load_config(file)` or another chip's `replace`.
        """
        names = [f.name for f in dataclasses.fields(self)]
        given = {**dict(zip(names, sections, strict=False)), **named}
        wrong = sorted(set(given) ^ set(names))
        if wrong or len(sections) + len(named) != len(names):
            raise KPUError(
                f"KPUConfig takes each of its {len(names)} sections once, missing or unknown: {', '.join(wrong) or 'none'}; "
                f"{_FROM_A_CHIP} and change fields with cfg.replace"
            )
        for name, value in given.items():
            if type(value) is not SECTIONS[name]:
                raise FieldError(name, f"{name} must be a {SECTIONS[name].__name__}, got {shown(value)}")
            object.__setattr__(self, name, value)

    def replace(self, changes: Mapping[str, Any] | None = None, /, **sections: Any) -> KPUConfig:
        """A copy with some fields changed: `cfg.replace({"clocks.fabric_mhz": 750, "compute": {"tile_count": 4}})`.

        Keys are dotted paths; a section takes a mapping of its fields or a whole record, as in
        `cfg.replace(technology=technology(7, "HBM3"))`. Numbers are checked as in a file (range, unit), and so
        are given address bases; tracers pass unchecked. Raises `KPUError` naming the dotted path.
        """
        if not isinstance(changes, Mapping | None):
            raise FieldError("", f"replace takes a mapping of dotted paths to values, got {shown(changes)}")
        result = self
        for path, value in flatten({**(changes or {}), **sections}):
            if isinstance(value, Section):
                section_rules(path)(value, f"{path}.")
            elif path != "technology.node_nm" or not isinstance(value, jax.core.Tracer):
                check_varying(path)
            leaf = value if isinstance(value, Section) else check_field(path, value)
            result = replace_path(result, path, leaf)
        check_addresses(result)
        return result


def check_config(cfg: Any) -> None:
    """Raise a `KPUError` unless `cfg` is a `KPUConfig` whose leaves, single or stacked, lie in their fields' ranges.

    For leaves that no constructor saw; traced ones are passed over. The message names dotted path, value, unit.
    """
    check_type("the chip", cfg, KPUConfig, _FROM_A_CHIP)
    section_rules("")(cfg)


SECTIONS: dict[str, type[Section]] = {
    cls.path: cls
    for cls in (
        HostMemory, ExternalMemory, MemoryController, L3Memory, L2Memory, L1Memory, OnChipMemory, DataMovement,
        ProcessorArray, Compute, AddressMap, Clocks, Buses, Latency, Precision, Vector, Technology,
    )
}  # fmt: skip
_SECTION_PATHS = frozenset(section_paths())
FIXED: dict[str, tuple[Any, str]] = {  # fields of a file that are not leaves: accepted value, reason for no other
    "compute.systolic_mode": (True, "without it the PE grid has no schedule: the fabric's timing here is systolic"),
    "compute.processor_array.topology": ("rectangular", "the schedules here are those of a rectangular mesh"),
}
TEXT = ("name", "description", "technology.dram")


def check_addresses(config: KPUConfig) -> None:
    """Reject given regions that overlap; nothing to check on traced or stacked configurations."""
    leaves = jax.tree_util.tree_leaves(config)
    if is_traced(config) or any(np.ndim(leaf) for leaf in leaves):
        return
    if any(float(leaf) >= 0 for leaf in jax.tree_util.tree_leaves(config.address_map)):
        address_map(config)


def check_varying(path: str) -> None:
    """Raise a `FieldError` unless `path` is a number of a configuration that can be varied by itself."""
    if path in ("technology.node_nm", "technology.dram"):
        raise FieldError(
            path,
            f"{path} alone changes no constant; replace the section: cfg.replace(technology=technology(node_nm, dram))",
        )
    if path in FIXED or path in TEXT:
        raise FieldError(path, f"{path} belongs to a file; a configuration has no such number")
    if path in _SECTION_PATHS:
        raise FieldError(path, f"{path} is a section; name one of its fields")
    if path not in FIELDS:
        raise _unknown(path)


def _unknown(path: str) -> FieldError:
    """The error for a path that no field has, with the nearest of its siblings or its namesake elsewhere."""
    section, _, name = path.rpartition(".")
    known = [*FIELDS, *_SECTION_PATHS, *FIXED, *TEXT]
    same = [p for p in known if p.rpartition(".")[2] == name]
    if same:
        return FieldError(path, f"unknown field {word(path)}: did you mean {', '.join(same)}?")
    prefix = f"{section}." if section in _SECTION_PATHS else ""
    siblings = {p.removeprefix(prefix).split(".")[0] for p in known if p.startswith(prefix)}
    return FieldError(path, f"unknown field {word(path)}: {nearest(name if prefix else path.split('.')[0], siblings)}")


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of a nested mapping along the known sections; any other path is a `FieldError`."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if path in _SECTION_PATHS:
            if isinstance(value, Mapping):
                yield from flatten(value, f"{path}.")
            elif type(value) is SECTIONS[path]:
                yield path, value
            else:
                raise FieldError(path, f"{path} must be a section of fields, got {type(value).__name__} {shown(value)}")
        elif isinstance(key, str) and (path in FIELDS or path in FIXED or path in TEXT):
            yield path, value
        else:
            raise _unknown(path)
