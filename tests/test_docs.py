"""What the documents show is run: the README's Python, its commands' names, and every docstring example."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import kpu_jax

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = [m.name for m in pkgutil.walk_packages(kpu_jax.__path__, "kpu_jax.") if "preset_files" not in m.name]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_readme_has_python_and_it_runs(capsys):
    assert blocks("python")
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out


def test_the_two_commands_are_marked():
    for mark, target in (("main job", "main-job"), ("tests", "test")):
        line = re.search(rf"<!-- {mark} -->\n```\n(.*)\n```", README)
        assert line and line[1] == f"make {target}" and f"\n{target}: " in (ROOT / "Makefile").read_text()


def test_every_command_line_of_the_readme_parses():
    from kpu_jax.cli.main import parser

    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("kpu-jax ")]
    assert lines
    for line in lines:
        parser().parse_args(line.split("#")[0].split()[1:])


def test_every_picture_and_file_of_the_readme_exists():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_public_names_are_documented():
    for name in kpu_jax.__all__:
        value = getattr(kpu_jax, name)
        if not isinstance(value, str):
            assert (value.__doc__ or "").strip(), name
