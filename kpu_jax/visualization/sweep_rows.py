"""The rows of a sweep's table as plots read them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kpu_jax.analysis import sweep_table
from kpu_jax.base.errors import KPUError, is_number, nearest, shown
from kpu_jax.base.units import name_and_unit, unit_for
from kpu_jax.explore.sweep import SweepResult
from kpu_jax.visualization.style import LARGEST, check_drawable

Row = Mapping[str, Any]


class Column:
    """Columns of results."""

    LATENCY, ENERGY, EDP, AREA, POWER, TDP = "latency_ms", "energy_mj", "edp_js", "area_mm2", "power_w", "tdp_w"


RESULTS = {
    Column.LATENCY: ("latency", "s", 1e-3),
    Column.ENERGY: ("energy", "J", 1e-3),
    Column.EDP: ("energy x delay", "J s", 1.0),
    Column.AREA: ("area", "mm$^2$", None),
    Column.POWER: ("power", "W", 1.0),
    Column.TDP: ("TDP", "W", 1.0),
}
"""Column -> (what it is, its SI unit, what one of the table is in it; None: the unit takes no prefix)."""
_NO_FIELD = {*RESULTS, "chip", "mapped_for", "pareto", "meets"}


def rows_of(what: str, result: Any) -> list[Row]:
    """The rows of a `SweepResult`, or given ones after a check."""
    if isinstance(result, SweepResult):
        return list(sweep_table(result))
    if not isinstance(result, (list, tuple)) or not all(isinstance(row, Mapping) for row in result):
        raise KPUError(f"{what} needs the result of kpu.sweep or the rows of its table, got {type(result).__name__}")
    if not result:
        raise KPUError(f"{what}: the table has no rows: there is nothing to plot")
    for i, row in enumerate(result):
        for column in (Column.LATENCY, Column.ENERGY, Column.AREA):
            if column not in row:
                raise KPUError(f"{what}: row {i} has no column {column!r}, which every table of a sweep has")
        for column in ("meets", "pareto"):
            if not isinstance(row.get(column, True), (bool, np.bool_)):
                raise KPUError(f"{what}: row {i}: {column} must be true or false, got {shown(row[column])}")
    return list(result)


def within(rows: Sequence[Row]) -> np.ndarray:
    """[row] bool: which chips keep the limits, in finite time and energy."""
    meets = np.array([bool(row.get("meets", True)) for row in rows])
    return meets & np.isfinite(column_of(rows, Column.LATENCY)) & np.isfinite(column_of(rows, Column.ENERGY))


def fields_of(rows: Sequence[Row]) -> list[str]:
    """The chip's fields that take several values in these rows."""
    names = [name for name in rows[0] if name not in _NO_FIELD and is_number(rows[0][name])]
    return [name for name in names if len(np.unique(column_of(rows, name))) > 1]


def column_of(rows: Sequence[Row], name: str) -> np.ndarray:
    """[row] float64 of one column; `KPUError` with the nearest names, or with the row that holds no number."""
    if name == Column.EDP and name not in rows[0]:
        return column_of(rows, Column.LATENCY) * column_of(rows, Column.ENERGY) * 1e-6
    if name not in rows[0]:
        raise KPUError(f"column {shown(name)} is unknown: {nearest(name, [c for c in rows[0] if is_number(rows[0][c])])}")
    return np.array([_number(i, name, row.get(name)) for i, row in enumerate(rows)])


def _number(row: int, column: str, value: Any) -> float:
    """What an axis can hold. Time and energy of a chip that nothing fits on are infinite, or left open."""
    if type(value) is float and 1 / LARGEST <= abs(value) <= LARGEST:  # nearly all of a long table
        return value
    if column in (Column.LATENCY, Column.ENERGY, Column.EDP, Column.POWER) and is_number(value) and not np.ndim(value):
        with contextlib.suppress(OverflowError):
            if not math.isfinite(value):
                return float(value)
    unit = name_and_unit(column)[1] or "as given"
    return check_drawable(f"row {row} of the table: {column}", value, unit, low=-LARGEST)


def finite_column(rows: Sequence[Row], name: str) -> tuple[np.ndarray, str]:
    """`shown_column` of rows in which all must be finite."""
    values, label = shown_column(rows, name)
    if not np.isfinite(values).all():
        i = int(np.argmin(np.isfinite(values)))
        raise KPUError(f"{name} of chip {rows[i].get('chip', i)} is {values[i]}, though its latency and energy are finite: leave it out")
    return values, label


def shown_column(rows: Sequence[Row], name: str) -> tuple[np.ndarray, str]:
    """One column as it is drawn, and its label: results in a unit in which they read well."""
    values = column_of(rows, name)
    if name not in RESULTS:
        return values, _field_label(name)
    title, unit, factor = RESULTS[name]
    if factor is None:
        return values, f"{title} [{unit}]"
    scale = unit_for(values * factor, unit)
    return values * factor * scale.factor, f"{title} [{scale.name}]"


def _field_label(name: str) -> str:
    stem, unit = name_and_unit(name.rsplit(".", 1)[-1])
    return f"{stem} [{unit or 'count'}]"
