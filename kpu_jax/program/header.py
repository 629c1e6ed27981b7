"""A program's header as names and numbers, for its files."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, is_number, nearest
from kpu_jax.base.pytree import build
from kpu_jax.mapping import Mapping, check_mapping
from kpu_jax.program.program import Program
from kpu_jax.workload import FIELDS, Op, check_op

ARRAY = ("rows", "cols", "macs_per_pe", "burst")
SECTIONS: dict[str, tuple[str, ...]] = {
    "op": FIELDS,
    "mapping": tuple(f.name for f in dataclasses.fields(Mapping)),  # type: ignore[arg-type]
    "array": ARRAY,
}
"""Section -> the names in it, all numbers."""


def header_of(program: Program) -> dict[str, dict[str, float]]:
    """The header by section and name."""
    sources = {"op": program.op, "mapping": program.mapping, "array": program}
    return {section: {name: float(getattr(sources[section], name)) for name in names} for section, names in SECTIONS.items()}


def check_section(section: str, given: Any) -> dict[str, np.float64]:
    """The numbers of a section, or a `KPUError` that names what is missing, unknown or no number."""
    names = SECTIONS[section]
    if not isinstance(given, dict):
        raise KPUError(f"{section}: must be names and numbers")
    if unknown := [name for name in given if name not in names]:
        raise KPUError(f"{section}: {unknown[0]!r} is unknown: {nearest(unknown[0], names)}")
    if missing := [name for name in names if name not in given]:
        raise KPUError(f"{section}: lacks {', '.join(missing)}")
    if wrong := [name for name, value in given.items() if not is_number(value)]:
        raise KPUError(f"{section}: {wrong[0]} is not a number")
    try:
        return {name: np.float64(given[name]) for name in names}
    except OverflowError:
        raise KPUError(f"{section}: a number is larger than 1.8e308") from None


def header_fields(sections: dict[str, dict[str, np.float64]]) -> dict[str, Any]:
    """Fields of `Program` from checked sections. Raises `KPUError` for what is no operation or no mapping."""
    op, mapping = build(Op, **sections["op"]), build(Mapping, **sections["mapping"])
    check_op(op)
    check_mapping(mapping)
    return {"op": op, "mapping": mapping, **sections["array"]}
