"""Measured times of operations, to be compared with simulated ones."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, check_number, shown
from kpu_jax.base.files import file_path, read_text
from kpu_jax.base.validation import check_type
from kpu_jax.workload import Gemm, Workload, check_workload

TIMES = {"seconds": 1.0, "mean_ms": 1e-3, "mean_us": 1e-6}  # column of a file: its unit in seconds


@dataclass(frozen=True)
class Measurements:
    """Times that some machine took, one per row of a workload."""

    workload: Workload
    seconds: np.ndarray  # [row], of one execution

    def __post_init__(self) -> None:
        check_type("workload", self.workload, Workload, "make one with kpu.Workload.from_ops")
        check_workload(self.workload)
        seconds = np.asarray(self.seconds, np.float64)
        if seconds.shape != (self.workload.rows,):
            raise KPUError(f"seconds must hold one time per row of the workload, {self.workload.rows}, got shape {seconds.shape}")
        wrong = np.flatnonzero(~(np.isfinite(seconds) & (seconds > 0)))
        if wrong.size:
            raise KPUError(f"seconds[{wrong[0]}] must be positive and finite [s], got {seconds[wrong[0]]}")
        object.__setattr__(self, "seconds", seconds)

    def __len__(self) -> int:
        return len(self.seconds)


def load_measurements(path: str | Path, **gemm: Any) -> Measurements:
    """GEMMs with their times from a CSV file with the columns m, n, k and one of `seconds`, `mean_ms`, `mean_us`.

    A GEMM of several lines has their mean. `gemm`: options of all of them, such as dtype="fp32". Raises `KPUError`
    naming file, line and column.
    """
    file = file_path(path)
    try:
        return _measurements(file, csv.DictReader(read_text(file).splitlines()), gemm)
    except csv.Error as error:
        raise KPUError(f"{file}: not a CSV file: {error}") from None


def _measurements(file: Path, lines: csv.DictReader[str], gemm: dict[str, Any]) -> Measurements:
    names = lines.fieldnames or []
    unit = next((name for name in TIMES if name in names), None)
    missing = [name for name in "mnk" if name not in names] + ([] if unit else [f"one of {', '.join(TIMES)}"])
    if missing or unit is None:
        raise KPUError(f"{file}: the table has no column {', '.join(missing)}; its columns are {shown(list(names))}")
    ops: dict[str, Gemm] = {}
    seconds: dict[str, list[float]] = {}
    for row in lines:
        where = f"{file}, line {lines.line_num}"
        m, n, k, time = (_number(where, name, row[name]) for name in ("m", "n", "k", unit))
        try:
            name, op = f"{m:.0f}x{n:.0f}x{k:.0f}", Gemm(m, n, k, **gemm)
            seconds.setdefault(name, []).append(check_number(unit, time, "time", low=0, low_open=True) * TIMES[unit])
            ops[name] = op
        except KPUError as error:
            raise KPUError(f"{where}: {error}") from None
    if not ops:
        raise KPUError(f"{file}: the table has no rows")
    try:
        return Measurements(Workload.from_ops(ops.items()), np.array([np.mean(seconds[name]) for name in ops]))
    except KPUError as error:
        raise KPUError(f"{file}: {error}") from None


def _number(where: str, column: str, text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise KPUError(f"{where}: {column} must be a number, got {shown(text)}") from None
