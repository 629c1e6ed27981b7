"""Reading tables of an outside simulator's results, and reporting where ours differ."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kpu_jax.base.errors import KPUError, shown
from kpu_jax.base.files import file_path

DATA = Path(__file__).parents[2] / "tests" / "reference" / "data"
SHOWN = 10  # mismatches that are printed


def read_table(path: str | Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """(line number, {column: cell}) of every row of a CSV file; blank lines are passed over.

    Raises `KPUError` naming the file and the line if it cannot be read, lacks columns, or has rows of another length.
    """
    file = file_path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise KPUError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise KPUError(f"{file}: not a text file (UTF-8)") from None
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise KPUError(f"{file}: not a CSV file: {error}") from None
    header: list[str] | None = None
    rows = []
    for number, cells in enumerate(lines, 1):
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if header is None:
            header = cells
            if twice := [name for i, name in enumerate(header) if name in header[:i]]:
                raise KPUError(f"{file}, line {number}: the column {twice[0] or 'without a name'} stands there twice")
            if missing := [name for name in columns if name not in header]:
                raise KPUError(f"{file}: lacks the columns {', '.join(missing)}; it needs {', '.join(columns)}")
            continue
        if len(cells) != len(header):
            raise KPUError(f"{file}, line {number}: has {len(cells)} cells where the header has {len(header)}")
        rows.append((number, dict(zip(header, cells, strict=True))))
    if header is None:
        raise KPUError(f"{file}: the file is empty; it needs a line with the columns {', '.join(columns)}")
    return rows


def integer(file: str | Path, line: int, column: str, cell: str, low: int = 0, high: int = 2**53) -> int:
    """The integer in a cell, or a `KPUError` naming the file, the line and the column. 4.0 counts as 4."""
    where = f"{file}, line {line}, {column} = {shown(cell)}"
    try:
        value = float(cell)
    except ValueError:
        raise KPUError(f"{where}: not a number") from None
    if not low <= value <= high or value != int(value):
        raise KPUError(f"{where}: must be an integer of at least {low}" + (f" and at most {high}" if value > high else ""))
    return int(value)


def flag(file: str | Path, line: int, column: str, cell: str) -> int:
    """0 or 1 from a cell that says 0, 1, true or false, or a `KPUError` naming the file, the line and the column."""
    values = {"0": 0, "1": 1, "false": 0, "true": 1}
    if cell.lower() not in values:
        raise KPUError(f"{file}, line {line}, {column} = {shown(cell)}: must be 0, 1, true or false")
    return values[cell.lower()]


def report(rows: int, mismatches: Iterable[str]) -> int:
    """Print `rows N mismatches X` and the first mismatches; returns the exit status, 1 if there are any."""
    found = list(mismatches)
    if not rows:
        print("note: the file has a header and no rows: nothing was compared", file=sys.stderr)
    print(f"rows {rows} mismatches {len(found)}")
    for line in found[:SHOWN]:
        print(f"  {line}")
    if len(found) > SHOWN:
        print(f"  ... and {len(found) - SHOWN} more")
    return 1 if found else 0


def differences(expected: dict[str, int], got: dict[str, int]) -> str:
    """The entries that differ, in words; "" if none does."""
    return ", ".join(f"{name} {got[name]} instead of {value}" for name, value in expected.items() if got[name] != value)


def parser(study: str, description: str | None) -> argparse.ArgumentParser:
    """The command line of a study in this folder; `description`: its docstring."""
    prog = f"python -m experiments.validation.{study}"
    return argparse.ArgumentParser(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def run(main: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parse and run; wrong input gives one line on stderr and the status 2."""
    try:
        return main(parser.parse_args(argv))
    except KPUError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
