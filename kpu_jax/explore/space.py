"""A space of chips: a base configuration and fields that vary, enumerated by index."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import MAX_MACS, KPUError, check_number, is_number, nearest, plain, shown, word
from kpu_jax.base.files import file_path, read_text
from kpu_jax.base.pytree import is_traced, leaf_paths, replace_path
from kpu_jax.explore.conditions import condition
from kpu_jax.explore.grids import grid_values
from kpu_jax.hardware import KPUConfig, check_config, load_config, preset
from kpu_jax.hardware.config import check_varying
from kpu_jax.hardware.fields import check_field

Axes = list[tuple[tuple[str, ...], Any]]  # fields that vary together, and their values [row, field]
MAX_LISTED = 1_000_000  # combinations that are listed to see whether a condition can be met
MAX_LINE = 4096  # characters: tomllib's memory grows with the square of a dotted key's length
# Fields that change how fast the engines work, but not what they must do: mappings and traffic do not depend
# on them. A sweep evaluates the work once per geometry and reuses it for every speed.
SPEED_SECTIONS = ("clocks", "data_movement", "latency")
SPEED_FIELDS = (
    "external_memory.bandwidth_gbps",
    "host_memory.bandwidth_gbps",
    "memory_controller.controller_count",
    "memory_controller.bandwidth_gbps",
    "memory_controller.page_buffer_count",
    "memory_controller.page_buffer_capacity_kb",
    "buses.dma_bytes",
    "buses.block_mover_bytes",
    "buses.streamer_bytes",
)


def is_speed(path: str) -> bool:
    """Does the field leave the work of every mapping as it is?"""
    return path in SPEED_FIELDS or path.split(".")[0] in SPEED_SECTIONS


def _check_counts(path: str) -> None:
    """`KPUError` for a field that `cfg.replace` does not take, or that no result of a sweep depends on."""
    check_varying(path)
    if path.startswith(("address_map.", "technology.tdp_")):
        raise KPUError(f"{path} changes no time, energy or area: the space would hold the same chip several times")


class Space:
    """All combinations of the values of some fields; fields that vary together form one axis.

    Point i of the space has the mixed-radix digits of i over the axes, geometry axes first: the speeds of one
    geometry are neighbours.
    """

    def __init__(self, fields: MappingType[Any, Any], base: KPUConfig | None = None, where: Sequence[str] = ()) -> None:
        """`fields`: {dotted path: values, or (path, path, ...): rows of values, one per path}.

        Values are a list or a grid, {"start": 8, "stop": 64, "step": 2, "scale": "log"} (see `grid_values`). `base`
        gives every other field (default: edge_ai). `where`: conditions between fields, such as "rows == cols"; a
        combination that breaks one keeps its index and is passed over. Each value is checked like one of a
        configuration file. Raises `KPUError` for an empty space or axis, a field that is unknown, repeated or changes nothing,
        a value out of range or listed twice, a condition that no chip can meet, and a base that is not one concrete chip.
        """
        self.base = preset("edge_ai") if base is None else base
        check_config(self.base)
        for path, leaf in leaf_paths(self.base):
            if is_traced(leaf) or np.ndim(leaf):
                raise KPUError(f"space: the base must be one concrete chip, but its {path} is traced or stacked")
        if not isinstance(fields, MappingType):
            raise KPUError(f"space: give a mapping {{dotted field: values}}, got {shown(fields)}")
        if not fields:
            raise KPUError("the space has no fields: give at least one {dotted field: values}")
        axes = [_axis(key, values) for key, values in fields.items()]
        paths = [p for names, _ in axes for p in names]
        repeated = {p for p in paths if paths.count(p) > 1}
        if repeated:
            raise KPUError(f"space: {', '.join(sorted(repeated))} varies on more than one axis; keep one")
        # An axis with any geometry field belongs to the geometry.
        self.geometry = [(names, rows) for names, rows in axes if not all(is_speed(p) for p in names)]
        self.speed = [(names, rows) for names, rows in axes if all(is_speed(p) for p in names)]
        self.paths = tuple(p for names, _ in self.geometry + self.speed for p in names)
        self.geometries = math.prod(len(rows) for _, rows in self.geometry)
        self.speeds = math.prod(len(rows) for _, rows in self.speed)
        if self.geometries * self.speeds > MAX_MACS:
            raise KPUError(f"space: {self.geometries * self.speeds} chips cannot be counted, at most 2^53 = {MAX_MACS}")
        if isinstance(where, str) or not isinstance(where, Sequence):
            raise KPUError(f'space: where must be a list of conditions such as ["rows == cols"], got {shown(where)}')
        self.constants = {path: np.float64(leaf) for path, leaf in leaf_paths(self.base)}
        try:
            self.where = tuple(condition(text, tuple(self.constants), self.paths) for text in where)
        except KPUError as error:
            raise KPUError(f"space: {error}") from None
        self._check_conditions()

    def _check_conditions(self) -> None:
        """`KPUError` for a condition that no values of its own fields meet, where these can be listed."""
        for each in self.where:
            axes = [(names, rows) for names, rows in self.geometry + self.speed if set(names) & set(each.paths)]
            count = math.prod(len(rows) for _, rows in axes)
            if count <= MAX_LISTED and not each({**self.constants, **digits(axes, np.arange(count))}).any():
                raise KPUError(f"space: no values of the axes meet the condition {each.text!r}: the space is empty")

    def __len__(self) -> int:
        return self.geometries * self.speeds

    def __repr__(self) -> str:
        lines = [f"Space of {len(self):,} chips ({self.geometries:,} geometries x {self.speeds:,} speeds)"]
        for names, rows in self.geometry + self.speed:
            span = ", ".join(f"{v:g}" for v in rows[:, 0][:8]) + (", ..." if len(rows) > 8 else "")
            lines.append(f"  {len(rows):>5} x {' & '.join(names)}: {span}")
        return "\n".join([*lines, *(f"  where {each.text}" for each in self.where)])

    def values(self, index: Any) -> dict[str, np.ndarray]:
        """{dotted path: values} of the points with these indices; `KPUError` for one outside the space."""
        index = _index(index, len(self), "chip")
        return {**digits(self.geometry, index // self.speeds), **digits(self.speed, index % self.speeds)}

    def allowed(self, index: Any) -> np.ndarray:
        """Mask of the points that meet every condition."""
        mask = np.ones(np.shape(index), bool)
        columns = {**self.constants, **self.values(index)} if self.where else {}
        for each in self.where:
            mask &= each(columns)
        return mask

    def geometry_values(self, index: Any) -> dict[str, np.ndarray]:
        """{dotted path: values} of these geometries."""
        return digits(self.geometry, _index(index, self.geometries, "geometry"))

    def speed_values(self, index: Any) -> dict[str, np.ndarray]:
        """{dotted path: values} of these speeds."""
        return digits(self.speed, _index(index, self.speeds, "speed"))

    def chips(self, index: Any) -> KPUConfig:
        """The chips with these indices, as one stacked configuration (leaves [point])."""
        return stack(self.base, self.values(index), len(np.atleast_1d(index)))

    def chip(self, index: int) -> KPUConfig:
        """One chip of the space; `KPUError` for an index outside it."""
        number = int(check_number("chip", index, "index", high=len(self) - 1, integer=True))
        chip = self.base
        for path, value in self.values(np.array([number])).items():
            chip = replace_path(chip, path, np.float64(value[0]))
        return chip


def stack(base: KPUConfig, values: dict[str, np.ndarray], count: int) -> KPUConfig:
    """`base` with leaves [count], some of them replaced."""
    chips = jax.tree.map(lambda v: np.full(count, v, np.float64), base)
    for path, column in values.items():
        chips = replace_path(chips, path, np.asarray(column, np.float64))
    return chips


def _index(index: Any, count: int, what: str) -> np.ndarray:
    """Indices from 0 to `count` - 1 as int64 of any shape."""
    flat = isinstance(index, (list, tuple)) and all(map(is_number, index))
    if isinstance(index, jax.core.Tracer) or not (flat or is_number(index)):
        raise KPUError(f"{what} indices must be integers, got {shown(index)}")
    array = np.asarray(index)
    if not array.size:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= count:
        raise KPUError(f"{what} indices must be integers from 0 to {count - 1}, got {shown(index)}")
    return array.astype(np.int64)


def _axis(key: Any, values: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """The fields of one axis, and their checked values [row, field]."""
    names = (key,) if isinstance(key, str) else key
    if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
        raise KPUError(f"space: an axis is a dotted field or a tuple of them, got {shown(key)}")
    label = " & ".join(map(word, names))
    try:
        for name in names:
            _check_counts(name)
        rows = _rows(values, len(names))
        checked = np.array([[check_field(n, v) for n, v in zip(names, row, strict=True)] for row in rows])
    except KPUError as error:
        where = "space" if str(error).startswith(label) else f"space, axis {label}"
        raise KPUError(f"{where}: {error}") from None
    first: dict[tuple[float, ...], int] = {}
    for i, row in enumerate(map(tuple, checked)):
        if first.setdefault(row, i) != i:
            same = ", ".join(map(plain, row))
            raise KPUError(f"space, axis {label}: value {i} repeats value {first[row]}, {same}; list every chip once")
    return names, checked


def _rows(values: Any, fields: int) -> list[list[Any]]:
    """The values of an axis as rows of one value per field; one list or grid stands for all fields alike."""
    values = grid_values(values) if isinstance(values, MappingType) else values
    if not _is_list(values) or not len(values):
        raise KPUError(f"needs a list of values such as [8, 16, 32], got {shown(values)}")
    nested = [_is_list(row) for row in values]
    if not any(nested):
        return [[value] * fields for value in values]
    for i, row in enumerate(values):
        if not nested[i] or len(row) != fields:
            raise KPUError(f"value {i} must be a row of {fields} numbers, one per field, got {shown(row)}")
    return [list(row) for row in values]


def _is_list(value: Any) -> bool:
    """True for what holds values in an order."""
    return isinstance(value, (list, tuple, range)) or (isinstance(value, (np.ndarray, jax.Array)) and np.ndim(value) > 0)


def digits(axes: Axes, index: Any) -> dict[str, Any]:
    """{dotted path: values} of combinations of `axes` by index, of any shape; NumPy or JAX arrays."""
    columns: dict[str, Any] = {}
    for names, rows in reversed(axes):
        columns.update({name: rows[index % len(rows), i] for i, name in enumerate(names)})
        index = index // len(rows)
    return {name: columns[name] for names, _ in axes for name in names}


def load_space(path: str | Path) -> tuple[Space, dict[str, Any]]:
    """A space from a TOML file, and the file's other tables.

    `base` is a preset's name or a configuration file; `[[axis]]` tables have `fields` (a list of dotted paths
    that vary together) and `values` (a list or a grid); `where` lists conditions. Raises `KPUError` naming the file and what is wrong.
    """
    file = file_path(path)
    data = _parse_toml(file)
    known = ("base", "axis", "where", "workload", "constraints", "objective")
    for key in data:
        if key not in known:
            raise KPUError(f"{file}: unknown entry {shown(key)}: {nearest(key, known)}")
    try:
        fields = _axes(data.get("axis", []))
        space = Space(fields, _base(file, data.get("base", "edge_ai")), data.get("where", ()))
        return space, {k: v for k, v in data.items() if k not in ("base", "axis", "where")}
    except KPUError as error:
        raise KPUError(f"{file}: {error}") from None


def _parse_toml(file: Path) -> dict[str, Any]:
    text = read_text(file)
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > MAX_LINE:
            raise KPUError(f"{file}, line {number}: longer than {MAX_LINE} characters; spread a list over several lines")
    try:
        return tomllib.loads(text)
    except KPUError:
        raise
    except RecursionError:
        raise KPUError(f"{file}: values are nested too deeply") from None
    except ValueError as error:  # tomllib's own, and Python's for integers of thousands of digits
        reason = error if isinstance(error, tomllib.TOMLDecodeError) else "an integer of too many digits"
        raise KPUError(f"{file}: not valid TOML: {reason!s:.200}") from None


def _base(file: Path, base: Any) -> KPUConfig:
    """The chip of a preset, or of a configuration file beside the study."""
    try:
        is_file = isinstance(base, str) and base.endswith((".yaml", ".yml", ".json"))
        return load_config(file.parent / base) if is_file else preset(base)
    except KPUError as error:
        raise KPUError(f"base: {error}; give a preset's name or a .yaml or .json file") from None


def _axes(tables: Any) -> dict[tuple[str, ...], Any]:
    """Fields -> values of every [[axis]] table."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise KPUError(f"axis = {shown(tables)} must be tables: [[axis]] with lines `fields = [...]` and `values = [...]`")
    axes: dict[tuple[str, ...], Any] = {}
    for i, table in enumerate(tables, 1):
        if set(table) != {"fields", "values"}:
            raise KPUError(f"[[axis]] {i} needs exactly `fields` (a list of dotted paths) and `values`, got {shown(table)}")
        fields = [table["fields"]] if isinstance(table["fields"], str) else table["fields"]
        if not isinstance(fields, list) or not all(isinstance(f, str) for f in fields):
            raise KPUError(f"[[axis]] {i}: fields = {shown(fields)} must be a list of dotted paths")
        if tuple(fields) in axes:
            raise KPUError(f"[[axis]] {i}: {', '.join(fields)} varies on an earlier axis already; keep one")
        axes[tuple(fields)] = table["values"]
    return axes
