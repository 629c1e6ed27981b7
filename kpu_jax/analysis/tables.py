"""Reports and sweeps as tables: lists of rows, each a dict of column to value."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError
from kpu_jax.explore.sweep import SweepResult
from kpu_jax.mapping import Mapping
from kpu_jax.model.report import Report
from kpu_jax.workload import MAC_FORMATS, Workload, im2col_bytes, unique_input_bytes

Row = dict[str, Any]


def sweep_table(result: SweepResult) -> list[Row]:
    """The chips of a sweep that were timed exactly, best first by the sweep's objective.

    One dict per chip and objective that its mappings were chosen for (`mapped_for`). `pareto` is true on the exact
    front over (latency, energy, area); `meets` where the limits are kept.
    """
    r = result.retimed
    fields = result.space.values(r.ids)
    labels = short_names(result.space.paths)
    rows = []
    for i in np.argsort(np.where(r.meets, r.measure(result.objective), np.inf), kind="stable"):
        rows.append(
            {
                "chip": int(r.ids[i]),
                "mapped_for": str(r.mapped_for[i]),
                "latency_ms": r.seconds[i] * 1e3,
                "energy_mj": r.energy_pj[i] * 1e-9,
                "edp_js": r.seconds[i] * r.energy_pj[i] * 1e-12,
                "area_mm2": r.area_mm2[i],
                "power_w": r.energy_pj[i] * 1e-12 / r.seconds[i],
                "tdp_w": r.tdp_w[i],
                "pareto": bool(r.on_front[i]),
                "meets": bool(r.meets[i]),
                **{labels[path]: float(column[i]) for path, column in fields.items()},
            }
        )
    return rows


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
            "input_bytes": unique_input_bytes(workload.row(i)),
            "im2col_bytes": float(im2col_bytes(workload.row(i))),
        }
        if mappings is not None:
            row |= jax.tree.map(lambda v, i=i: v[i], mappings).describe()
        rows.append(row)
    return rows


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Dotted path -> its shortest ending that no other of these paths shares."""
    names = {}
    for path in paths:
        parts = path.split(".")
        endings = [".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]
        names[path] = next(e for e in endings if sum(p == e or p.endswith(f".{e}") for p in paths) == 1)
    return names


def text_table(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """Aligned text: numbers to four significant digits, right-aligned."""
    if not rows:
        return "(no rows)"
    columns = list(rows[0]) if columns is None else list(columns)
    cells = [columns, *([cell(row[c]) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    text = [isinstance(rows[0][c], str) for c in columns]
    lines = []
    for line in cells:
        padded = (c.ljust(w) if left else c.rjust(w) for c, w, left in zip(line, widths, text, strict=True))
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def write_csv(rows: Sequence[Row], path: str | Path) -> None:
    """Write rows as CSV with a header. Raises `KPUError` if the file cannot be written."""
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise KPUError(f"{path}: cannot be written: {error}") from None


def cell(value: Any) -> str:
    """A value as the text of a table: numbers to four significant digits, flags as yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, str)):
        return str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
