"""The notebooks run, cell by cell, without a kernel; they are stored without outputs, and end with something to change."""

from __future__ import annotations

import ast
import json
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
LONG = ("05_codesign",)  # a minute of compiling


def cells(path, kind):
    return ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def run_cell(source, name, names):
    """As a kernel does: run it, and show the value of a last expression."""
    *body, last = ast.parse(source).body
    exec(compile(ast.Module(body, []), name, "exec"), names)
    if not isinstance(last, ast.Expr):
        exec(compile(ast.Module([last], []), name, "exec"), names)
        return
    value = eval(compile(ast.Expression(last.value), name, "eval"), names)
    if value is not None and not source.rstrip().endswith(";"):
        html = getattr(value, "_repr_html_", lambda: None)()
        assert html or repr(value)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 6


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_stripped_and_ends_with_a_task(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert all(not c["outputs"] and c["execution_count"] is None for c in book["cells"] if c["cell_type"] == "code")
    assert len({c["id"] for c in book["cells"]}) == len(book["cells"])
    assert cells(path, "markdown")[0].startswith("# ") and cells(path, "markdown")[-1].startswith("## Now change something")


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem, marks=[pytest.mark.long] * (p.stem in LONG)) for p in NOTEBOOKS])
def test_a_notebook_runs(path):
    """All code cells in one fresh namespace; what a cell shows is asked to show itself."""
    names: dict[str, object] = {"__name__": "__main__"}
    with warnings.catch_warnings(), plt.rc_context():
        warnings.simplefilter("error")
        for number, source in enumerate(cells(path, "code")):
            run_cell(source, f"{path.name}, code cell {number + 1}", names)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    for figure in figures:
        figure.canvas.draw()
    plt.close("all")
    assert figures
