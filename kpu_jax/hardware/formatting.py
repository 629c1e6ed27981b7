"""How a configuration prints: one line per leaf, with its unit; traced and stacked leaves show their shape."""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import jax
import numpy as np

from kpu_jax.base.pytree import is_traced, leaf_paths
from kpu_jax.base.tables import Row, Sheet, Shown
from kpu_jax.hardware.fields import FIELDS, Field

Leaf: TypeAlias = jax.Array | np.float64 | np.ndarray
"""A number of a configuration: np.float64 on the host; a jax array, tracer or stack inside transformations."""


class Section(Shown):
    """Base of the configuration records: `path` is the section's dotted path in a file; prints as a table."""

    path: ClassVar[str] = ""

    def sheet(self) -> Sheet:
        """Dotted path, value and unit of every leaf. `KPUConfig` shows its technology as one line; print that section itself."""
        return section_sheet(self)


def _value(leaf: Any, field: Field | None) -> str:
    if is_traced(leaf):
        return f"traced {leaf.dtype}{list(leaf.shape)}"
    if not isinstance(leaf, (int, float, np.generic, np.ndarray, jax.Array)):
        return type(leaf).__name__
    if np.ndim(leaf):
        return f"{np.result_type(leaf)}{list(np.shape(leaf))}"
    number = float(leaf)
    if field is None:
        return f"{number:.6g}"
    if field.special is not None and number == field.special:
        return field.special_means if field.special_means == "derived" else "0"
    if field.flag:
        return "true" if number else "false"
    if field.unit == "byte address":
        return hex(int(number))
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:.6g}"


def section_sheet(section: Section) -> Sheet:
    """The table of a section, see `Section.sheet`."""
    prefix = f"{section.path}." if section.path else ""
    rows: list[Row] = []
    technology = 0
    for name, leaf in leaf_paths(section):
        path = prefix + name
        field = FIELDS.get(path)
        if not prefix and path.startswith("technology."):
            technology += 1
            if path != "technology.node_nm":
                continue
        unit = "" if field is None or field.unit in ("true/false", "byte address") else field.unit
        rows.append({"field": path, "value": _value(leaf, field), "unit": unit})
    notes = [f"technology: {technology} constants, print config.technology to see them"] if technology else []
    return Sheet(type(section).__name__, {"": rows}, notes)
