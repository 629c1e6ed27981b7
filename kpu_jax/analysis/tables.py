"""A network's report as a table, layer by layer, and tables as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError
from kpu_jax.base.files import file_path
from kpu_jax.base.outputs import write_whole
from kpu_jax.base.tables import Row, check_rows
from kpu_jax.base.validation import check_type
from kpu_jax.mapping import Mapping
from kpu_jax.model.report import Report, check_report
from kpu_jax.workload import MAC_FORMATS, Workload, im2col_bytes, unique_input_bytes


def layer_table(workload: Workload, report: Report, mappings: Mapping | None = None) -> list[Row]:
    """The rows of a workload with their share of a `report` of it (counts applied), and the mapping of each.

    `input_bytes`: the distinct bytes of A, each pixel of a convolution once; `im2col_bytes`: as patches.
    Raises `KPUError` for the report of another workload.
    """
    check_type("workload", workload, Workload, "make one with kpu.Workload.from_ops")
    check_report("layer_table", report)
    if mappings is not None:
        check_type("mappings", mappings, Mapping, "give what kpu.best_mapping(chip, workload) gave, with leaves [row]")
        if np.shape(mappings.dataflow) != (workload.rows,):
            raise KPUError(f"layer_table needs mappings with leaves [{workload.rows}], one per row, got {np.shape(mappings.dataflow)}")
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
    """Write rows as CSV with a header; the file appears complete or not at all.

    Raises `KPUError` for rows with other columns than the first, and if the file cannot be written.
    """
    file, out = file_path(path), io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]) if check_rows("write_csv", rows) else [])
    writer.writeheader()
    for i, row in enumerate(rows):
        if set(row) != set(rows[0]):
            odd = sorted(map(str, set(row) ^ set(rows[0])))
            raise KPUError(f"write_csv: row {i} and the first have different columns: {', '.join(odd[:6])} is in one of them only")
        writer.writerow(row)
    write_whole(file, out.getvalue())
