"""The parts of a page. Everything that comes from outside is escaped; pictures lie in the page as data."""

from __future__ import annotations

import base64
import platform
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kpu_jax.base.outputs import write_whole
from kpu_jax.base.tables import html_table
from kpu_jax.version import __version__

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ccc; }
p.lead { color: #444; margin-top: 0; } nav a { margin-right: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { background: #f4f4f4; position: sticky; top: 0; }
tbody tr:nth-child(even) { background: #fafafa; }
div.scroll { overflow: auto; max-height: 32rem; border: 1px solid #ddd; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; } figcaption { color: #444; font-size: .85rem; }
pre { background: #f6f6f6; padding: .8rem; overflow: auto; font-size: .8rem; } summary { cursor: pointer; color: #0072B2; }
footer { margin-top: 3rem; color: #666; font-size: .8rem; } @media print { div.scroll { max-height: none; overflow: visible; } }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # a browser then fetches nothing


class Page:
    """A page in the making: add sections in order, then `html` or `save`."""

    def __init__(self, title: str, lead: str = "") -> None:
        self.title, self.lead = title, lead
        self._sections: list[tuple[str, list[str]]] = []

    def section(self, title: str) -> Page:
        """Begin a section; what is added next goes into it."""
        self._sections.append((title, []))
        return self

    def text(self, words: str) -> Page:
        """A paragraph."""
        return self._add(f"<p>{escape(words)}</p>")

    def pre(self, words: str, folded: str = "") -> Page:
        """Text as it is laid out; with a title in `folded`, hidden behind it."""
        block = f"<pre>{escape(words)}</pre>"
        return self._add(f"<details><summary>{escape(folded)}</summary>{block}</details>" if folded else block)

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Page:
        """Rows as a table that scrolls; numbers to four significant digits."""
        return self._add(f'<div class="scroll">{html_table(rows, columns)}</div>' if rows else "<p>(no rows)</p>")

    def points(self, lines: Sequence[str]) -> Page:
        """A numbered list."""
        return self._add("<ol>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ol>")

    def figure(self, svg: str, caption: str) -> Page:
        """A picture with words below it, which also stand in for it where pictures are not seen."""
        data = base64.b64encode(svg.encode()).decode()
        words = escape(caption)
        return self._add(f'<figure><img alt="{words}" src="data:image/svg+xml;base64,{data}"><figcaption>{words}</figcaption></figure>')

    def html(self) -> str:
        """The whole page."""
        links = "".join(f'<a href="#s{i}">{escape(title)}</a>' for i, (title, _) in enumerate(self._sections))
        parts = "\n".join(
            f'<section id="s{i}"><h2>{escape(title)}</h2>\n{"".join(body)}</section>' for i, (title, body) in enumerate(self._sections)
        )
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{escape(self.title)}</h1>\n"
            f'<p class="lead">{escape(self.lead)}</p>\n<nav>{links}</nav>\n{parts}\n<footer>{escape(versions())}</footer>\n</body></html>\n'
        )

    def save(self, file: Path) -> None:
        """Write the page, whole or not at all; `KPUError` if the file cannot be written."""
        write_whole(file, self.html())

    def _add(self, html: str) -> Page:
        self._sections[-1][1].append(html + "\n")
        return self


def versions() -> str:
    """What computed the numbers."""
    return f"kpu_jax {__version__}, jax {version('jax')}, numpy {version('numpy')}, Python {platform.python_version()}"
