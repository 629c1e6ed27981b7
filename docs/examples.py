"""The Python of the pages: run it, and write below each block what it prints and draws.

    python docs/examples.py        # after a change: every page's outputs and pictures anew

A fenced block of `python` followed by one of `text` shows that output, to the last character; followed by a picture, the figure that
it drew. The tests hold both. Blocks of a page share their names, as the cells of a notebook do.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("MPLBACKEND", "Agg")

DOCS = Path(__file__).parent
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?(?:\n(?P<image>!\[.*?\]\((?P<picture>.*?)\))\n)?",
    re.MULTILINE | re.DOTALL,
)


class Example(NamedTuple):
    """A block that was run."""

    code: str
    shown: str | None  # the output below it on the page, if there is any
    picture: str | None  # the file of the picture below it
    printed: str
    figures: int  # that it drew


def pages() -> list[Path]:
    """Every page that is written by hand."""
    return sorted(DOCS.rglob("*.md"))


def run(path: Path, *, save: bool = False) -> list[Example]:
    """Run the Python of a page, in order, in one namespace; `save` its pictures."""
    import matplotlib.pyplot as plt

    plt.close("all")  # what the caller drew before
    names: dict[str, Any] = {"__name__": "__main__"}
    found = []
    for block in BLOCK.finditer(path.read_text(encoding="utf-8")):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block["code"], str(path), "exec"), names)
        printed = "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
        found.append(Example(block["code"], block["shown"], block["picture"], printed, len(plt.get_fignums())))
        if save and block["picture"]:
            plt.gcf().savefig(path.parent / block["picture"], dpi=75, metadata={"Software": None})
        plt.close("all")
    return found


def write(path: Path) -> None:
    """Put what a page's Python prints and draws below it."""
    examples = iter(run(path, save=True))

    def renewed(block: re.Match[str]) -> str:
        printed = next(examples).printed
        text = f"\n```text\n{printed}```\n" if printed else ""
        return f"```python\n{block['code']}```\n{text}" + (f"\n{block['image']}\n" if block["image"] else "")

    path.write_text(BLOCK.sub(renewed, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for page in pages():
        write(page)
