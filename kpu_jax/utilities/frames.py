"""The same objects as flat tables: one value per cell, for CSV, pandas and Parquet."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, shown
from kpu_jax.hardware.dictionary import config_from_dict
from kpu_jax.utilities import records
from kpu_jax.utilities.records import Row

_PACKED = ("reads", "origin", "host", "l3_tile", "l2_tile", "buffering", "partition")  # lists and dicts, as JSON in a cell


def to_rows(value: Any) -> list[Row]:
    """Flat rows: one per operation, mapping, or sweep entry; a chip is one row; a report its total, then its operations."""
    kind = records.kind_of(value)
    whole = records.to_dict(value)
    if kind == "workload":
        rows = whole["operations"]
    elif kind == "mapping":
        rows = whole["mappings"]
    elif kind == "config":
        rows = [_flatten(whole["fields"])]
    elif kind == "report":
        return _report_rows(whole["fields"])
    else:
        return records.table_rows(value)
    return [{k: _pack(k, v) for k, v in row.items()} for row in rows]


def from_rows(rows: Sequence[Row]) -> Any:
    """The object whose `to_rows` these are, told by the columns; rows of other columns stay a table.

    A stack of one mapping comes back as that mapping. Raises `KPUError` naming what is wrong.
    """
    if rows and is_workload(rows[0]):
        listed = [{k: v for k, v in row.items() if not _empty(v)} | {"name": row.get("name") or ""} for row in rows]
        return records.from_dict({"kind": "workload", "operations": _unpacked(listed)})
    rows = [{k: v for k, v in row.items() if not _empty(v)} for row in rows]
    columns = set(rows[0]) if rows else set()
    if {"dataflow", "l3_tile", "l2_tile"} <= columns:
        return records.from_dict({"kind": "mapping", "stacked": len(rows) > 1, "mappings": _unpacked(rows)})
    if "compute.tile_count" in columns and "external_memory.bank_count" in columns:
        return _config(rows)
    if {"part", "cycles", "cycles_bound"} <= columns:
        return records.from_dict({"kind": "report", "fields": _report(rows)})
    return rows


def is_workload(columns: Container[str]) -> bool:
    """Whether these are the columns of a workload's table, whose names are text even where they look like numbers."""
    return all(c in columns for c in ("name", "repeats", "reads", "mac_format"))


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value) or (isinstance(value, float) and np.isnan(value))


def _pack(column: str, value: Any) -> Any:
    if column in _PACKED:
        return "" if value is None else json.dumps(value)
    return value


def _unpacked(rows: Sequence[Row]) -> list[Row]:
    try:
        return [{k: json.loads(v) if k in _PACKED and isinstance(v, str) else v for k, v in row.items()} for row in rows]
    except (ValueError, RecursionError) as error:
        raise KPUError(f"a cell of {', '.join(_PACKED)} is no JSON: {error!s:.200}") from None


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Row:
    flat: Row = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _deepen(row: Row) -> dict[str, Any]:
    deep: dict[str, Any] = {}
    for path, value in row.items():
        *sections, name = path.split(".")
        node = deep
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise KPUError(f"column {shown(path)} lies below {section}, which is a number of its own")
        node[name] = value.item() if isinstance(value, np.generic) else value
    return deep


def _config(rows: Sequence[Row]) -> Any:
    if len(rows) != 1:
        raise KPUError(f"one chip is one row, got {len(rows)}")
    return config_from_dict(_deepen(rows[0]))


def _report_rows(fields: dict[str, Any]) -> list[Row]:
    if np.ndim(fields["cycles"]):
        raise KPUError("only one report can be a table, not a stack of them; take its dict")
    per_op = fields.pop("per_op")
    rows = [{"part": "total", **_flatten(fields)}]
    if per_op is not None:
        per_op.pop("per_op")
        columns = _flatten(per_op)
        rows += [{"part": f"row {i}", **{k: v[i] for k, v in columns.items()}} for i in range(len(columns["cycles"]))]
    return rows


def _report(rows: Sequence[Row]) -> dict[str, Any]:
    total, *each = ({k: v for k, v in row.items() if k != "part"} for row in rows)
    per_op = None
    if each:
        per_op = {**_deepen({k: [row.get(k, "nan") for row in each] for k in each[0]}), "per_op": None}
    return {**_deepen(total), "per_op": per_op}
