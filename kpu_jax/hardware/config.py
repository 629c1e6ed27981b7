"""`KPUConfig`: what the chip is, as a nested pytree whose attribute paths are the paths of the YAML file.

Every leaf is np.float64 on the host, or a jax array or tracer inside jit, vmap and grad. Build one with
`config_from_dict`, `load_config` or a preset, and change it with `replace`; those check every number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from kpu_jax.base.errors import nearest
from kpu_jax.base.pytree import build, is_traced, leaf_paths, record, replace_path
from kpu_jax.hardware.addresses import address_map
from kpu_jax.hardware.fields import FIELDS, FieldError, check_field, section_paths
from kpu_jax.hardware.formatting import Leaf, Section
from kpu_jax.hardware.technology import Technology, technology


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
    """Compute tiles, the array of each, and whether a pass hides its fill and drain (1.0) or not (0.0)."""

    path: ClassVar[str] = "compute"
    tile_count: Leaf
    processor_array: ProcessorArray
    fold_overlap: Leaf


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

    def replace(self, changes: Mapping[str, Any] | None = None, /, **sections: Any) -> KPUConfig:
        """A copy with some fields changed: `cfg.replace({"clocks.fabric_mhz": 750, "compute": {"tile_count": 4}})`.

        Keys are dotted paths; a section takes a mapping of its fields or a whole record, as in
        `cfg.replace(technology=technology(7, "HBM3"))`. Host numbers are checked as in a file (range, unit), and so
        are given address bases; jax arrays and tracers pass unchecked. Raises `KPUError` naming the dotted path.
        """
        result = self
        for path, value in _flatten({**(changes or {}), **sections}):
            if path == "technology.dram" or (path == "technology.node_nm" and not isinstance(value, jax.Array)):
                raise FieldError(
                    path,
                    f"{path} alone changes no constant; "
                    "replace the section: cfg.replace(technology=technology(node_nm, dram))",
                )
            if path not in FIELDS and not isinstance(value, Section):
                raise FieldError(path, f"{path} belongs to a file; a configuration has no such number")
            result = replace_path(result, path, value if isinstance(value, Section) else check_field(path, value))
        _check_addresses(result)
        return result


_SECTIONS: dict[str, type[Section]] = {
    cls.path: cls
    for cls in (
        HostMemory, ExternalMemory, MemoryController, L3Memory, L2Memory, L1Memory, OnChipMemory, DataMovement,
        ProcessorArray, Compute, AddressMap, Clocks, Buses, Latency, Precision, Vector, Technology,
    )
}  # fmt: skip
_SECTION_PATHS = frozenset(section_paths())
_FIXED: dict[str, tuple[Any, str]] = {  # fields of a file that are not leaves: accepted value, reason for no other
    "compute.systolic_mode": (True, "without it the PE grid has no schedule: the fabric's timing here is systolic"),
    "compute.processor_array.topology": ("rectangular", "the schedules here are those of a rectangular mesh"),
}
_TEXT = ("name", "description", "technology.dram")


def _check_addresses(config: KPUConfig) -> None:
    """Reject given regions that overlap; nothing to check on traced or stacked configurations."""
    leaves = jax.tree_util.tree_leaves(config)
    if is_traced(config) or any(np.ndim(leaf) for leaf in leaves):
        return
    if any(float(leaf) >= 0 for leaf in jax.tree_util.tree_leaves(config.address_map)):
        address_map(config)


def _unknown(path: str) -> FieldError:
    """The error for a path that no field has, with the nearest of its siblings or its namesake elsewhere."""
    section, _, name = path.rpartition(".")
    known = [*FIELDS, *_SECTION_PATHS, *_FIXED, *_TEXT]
    same = [p for p in known if p.rpartition(".")[2] == name]
    if same:
        return FieldError(path, f"unknown field {path}: did you mean {', '.join(same)}?")
    prefix = f"{section}." if section in _SECTION_PATHS else ""
    siblings = {p.removeprefix(prefix).split(".")[0] for p in known if p.startswith(prefix)}
    return FieldError(path, f"unknown field {path}: {nearest(name if prefix else path.split('.')[0], siblings)}")


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of a nested mapping along the known sections; any other path is a `FieldError`."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if path in _SECTION_PATHS:
            if isinstance(value, Mapping):
                yield from _flatten(value, f"{path}.")
            elif type(value) is _SECTIONS[path]:
                yield path, value
            else:
                raise FieldError(path, f"{path} must be a section of fields, got {type(value).__name__} {value!r:.40}")
        elif isinstance(key, str) and (path in FIELDS or path in _FIXED or path in _TEXT):
            yield path, value
        else:
            raise _unknown(path)


def _assemble(cls: type[Any], leaves: dict[str, Any]) -> Any:
    prefix = f"{cls.path}." if cls.path else ""
    paths = {f.name: prefix + f.name for f in dataclasses.fields(cls)}
    return build(cls, **{n: _assemble(_SECTIONS[p], leaves) if p in _SECTIONS else leaves[p] for n, p in paths.items()})


def config_from_dict(values: Mapping[str, Any]) -> KPUConfig:
    """A checked `KPUConfig` from the nested mapping that a configuration file holds.

    Raises `KPUError` naming the dotted path, value, unit, range and remedy for unknown, missing, mistyped and
    out-of-range fields, and for address regions that overlap.
    """
    if not isinstance(values, Mapping):
        raise FieldError("", f"a configuration is a mapping of sections, got a {type(values).__name__}")
    given: dict[str, Any] = {}
    for path, value in _flatten(values):
        leaves = {f"{path}.{n}": leaf for n, leaf in leaf_paths(value)} if isinstance(value, Section) else {path: value}
        for name in leaves:
            if name in given:
                raise FieldError(name, f"{name} is given twice")
        given.update(leaves)
    for path in _TEXT:
        if given.get(path) is not None and not isinstance(given[path], str):
            raise FieldError(path, f"{path} must be text, got {given[path]!r:.40}")
    for path, (only, reason) in _FIXED.items():
        if path in given and (type(given[path]) is not type(only) or given[path] != only):
            said = "true" if only is True else only
            raise FieldError(path, f"{path} = {given[path]!r} is not supported, only {said}: {reason}")
    missing = [p for p, f in FIELDS.items() if p not in given and not f.optional and not p.startswith("technology.")]
    if missing:
        units = ", ".join(f"{p} [{FIELDS[p].unit}]" for p in missing)
        raise FieldError(missing[0], f"missing required field{'s' * (len(missing) > 1)}: {units}")
    constants = {p.removeprefix("technology."): v for p, v in given.items() if p.startswith("technology.")}
    leaves = {p: check_field(p, given.get(p, _default(p))) for p in FIELDS if not p.startswith("technology.")}
    leaves.update({f"technology.{n}": v for n, v in leaf_paths(technology(**constants))})
    config = _assemble(KPUConfig, leaves)
    _check_addresses(config)
    return config


def config_to_dict(config: KPUConfig) -> dict[str, Any]:
    """The nested mapping that `config_from_dict` turns back into an equal configuration.

    Derived leaves are left out; integers are int, flags bool. Raises `KPUError` naming a traced, stacked or
    out-of-range leaf.
    """
    values: dict[str, Any] = {}
    for path, leaf in leaf_paths(config):
        if is_traced(leaf) or np.ndim(leaf):
            kind = "traced" if is_traced(leaf) else f"stacked, of shape {np.shape(leaf)}"
            raise FieldError(path, f"{path} is {kind}; only one concrete configuration can be written")
        field, number = FIELDS[path], float(leaf)
        if number == field.special and field.special_means == "derived":
            continue
        leaf_value: Any = np.float64(number) if field.flag else number
        checked = float(check_field(path, leaf_value))
        *sections, name = path.split(".")
        node = values
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = bool(checked) if field.flag else int(checked) if field.integer else checked
    values["compute"]["processor_array"]["topology"] = "rectangular"
    values["compute"]["systolic_mode"] = True
    _check_addresses(config)
    return values


def _default(path: str) -> bool | float | None:
    field = FIELDS[path]
    return bool(field.default) if field.flag else field.default
