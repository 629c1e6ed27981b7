"""`Analysis`: what an analyzer found, as tables and advice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kpu_jax.base.errors import KPUError
from kpu_jax.base.tables import Rows, Sheet, Shown, markdown_table


@dataclass(frozen=True, repr=False)
class Analysis(Shown):
    """Tables of one result; prints as text, and as HTML in a notebook."""

    title: str
    tables: Mapping[str, Rows]  # by heading, the rows in order
    advice: Sequence[str] = field(default_factory=list)  # most promising first

    def sheet(self) -> Sheet:
        """What prints."""
        tables = {heading: rows for heading, rows in self.tables.items() if rows}
        advice = [f"{i}. {line}" for i, line in enumerate(self.advice, 1)]
        return Sheet(self.title, tables, ["", "advice", *advice] if advice else [])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, text, lists and dicts."""
        tables = {heading: [dict(row) for row in rows] for heading, rows in self.tables.items()}
        return {"title": self.title, "tables": tables, "advice": list(self.advice)}

    def to_json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    def to_markdown(self) -> str:
        """Headings, pipe tables and a numbered list."""
        parts = [f"# {self.title}", *(f"## {heading}\n\n{markdown_table(rows)}" for heading, rows in self.tables.items() if rows)]
        if self.advice:
            parts.append("## advice\n\n" + "\n".join(f"{i}. {line}" for i, line in enumerate(self.advice, 1)))
        return "\n\n".join(parts) + "\n"

    def to_pandas(self, heading: str) -> Any:
        """One of the tables as a DataFrame (extra `dataframe`). Raises `KPUError` for other headings, and without pandas."""
        if heading not in self.tables:
            raise KPUError(f"the analysis has no table {heading!r}; it has {', '.join(self.tables)}")
        try:
            import pandas
        except ImportError:
            raise KPUError("to_pandas needs pandas: pip install 'kpu_jax[dataframe]'") from None
        return pandas.DataFrame(self.tables[heading])
