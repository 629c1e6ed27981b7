"""Tables that people read: aligned text in a terminal, HTML in a notebook or on a page; one way for all objects that print."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, shown
from kpu_jax.base.text import number_or_text
from kpu_jax.base.units import heading

Row = dict[str, Any]  # column -> value
Rows = Sequence[Mapping[str, Any]]
MOST_SHOWN = 120  # rows of a table that print; of more, the first and how many follow


def cell(value: Any) -> str:
    """A value as the text of a table: integers in full, other numbers to four significant digits or whole, flags as yes and no."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, numbers.Integral):
        return str(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return f"{number:,.0f}" if abs(number) < 1e15 and (number.is_integer() or abs(number) >= 1000) else f"{number:.4g}"
    return ", ".join(map(cell, value)) if isinstance(value, (list, tuple)) else str(value)


def columns_of(rows: Rows, columns: Sequence[str] | None = None) -> dict[str, bool]:
    """The columns of a table (default: those of its first row) -> whether they hold words only, which are aligned left."""
    names = list(rows[0]) if columns is None else list(columns)
    return {name: all(_is_words(row.get(name)) for row in rows) for name in names}


def _is_words(value: Any) -> bool:
    return value is None or (isinstance(value, str) and isinstance(number_or_text(value), str))


def check_rows(what: str, rows: Any) -> Rows:
    """`rows` if they are a sequence of mappings; else a `KPUError` that begins with `what`."""
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, Mapping) for row in rows):
        raise KPUError(f"{what} needs rows, a list of dicts {{column: value}}, got {shown(rows)}")
    return rows


def text_table(rows: Rows, columns: Sequence[str] | None = None) -> str:
    """Aligned text with a header; numbers as in `cell`, right-aligned. Raises `KPUError` for what is no list of dicts."""
    if not check_rows("text_table", rows):
        return "(no rows)"
    of_text = columns_of(rows, columns)
    cells = [list(of_text), *([cell(row.get(name)) for name in of_text] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = [str.ljust if left else str.rjust for left in of_text.values()]
    return "\n".join("  ".join(side(c, w) for side, c, w in zip(sides, line, widths, strict=True)).rstrip() for line in cells)


def html_table(rows: Rows, columns: Sequence[str] | None = None) -> str:
    """The same table as an HTML element; everything is escaped, and no style sheet is needed."""
    if not rows:
        return "<p>(no rows)</p>"
    of_text = columns_of(rows, columns)
    side = {name: f' style="text-align:{"left" if left else "right"}"' for name, left in of_text.items()}
    head = "".join(f"<th{side[name]}>{escape(heading(name))}</th>" for name in of_text)
    body = "".join("<tr>" + "".join(f"<td{side[n]}>{escape(cell(row.get(n)))}</td>" for n in of_text) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def markdown_table(rows: Rows, columns: Sequence[str] | None = None) -> str:
    """The same table with pipes."""
    if not rows:
        return "(no rows)"
    of_text = columns_of(rows, columns)
    lines = [list(of_text), [":---" if left else "---:" for left in of_text.values()]]
    lines += [[cell(row.get(name)).replace("|", r"\|") for name in of_text] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclasses.dataclass(frozen=True)
class Sheet:
    """What an object prints: a title, tables by their headings ("" for none), and lines below them."""

    title: str
    tables: Mapping[str, Rows] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()

    def text(self) -> str:
        """For a terminal."""
        parts = [self.title]
        for name, rows in self.tables.items():
            parts += [f"\n{name}"] if name else []
            parts += [text_table(rows[:MOST_SHOWN]), *_further(rows)]
        return "\n".join([*parts, *self.notes])

    def html(self) -> str:
        """For a notebook."""
        parts = [f"<p><b>{escape(self.title)}</b></p>"]
        for name, rows in self.tables.items():
            parts += [f"<p>{escape(name)}</p>"] if name else []
            parts += [html_table(rows[:MOST_SHOWN]), *(f"<p>{escape(line)}</p>" for line in _further(rows))]
        return "\n".join([*parts, *(f"<p>{escape(note)}</p>" for note in self.notes if note)])


def _further(rows: Rows) -> list[str]:
    return [f"... and {len(rows) - MOST_SHOWN:,} more"] if len(rows) > MOST_SHOWN else []


class Shown:
    """Base of what prints as a `Sheet`: text for `repr` and `print`, HTML in a notebook.

    `sheet` must also work on traced and stacked leaves, of which it shows no more than shapes.
    """

    def sheet(self) -> Sheet:
        """What is shown."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.sheet().text()

    def _repr_html_(self) -> str:
        return self.sheet().html()
