"""The Python of the pages: run it, and write below each block what it prints.

    python docs/examples.py        # after a change: every page's outputs anew

A fenced block of `python` followed by one of `text` shows that output, to the last character; the tests hold it. Blocks of a page
share their names, as the cells of a notebook do.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parent
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?", re.MULTILINE | re.DOTALL)


class Example(NamedTuple):
    """A block that was run."""

    code: str
    shown: str | None  # the output below it on the page, if there is any
    printed: str


def pages() -> list[Path]:
    """Every page that is written by hand."""
    return sorted(DOCS.rglob("*.md"))


def run(path: Path) -> list[Example]:
    """Run the Python of a page, in order, in one namespace."""
    names: dict[str, Any] = {"__name__": "__main__"}
    found = []
    for block in BLOCK.finditer(path.read_text(encoding="utf-8")):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block["code"], str(path), "exec"), names)
        printed = "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
        found.append(Example(block["code"], block["shown"], printed))
    return found


def write(path: Path) -> None:
    """Put what a page's Python prints below it."""
    examples = iter(run(path))

    def renewed(block: re.Match[str]) -> str:
        printed = next(examples).printed
        return f"```python\n{block['code']}```\n" + (f"\n```text\n{printed}```\n" if printed else "")

    path.write_text(BLOCK.sub(renewed, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for page in pages():
        write(page)
