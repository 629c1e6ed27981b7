"""Workloads, chips, mappings, reports and sweep tables to and from every form that other tools read.

dict and JSON hold everything; tables (CSV, pandas, Parquet) hold one value per cell, lists as JSON text. What is
written and read again is equal: floats keep every bit. Of a `NetworkReport` the numbers are kept, as a `Report`, and not
the plan; its `table()` is one more table. Arrays in the chip's number formats: `to_bytes`, `from_bytes`.
"""

from __future__ import annotations

import csv
import io
import json
import os
from typing import Any

from kpu_jax.base.errors import KPUError
from kpu_jax.base.files import check_digits, file_path
from kpu_jax.hardware import KPUConfig, load_config, save_config
from kpu_jax.utilities.frames import from_rows, is_workload, to_rows
from kpu_jax.utilities.number_arrays import from_bytes, numpy_dtype, to_bytes
from kpu_jax.utilities.records import from_dict, to_dict
from kpu_jax.utilities.scale_sim import config_from_scale_sim, config_text, topology_text
from kpu_jax.workload import Workload

Path = str | os.PathLike[str]


def to_json(value: Any, path: Path | None = None) -> str:
    """`to_dict` as JSON text, written to `path` if given. Raises `KPUError` as `to_dict`, and for unwritable files."""
    text = json.dumps(to_dict(value), indent=1, allow_nan=False) + "\n"
    if path is not None:
        _write(path, text.encode())
    return text


def from_json(source: Path) -> Any:
    """The object of a JSON file, or of JSON text (which begins with a brace). Raises `KPUError` naming file and line."""
    inline = isinstance(source, str) and source.lstrip().startswith("{")
    text = source if inline else _read(source).decode("utf-8-sig", "replace")
    where = "the text" if inline else str(source)

    def integer(digits: str) -> int:
        check_digits(file_path(where), digits)
        return int(digits)

    try:
        values = json.loads(text, parse_int=integer)  # type: ignore[arg-type]
    except json.JSONDecodeError as error:
        raise KPUError(f"{where}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise KPUError(f"{where}: nested too deeply") from None
    return from_dict(values)


def to_csv(value: Any, path: Path | None = None) -> str:
    """The table of a value as CSV text with a header, written to `path` if given."""
    rows = to_rows(value)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _columns(rows), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    if path is not None:
        _write(path, stream.getvalue().encode())
    return stream.getvalue()


def from_csv(path: Path) -> Any:
    """The object whose table a CSV file holds, told by its columns; any other table as rows of numbers and text.

    A column is of numbers if every cell is one.
    """
    text = _read(path).decode("utf-8-sig", "replace")
    csv.field_size_limit(2**30)
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise KPUError(f"{path}: not a CSV file: {error}") from None
    if any(None in row for row in rows):
        raise KPUError(f"{path}: a line has more cells than the header")
    columns = rows[0] if rows else {}
    text_only = {"name"} if is_workload(columns) else set()
    typed = {c: cells if c in text_only else _typed(cells) for c in columns for cells in [[row[c] or "" for row in rows]]}
    return from_rows([{c: typed[c][i] for c in row} for i, row in enumerate(rows)])


def to_pandas(value: Any) -> Any:
    """The table of a value as a `pandas.DataFrame` (extra `dataframe`)."""
    rows = to_rows(value)
    return _pandas().DataFrame(rows, columns=_columns(rows))


def from_pandas(frame: Any) -> Any:
    """The object whose table a DataFrame is; any other as a list of rows."""
    if not isinstance(frame, _pandas().DataFrame):
        raise KPUError(f"expected a pandas.DataFrame, got {type(frame).__name__}")
    try:
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    except Exception as error:  # pyarrow's own, for text that is none
        raise KPUError(f"the table cannot be read: {' '.join(str(error).split())[:200]}") from None
    return from_rows(rows)


def to_parquet(value: Any, path: Path) -> None:
    """The table of a value as a Parquet file (extra `dataframe`)."""
    frame = to_pandas(value)
    stream = io.BytesIO()
    frame.to_parquet(stream, index=False)
    _write(path, stream.getvalue())


def from_parquet(path: Path) -> Any:
    """The object whose table a Parquet file holds (extra `dataframe`)."""
    data = _read(path)
    try:
        frame = _pandas().read_parquet(io.BytesIO(data))
    except Exception as error:  # pyarrow has its own hierarchy, which is imported only if pandas finds it
        raise KPUError(f"{path}: not a Parquet file: {' '.join(str(error).split())[:200]}") from None
    return from_pandas(frame)


def to_kpu_sim_yaml(cfg: KPUConfig, path: Path, *, name: str | None = None, description: str | None = None) -> None:
    """The chip as a file of kpu-sim (`save_config`)."""
    save_config(cfg, path, name=name, description=description)


def from_kpu_sim_yaml(path: Path) -> KPUConfig:
    """The chip of a file of kpu-sim (`load_config`)."""
    return load_config(path)


def to_scale_sim_topology(net: Workload, path: Path, *, form: str = "gemm") -> None:
    """A workload's fabric operations as a topology file of SCALE-Sim; read back with `kpu.load_topology`."""
    _write(path, topology_text(net, form).encode())


def to_scale_sim_config(cfg: KPUConfig, path: Path, dataflow: str = "output_stationary", *, word_bytes: float = 1.0) -> None:
    """A chip as a configuration file of SCALE-Sim; what that cannot say is left out (`scale_sim.config_text`)."""
    _write(path, config_text(cfg, dataflow, word_bytes=word_bytes).encode())


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _typed(cells: list[str]) -> list[Any]:
    """A column as booleans, integers or floats if all of its cells are (empty ones aside), else as text."""
    filled = [c for c in cells if c]
    if filled and all(c in ("True", "False") for c in filled):
        return [c == "True" if c else None for c in cells]
    for number in (int, float):
        try:
            return [number(c) if c else None for c in cells]
        except ValueError:
            continue
    return list(cells)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise KPUError("pandas is not installed: pip install 'kpu_jax[dataframe]'") from None
    return pandas


def _read(path: Path) -> bytes:
    try:
        return file_path(path).read_bytes()
    except OSError as error:
        raise KPUError(f"{path}: cannot be read: {error.strerror or error}") from None


def _write(path: Path, data: bytes) -> None:
    file = file_path(path)
    temporary = file.with_name(f".{file.name}.new")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise KPUError(f"{path}: cannot be written: {error.strerror or error}") from None


__all__ = [
    "config_from_scale_sim",
    "from_bytes",
    "from_csv",
    "from_dict",
    "from_json",
    "from_kpu_sim_yaml",
    "from_pandas",
    "from_parquet",
    "numpy_dtype",
    "to_bytes",
    "to_csv",
    "to_dict",
    "to_json",
    "to_kpu_sim_yaml",
    "to_pandas",
    "to_parquet",
    "to_scale_sim_config",
    "to_scale_sim_topology",
]
