"""A configuration as the nested mapping that a file holds, in both directions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from kpu_jax.base.errors import shown
from kpu_jax.base.pytree import build, is_traced, leaf_paths
from kpu_jax.base.validation import check_type
from kpu_jax.hardware.config import FIXED, SECTIONS, TEXT, KPUConfig, check_addresses, flatten
from kpu_jax.hardware.fields import FIELDS, FieldError, check_field
from kpu_jax.hardware.formatting import Section
from kpu_jax.hardware.technology import technology


def _assemble(cls: type[Any], leaves: dict[str, Any]) -> Any:
    prefix = f"{cls.path}." if cls.path else ""
    paths = {f.name: prefix + f.name for f in dataclasses.fields(cls)}
    return build(cls, **{n: _assemble(SECTIONS[p], leaves) if p in SECTIONS else leaves[p] for n, p in paths.items()})


def config_from_dict(values: Mapping[str, Any]) -> KPUConfig:
    """A checked `KPUConfig` from the nested mapping that a configuration file holds.

    Raises `KPUError` naming the dotted path, value, unit, range and remedy for unknown, missing, mistyped and
    out-of-range fields, and for address regions that overlap.
    """
    if not isinstance(values, Mapping):
        raise FieldError("", f"a configuration is a mapping of sections, got a {type(values).__name__}")
    given: dict[str, Any] = {}
    for path, value in flatten(values):
        leaves = {f"{path}.{n}": leaf for n, leaf in leaf_paths(value)} if isinstance(value, Section) else {path: value}
        for name in leaves:
            if name in given:
                raise FieldError(name, f"{name} is given twice")
        given.update(leaves)
    for path in TEXT:
        if given.get(path) is not None and not isinstance(given[path], str):
            raise FieldError(path, f"{path} must be text, got {shown(given[path])}")
    for path, (only, reason) in FIXED.items():
        if path in given and (type(given[path]) is not type(only) or given[path] != only):
            said = "true" if only is True else only
            raise FieldError(path, f"{path} = {shown(given[path])} is not supported, only {said}: {reason}")
    missing = [p for p, f in FIELDS.items() if p not in given and not f.optional and not p.startswith("technology.")]
    if missing:
        units = ", ".join(f"{p} [{FIELDS[p].unit}]" for p in missing)
        raise FieldError(missing[0], f"missing required field{'s' * (len(missing) > 1)}: {units}")
    constants = {p.removeprefix("technology."): v for p, v in given.items() if p.startswith("technology.")}
    leaves = {p: check_field(p, given.get(p, _default(p))) for p in FIELDS if not p.startswith("technology.")}
    leaves.update({f"technology.{n}": v for n, v in leaf_paths(technology(**constants))})
    config = _assemble(KPUConfig, leaves)
    check_addresses(config)
    return config


def config_to_dict(config: KPUConfig) -> dict[str, Any]:
    """The nested mapping that `config_from_dict` turns back into an equal configuration.

    Derived leaves are left out; integers are int, flags bool. Raises `KPUError` for what is no `KPUConfig`, and
    naming a traced, stacked or out-of-range leaf.
    """
    check_type("the chip", config, KPUConfig, "only a whole configuration can be written")
    values: dict[str, Any] = {}
    for path, leaf in leaf_paths(config):
        if is_traced(leaf) or np.ndim(leaf):
            kind = "traced" if is_traced(leaf) else f"stacked, of shape {np.shape(leaf)}"
            raise FieldError(path, f"{path} is {kind}; only one concrete configuration can be written")
        field, checked = FIELDS[path], float(check_field(path, leaf))
        if checked == field.special and field.special_means == "derived":
            continue
        *sections, name = path.split(".")
        node = values
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = bool(checked) if field.flag else int(checked) if field.integer else checked
    values["compute"]["processor_array"]["topology"] = "rectangular"
    values["compute"]["systolic_mode"] = True
    check_addresses(config)
    return values


def _default(path: str) -> bool | float | None:
    field = FIELDS[path]
    return bool(field.default) if field.flag else field.default
