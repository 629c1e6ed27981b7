"""What the analyses take: a chip, a workload and its mappings, checked once for all of them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import is_traced
from kpu_jax.hardware import KPUConfig, check_config
from kpu_jax.mapping import Mapping, check_mapping
from kpu_jax.model.report import Report, check_report
from kpu_jax.workload import Op, Workload, check_workload


def table_of(what: str, cfg: KPUConfig, workload: Op | Workload, mapping: Mapping) -> tuple[Op, Mapping]:
    """(operations, mappings) with leaves [row] of one concrete chip and workload; one mapping stands for all rows.

    Raises `KPUError` that begins with `what` for traced and stacked arguments, and one for arguments of the wrong kind.
    """
    check_config(cfg)
    check_workload(workload)
    check_mapping(mapping)
    if is_traced(cfg, workload, mapping) or np.ndim(cfg.compute.tile_count):
        raise KPUError(f"{what} needs one concrete chip, workload and mapping: call it outside of jit and vmap, for one at a time")
    if isinstance(workload, Workload):
        ops = workload.ops
    else:
        if np.ndim(workload.m):
            raise KPUError(f"{what} takes one operation or a Workload, not operations stacked to shape {np.shape(workload.m)}")
        ops = jax.tree.map(lambda v: np.asarray(v)[None], workload.plain())
    rows = len(ops.m)
    if np.shape(mapping.dataflow) not in ((), (rows,)):
        raise KPUError(f"{what}: the workload has {rows} rows, the mapping leaves of shape {np.shape(mapping.dataflow)}: one per row")
    return ops, jax.tree.map(lambda v: np.broadcast_to(np.asarray(v, np.float64), (rows,)), mapping)


def rows_of(what: str, cfg: KPUConfig, workload: Op | Workload, report: Any) -> tuple[Op, tuple[str, ...], Report]:
    """(operations, names, report) row by row, of one chip and a report that is checked to be a feasible one of this workload."""
    check_config(cfg)
    check_workload(workload)
    if is_traced(cfg, workload) or np.ndim(cfg.compute.tile_count):
        raise KPUError(f"{what} needs one concrete chip and workload: call it outside of jit and vmap, for one at a time")
    check_report(what, report)
    if isinstance(workload, Workload):
        each = report.per_op
        if each is None or np.shape(each.cycles) != (workload.rows,):
            raise KPUError(f"{what}: the report is not of this workload, which has {workload.rows} rows: simulate the two together")
        ops, names = workload.ops, tuple(workload.row_names)
    else:
        each, ops, names = report, workload.plain(), (type(workload).__name__.lower(),)
    if not np.allclose(np.asarray(each.macs), np.asarray(ops.macs) * ops.count, rtol=1e-9):
        raise KPUError(f"{what}: the report is of another workload: its multiply-adds differ; simulate the two together")
    return ops, names, each
