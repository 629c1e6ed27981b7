"""A network's report as a table, layer by layer, and tables as CSV files."""

from __future__ import annotations

import csv
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError
from kpu_jax.base.tables import Row
from kpu_jax.mapping import Mapping
from kpu_jax.model.report import Report
from kpu_jax.workload import MAC_FORMATS, Workload, im2col_bytes, unique_input_bytes


def layer_table(workload: Workload, report: Report, mappings: Mapping | None = None) -> list[Row]:
    """The rows of a workload with their share of a `report` of it (counts applied), and the mapping of each.

    `input_bytes`: the distinct bytes of A, each pixel of a convolution once; `im2col_bytes`: as patches.
    """
    if report.per_op is None or np.shape(report.per_op.cycles) != (workload.rows,):
        raise KPUError(f"layer_table needs the report of this workload, with per_op of {workload.rows} rows")
    each, rows = report.per_op, []
    for i, name in enumerate(workload.row_names):
        row = {
            "layer": name,
            "count": int(workload.ops.count[i]),
            "batch": int(workload.ops.batch[i]),
            "m": int(workload.ops.m[i]),
            "n": int(workload.ops.n[i]),
            "k": int(workload.ops.k[i]),
            "cycles": float(each.cycles[i]),
            "latency_ms": float(each.seconds[i]) * 1e3,
            "energy_mj": float(each.energy_pj[i]) * 1e-9,
            "utilization": float(each.utilization[i]),
            "bound_by": str(each.bound_by[i]),
            "format": MAC_FORMATS[int(workload.ops.mac_format[i])],
            "input_bytes": float(unique_input_bytes(workload.row(i))),
            "im2col_bytes": float(im2col_bytes(workload.row(i))),
        }
        if mappings is not None:
            row |= jax.tree.map(lambda v, i=i: v[i], mappings).describe()
        rows.append(row)
    return rows


def write_csv(rows: Sequence[MappingType[str, Any]], path: str | Path) -> None:
    """Write rows as CSV with a header. Raises `KPUError` if the file cannot be written."""
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise KPUError(f"{path}: cannot be written: {error}") from None
