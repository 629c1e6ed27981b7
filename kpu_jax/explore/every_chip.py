"""The figures of every chip of a space: streamed into a Parquet file, or as a grid with named axes and units."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, check_choice
from kpu_jax.base.files import file_path
from kpu_jax.explore.decode import Chips
from kpu_jax.explore.kernel import Totals
from kpu_jax.explore.limits import OBJECTIVES, keeps, limits_of, measures
from kpu_jax.explore.screening import Screening
from kpu_jax.explore.space import Space
from kpu_jax.hardware.fields import FIELDS
from kpu_jax.workload import Op, Workload, check_workload

UNITS = {"seconds": "s", "energy_pj": "pJ", "edp_js": "J s", "power_w": "W", "area_mm2": "mm^2", "tdp_w": "W", "meets": "true/false"}
MEANING = {
    "seconds": "one pass of the workload: sum of the lower bounds of its operations, each under the mapping chosen for the objective",
    "energy_pj": "of the same mappings over that time",
    "edp_js": "energy x time",
    "power_w": "energy / time",
    "area_mm2": "area of the chip",
    "tdp_w": "thermal design power of the chip",
    "meets": "keeps the limits, with these figures",
}
ROWS_AT_ONCE = 2**17  # that are collected before they are written: bounds the memory
MOST_IN_A_GRID = 2**26  # chips: seven arrays of 4 or 8 bytes each, 2.5 GB


def figures(chips: Chips, totals: Totals, limits: Mapping[str, float]) -> dict[str, np.ndarray]:
    """{name of `UNITS`: values} of the chips of a block that are to be kept, in ascending index, and their index as "chip"."""
    keep = np.asarray(chips.keep)
    wide = [np.asarray(v, np.float64)[keep] for v in (totals.seconds, totals.energy_pj, totals.area_mm2, totals.tdp_w)]
    measured = measures(*wide)
    return {
        "chip": np.asarray(chips.ids)[keep],
        **{name: measured[name] for name in ("seconds", "energy_pj", "power_w", "area_mm2", "tdp_w")},
        "edp_js": wide[0] * wide[1] * 1e-12,
        "meets": keeps(limits, measured),
    }


class ParquetTable:
    """A Parquet file of every chip that is added, in place when the `with` block ends without an error.

    Columns: `chip` (index in the space), the varying fields by dotted path, and `UNITS`. Every column's metadata has its
    unit and meaning. Memory does not depend on the number of rows.
    """

    def __init__(self, path: str | Path, space: Space, objective: str, limits: Mapping[str, float]) -> None:
        """Raises `KPUError` if pyarrow (extra `dataframe`) is missing or the file's folder cannot be written."""
        self.path, self.space, self.limits = file_path(path), space, limits
        self._arrow, parquet = _extra("pyarrow", "dataframe"), _extra("pyarrow.parquet", "dataframe")
        arrow = self._arrow

        def column(name: str, kind: Any, unit: str, meaning: str) -> Any:
            return arrow.field(name, kind, nullable=False, metadata={"unit": unit, "meaning": meaning})

        about = {"objective": objective, "constraints": json.dumps(dict(limits)), "timing": "bound"}
        self._schema = arrow.schema(
            [
                column("chip", arrow.int64(), "index", "of the chip in the space"),
                *(column(p, arrow.float64(), FIELDS[p].unit, FIELDS[p].doc) for p in space.paths),
                *(column(n, arrow.bool_() if n == "meets" else arrow.float64(), u, MEANING[n]) for n, u in UNITS.items()),
            ],
            metadata={f"kpu_jax.{key}": value for key, value in about.items()},
        )
        if self.path.is_dir():
            raise KPUError(f"{self.path}: is a folder; name a file")
        self._temporary = self.path.with_name(f".new-{self.path.name}")
        self._rows: list[dict[str, np.ndarray]] = []
        self._waiting = 0
        try:
            self._writer = parquet.ParquetWriter(self._temporary, self._schema)
        except (OSError, ValueError) as error:
            raise self._refused(error) from None

    def add(self, chips: Chips, totals: Totals) -> None:
        """Add the chips of a block that are to be kept. `KPUError` if they cannot be written."""
        self._rows.append(figures(chips, totals, self.limits))
        self._waiting += len(self._rows[-1]["chip"])
        if self._waiting >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = {name: np.concatenate([row[name] for row in self._rows]) for name in self._rows[0]}
        columns |= self.space.values(columns["chip"])
        self._rows, self._waiting = [], 0
        table = self._arrow.table([columns[name] for name in self._schema.names], schema=self._schema)
        try:
            self._writer.write_table(table)
        except OSError as error:
            raise self._refused(error) from None

    def __enter__(self) -> ParquetTable:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._flush()
            self._writer.close()
            if error is None:
                os.replace(self._temporary, self.path)
        except OSError as refused:
            if error is None:
                raise self._refused(refused) from None
        finally:
            with contextlib.suppress(OSError):
                self._temporary.unlink()

    def _refused(self, error: Any) -> KPUError:
        return KPUError(f"{self.path}: cannot be written: {getattr(error, 'strerror', None) or error}; no table was written")


def sweep_dataset(
    space: Space | Mapping[Any, Any],
    workload: Workload | Op,
    *,
    objective: str = "edp",
    constraints: Mapping[str, float] | None = None,
) -> Any:
    """The figures of every chip by the bound, as an `xarray.Dataset` (extra `xarray`).

    One dimension per axis of the space, named after its first field, with the values of all its fields as coordinates;
    variables as in `UNITS`, with units and meanings as attributes. A chip that breaks a condition of the space has NaN, and
    `meets` false. Raises `KPUError` as `sweep` does, and for more than 2^26 chips: a Parquet table has room for them.
    """
    xarray = _extra("xarray", "xarray")
    check_choice("objective", objective, OBJECTIVES)
    space = space if isinstance(space, Space) else Space(space)
    limits = limits_of(constraints)
    check_workload(workload)
    net = workload if isinstance(workload, Workload) else Workload.from_ops([("op", workload)])
    if len(space) > MOST_IN_A_GRID:
        raise KPUError(f"a grid holds {MOST_IN_A_GRID:,} chips at most, got {len(space):,}: sweep with table=FILE.parquet")
    grids = {name: np.full(len(space), np.nan) for name in UNITS if name != "meets"} | {"meets": np.zeros(len(space), bool)}

    def fill(chips: Chips, totals: Totals) -> None:
        found = figures(chips, totals, limits)
        for name, grid in grids.items():
            grid[found["chip"]] = found[name]

    for _ in Screening(space, net.ops, objective, limits, watcher=fill).parts([(0, len(space))]):
        pass
    axes = space.geometry + space.speed
    dimensions = [names[0] for names, _ in axes]
    shape = [len(rows) for _, rows in axes]
    coordinates = {
        path: (names[0], rows[:, i], {"units": FIELDS[path].unit, "long_name": FIELDS[path].doc})
        for names, rows in axes
        for i, path in enumerate(names)
    }
    variables = {n: (dimensions, v.reshape(shape), {"units": UNITS[n], "long_name": MEANING[n]}) for n, v in grids.items()}
    about = {"objective": objective, "constraints": json.dumps(limits), "timing": "bound"}
    return xarray.Dataset(variables, coordinates, about)


def _extra(module: str, extra: str) -> Any:
    """A module that an extra of this package brings; `KPUError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise KPUError(f"this needs {module.partition('.')[0]}: pip install 'kpu_jax[{extra}]'") from None
