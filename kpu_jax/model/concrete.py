"""Reports of concrete arguments, compiled once: NumPy float64 leaves in and out."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kpu_jax.base.compilation import ONCE, jit_for, plain_promotion
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.evaluate import evaluate, evaluate_table
from kpu_jax.model.report import Report, to_host
from kpu_jax.workload.padding import pad_rows, repeat_last


@jit_for(ONCE)
def _one(cfg: Any, op: Any, mapping: Any, cycles: Any) -> Report:
    return evaluate(cfg, op, mapping, exact=False, cycles=cycles)


@jit_for(ONCE)
def _many(cfg: Any, ops: Any, mappings: Any, cycles: Any) -> Report:
    return evaluate_table(cfg, ops, mappings, exact=False, cycles=cycles)


def report_of(cfg: Any, ops: Any, mappings: Any, exact: bool) -> Report:
    """The report of one operation, or of a table of operations if their leaves have an axis.

    All leaves are NumPy float64. Cycles are exact, or the lower bound. What fits is not checked: see `Report.status`.
    """
    single = np.ndim(ops.m) == 0
    rows = 1 if single else len(ops.m)
    run = _one if single else _many
    if not single:
        ops = pad_rows(ops)
        mappings = repeat_last(mappings, len(ops.m))
    times = np.full(np.shape(ops.m), np.nan)
    with jax.enable_x64(True), plain_promotion():
        report = run(cfg, ops, mappings, times)
        if exact:
            codes = np.atleast_1d(np.asarray(report.status_code if single else report.per_op.status_code))
            timed = np.flatnonzero((codes == 0) & (np.atleast_1d(ops.count) > 0))
            lanes = jax.tree.map(lambda v: np.atleast_1d(v)[timed], (ops, mappings))
            cycles = exact_cycles_of(jax.tree.map(lambda v: np.full(len(timed), v), cfg), *lanes)
            np.atleast_1d(times)[timed] = cycles
            report = run(cfg, ops, mappings, np.full((), cycles[0]) if single and len(timed) else times)
        report = to_host(report)
    return report if single else report.first_rows(rows)
