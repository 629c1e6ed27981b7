"""A space of chips: a base configuration and fields that vary, enumerated by index."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping as MappingType
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, nearest
from kpu_jax.base.pytree import leaf_paths, replace_path
from kpu_jax.hardware import KPUConfig, load_config, preset
from kpu_jax.hardware.fields import check_field

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


class Space:
    """All combinations of the values of some fields; fields that vary together form one axis.

    Point i of the space has the mixed-radix digits of i over the axes, geometry axes first: the speeds of one
    geometry are neighbours.
    """

    def __init__(self, fields: MappingType[Any, Any], base: KPUConfig | None = None) -> None:
        """`fields`: {dotted path: values, or (path, path, ...): rows of values, one per path}.

        `base` gives every other field (default: edge_ai). Each value is checked like one of a configuration
        file. Raises `KPUError` for an empty space or axis, an unknown or repeated field, a value out of range.
        """
        self.base = preset("edge_ai") if base is None else base
        if not fields:
            raise KPUError("the space has no fields: give at least one {dotted field: values}")
        axes = [_axis(key, values, self.base) for key, values in fields.items()]
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

    def __len__(self) -> int:
        return self.geometries * self.speeds

    def __repr__(self) -> str:
        lines = [f"Space of {len(self):,} chips ({self.geometries:,} geometries x {self.speeds:,} speeds)"]
        for names, rows in self.geometry + self.speed:
            span = ", ".join(f"{v:g}" for v in rows[:, 0][:8]) + (", ..." if len(rows) > 8 else "")
            lines.append(f"  {len(rows):>5} x {' & '.join(names)}: {span}")
        return "\n".join(lines)

    def values(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """{dotted path: values} of the points with these indices."""
        index = np.asarray(index, np.int64)
        return {**_digits(self.geometry, index // self.speeds), **_digits(self.speed, index % self.speeds)}

    def geometry_values(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """{dotted path: values} of these geometries."""
        return _digits(self.geometry, np.asarray(index, np.int64))

    def speed_values(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """{dotted path: values} of these speeds."""
        return _digits(self.speed, np.asarray(index, np.int64))

    def chips(self, index: np.ndarray) -> KPUConfig:
        """The chips with these indices, as one stacked configuration (leaves [point])."""
        return stack(self.base, self.values(index), len(np.atleast_1d(index)))

    def chip(self, index: int) -> KPUConfig:
        """One chip of the space."""
        chip = self.base
        for path, value in self.values(np.array([index])).items():
            chip = replace_path(chip, path, np.float64(value[0]))
        return chip


def stack(base: KPUConfig, values: dict[str, np.ndarray], count: int) -> KPUConfig:
    """`base` with leaves [count], some of them replaced."""
    chips = jax.tree.map(lambda v: np.full(count, v, np.float64), base)
    for path, column in values.items():
        chips = replace_path(chips, path, np.asarray(column, np.float64))
    return chips


def _axis(key: Any, values: Any, base: KPUConfig) -> tuple[tuple[str, ...], np.ndarray]:
    names = (key,) if isinstance(key, str) else tuple(key)
    known = [p for p, _ in leaf_paths(base)]
    for name in names:
        if name not in known:
            raise KPUError(f"space: no field {name!r}: {nearest(name, known)}")
    label = " & ".join(names)
    try:
        rows = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise KPUError(f"space: {label} needs a list of numbers (a row of {len(names)} per value), got {values!r}") from None
    if rows.size == 0 or rows.ndim == 0:
        raise KPUError(f"space: {label} has no values: give a list such as [8, 16, 32]")
    if rows.ndim == 1:
        rows = np.repeat(rows[:, None], len(names), axis=1)  # one list: all fields of the axis take the same value
    if rows.ndim != 2 or rows.shape[1] != len(names):
        raise KPUError(f"space: {label} needs rows of {len(names)} numbers, got an array of shape {rows.shape}")
    for name, column in zip(names, rows.T, strict=True):
        for value in column:
            check_field(name, value)
    return names, rows


def _digits(axes: list[tuple[tuple[str, ...], np.ndarray]], index: np.ndarray) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for names, rows in reversed(axes):
        index, digit = np.divmod(index, len(rows))
        columns.update(zip(names, rows[digit].T, strict=True))
    return {name: columns[name] for names, _ in axes for name in names}


def load_space(path: str | Path) -> tuple[Space, dict[str, Any]]:
    """A space from a TOML file, and the file's other tables.

    `base` is a preset's name or a configuration file; `[[axis]]` tables have `fields` (a list of dotted paths
    that vary together) and `values`. Raises `KPUError` naming the file and what is wrong.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise KPUError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise KPUError(f"{path}: not valid TOML: {error}") from None
    known = ("base", "axis", "workload", "constraints", "objective", "output")
    for key in data:
        if key not in known:
            raise KPUError(f"{path}: unknown entry {key!r}: {nearest(key, known)}")
    axes = data.get("axis", [])
    if not isinstance(axes, list) or not all(isinstance(a, dict) and set(a) == {"fields", "values"} for a in axes):
        raise KPUError(f"{path}: every [[axis]] needs exactly `fields` (a list of dotted paths) and `values`")
    base = data.get("base", "edge_ai")
    chip = load_config(path.parent / base) if str(base).endswith((".yaml", ".yml", ".json")) else preset(base)
    fields = {tuple(a["fields"]) if isinstance(a["fields"], list) else a["fields"]: a["values"] for a in axes}
    return Space(fields, chip), {k: v for k, v in data.items() if k not in ("base", "axis")}
