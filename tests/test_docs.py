"""What the documents show is run: the Python of the README and of every page, their commands' names, and docstring examples."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest

import kpu_jax

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = [m.name for m in pkgutil.walk_packages(kpu_jax.__path__, "kpu_jax.") if "preset_files" not in m.name]


def load_examples():
    spec = importlib.util.spec_from_file_location("examples", ROOT / "docs" / "examples.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


examples = load_examples()
COMMANDS = [
    line for path in [ROOT / "README.md", *examples.pages()] for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
    for line in block.splitlines() if line.startswith("kpu-jax ")
]  # fmt: skip


def test_the_python_of_all_documents_runs_and_prints_what_they_show():
    """One test, so that all pages share what is compiled."""
    shown = [(path, example) for path in [ROOT / "README.md", *examples.pages()] for example in examples.run(path)]
    assert any(path.name == "README.md" for path, _ in shown)
    for path, example in shown:
        assert example.printed == (example.shown or "") or path.name == "README.md", f"{path}: python docs/examples.py writes it anew"
        assert example.figures == bool(example.picture), f"{path}: a picture for each figure, and a figure for each picture"


def test_the_two_commands_are_marked():
    for mark, target in (("main job", "main-job"), ("tests", "test")):
        line = re.search(rf"<!-- {mark} -->\n```\n(.*)\n```", README)
        assert line and line[1] == f"make {target}" and f"\n{target}: " in (ROOT / "Makefile").read_text()


def test_every_command_line_of_the_documents_parses():
    from kpu_jax.cli.main import parser

    assert len(COMMANDS) > 5
    for line in COMMANDS:
        parser().parse_args(line.split("#")[0].split()[1:])


def test_every_picture_file_and_page_that_is_linked_exists():
    for path in [ROOT / "README.md", *examples.pages()]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), (path, target)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
