"""The reference names every public object once, under the name that users write, and each says what it is."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import kpu_jax

ROOT = Path(__file__).parents[1]
PARTS = [name for name in sorted(p.parent.name for p in (ROOT / "kpu_jax").glob("*/__init__.py")) if name not in ("base", "cli")]
PACKAGES = [kpu_jax, *(importlib.import_module(f"kpu_jax.{name}") for name in PARTS)]
PUBLIC = {f"{package.__name__}.{name}": getattr(package, name) for package in PACKAGES for name in getattr(package, "__all__", [])}
ENTRY = re.compile(r"^::: ([\w.]+)$(?:\n    options:\n      heading: ([\w.]+)$)?", re.MULTILINE)
ENTRIES = [entry for path in sorted((ROOT / "docs/reference").glob("*.md")) for entry in ENTRY.findall(path.read_text(encoding="utf-8"))]
CHECKS = re.compile(r"\braise [\w.]*Error|\bcheck_\w+\(")
SAYS_SO = re.compile(r"Error|[Rr]aise")


def found_at(path: str) -> object:
    """What a reader of the sources finds there, to whom a module comes before a function of its name."""
    names = path.split(".")
    depth = next(n for n in range(len(names) - 1, 0, -1) if _is_module(names[:n]))
    value: object = importlib.import_module(".".join(names[:depth]))
    for name in names[depth:]:
        value = getattr(value, name)
    return value


def _is_module(names: list[str]) -> bool:
    try:
        return importlib.util.find_spec(".".join(names)) is not None
    except ModuleNotFoundError:
        return False


def assignment_of(module: str, name: str) -> tuple[list[str], ast.stmt, ast.stmt | None]:
    """(lines of the file, the assignment of a constant, what follows it), through the imports that lead there."""
    text = inspect.getsource(importlib.import_module(module))
    body = ast.parse(text).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            return assignment_of(str(node.module), name)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return text.splitlines(), node, after
    raise AssertionError(f"{module} assigns no {name}")


def is_described(name: str) -> bool:
    """A constant has a comment behind or above it, or a string below."""
    lines, node, after = assignment_of(*name.rsplit(".", 1))
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
        return True
    beside = [lines[i - 1] for i in (node.lineno, node.end_lineno or node.lineno)]
    return any("  # " in line for line in beside) or lines[node.lineno - 2].startswith("# ")


def problems_of(name: str, value: object) -> list[str]:
    """What a public object leaves unsaid."""
    if isinstance(value, ModuleType):
        return [] if (value.__doc__ or "").strip() else [f"{name} has no docstring"]
    if not inspect.isroutine(value) and not inspect.isclass(value):
        return [] if is_described(name) else [f"{name} has no comment"]
    inside = vars(value).items() if inspect.isclass(value) else ()
    methods = {f"{name}.{k}": f for k, f in inside if inspect.isfunction(f) and not k.startswith("_")}
    functions = methods if inspect.isclass(value) else {name: value}
    found = [f"{k} has no docstring" for k, f in {name: value, **functions}.items() if not (f.__doc__ or "").strip()]
    about = value.__doc__ if inspect.isclass(value) else ""
    raising = {k: f for k, f in functions.items() if CHECKS.search(inspect.getsource(f))}
    return found + [f"{k} raises and does not say so" for k, f in raising.items() if not SAYS_SO.search(f"{f.__doc__} {about}")]


def test_the_reference_has_every_public_name():
    documented = [found_at(path) for path, _ in ENTRIES]
    missing = [name for name, value in PUBLIC.items() if not isinstance(value, ModuleType) and not any(value is d for d in documented)]
    assert missing == []


def test_every_entry_bears_the_name_that_users_write():
    """A function named as its module is given by its whole path, else the module would stand there; its heading is the short name."""
    for path, heading in ENTRIES:
        value = found_at(path)
        assert not heading or PUBLIC[heading] is value, heading
        if inspect.isroutine(value) and value.__module__.endswith(f".{value.__name__}"):
            assert path == f"{value.__module__}.{value.__name__}" and heading, path
    paths = [path for path, _ in ENTRIES]
    assert sorted(set(paths)) == sorted(paths)


def test_every_public_name_says_what_it_is_and_what_it_raises():
    assert [problem for name, value in PUBLIC.items() if not name.endswith("__") for problem in problems_of(name, value)] == []


def test_a_part_without_public_names_gives_them_to_the_package():
    assert {p.__name__ for p in PACKAGES if not hasattr(p, "__all__")} == {"kpu_jax.explore", "kpu_jax.model"}


def test_what_is_left_unsaid_is_found():
    def silent(x):
        raise kpu_jax.KPUError(x)

    def telling(x):
        """Raises `KPUError` always."""
        raise kpu_jax.KPUError(x)

    assert problems_of("silent", silent) == ["silent has no docstring", "silent raises and does not say so"]
    assert problems_of("telling", telling) == []
    assert not is_described("kpu_jax.visualization.pareto.MOST_DOTS") and is_described("kpu_jax.visualization.style.MOST_BARS")


@pytest.mark.skipif(not importlib.util.find_spec("mkdocstrings_handlers"), reason="needs the extra docs")
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for path, _ in ENTRIES:
        assert any(f'id="{path}"' in page.read_text(encoding="utf-8") for page in (tmp_path / "reference").glob("*.html")), path
