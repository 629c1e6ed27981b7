"""Imports point down, files stay small, and only the right places import the heavy or private things."""

import ast
from pathlib import Path

import pytest

import kpu_jax

ROOT = Path(kpu_jax.__file__).parent
# What each part may import besides itself; a name stands for a folder or a module of kpu_jax.
BELOW = {
    "base": set(),
    "hardware": {"base"},
    "workload": {"base", "hardware"},
    "frontends": {"base", "workload"},
    "mapping": {"base", "hardware", "workload"},
    "engines": {"base", "hardware", "workload"},
    "program": {"base", "hardware", "workload", "mapping", "engines"},
    "model": {"base", "hardware", "workload", "mapping", "engines"},
    "machine": {"base", "hardware", "workload", "mapping", "program"},
    "execution": {"base", "workload", "frontends", "machine"},
    "explore": {"version", "base", "hardware", "workload", "mapping", "engines", "model"},
    "analysis": {"base", "hardware", "workload", "mapping", "engines", "program", "model", "explore"},
    "utilities": {"base", "hardware", "workload", "frontends", "mapping", "engines", "model", "explore", "analysis"},
}
BELOW["graph"] = {"base", "hardware", "workload", "mapping", "engines", "model", "explore", "analysis"}
BELOW["simulator"] = {*BELOW}
BELOW["core"] = {*BELOW}
BELOW["visualization"] = {*BELOW} - {"core"}
BELOW["version"] = set()
BELOW["report_html"] = {*BELOW} - {"core"}
BELOW["cli"] = {*BELOW}
MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(source: str) -> set[str]:
    """Every module that a source imports, wherever in the file; relative imports are not used."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violations(part: str, source: str) -> list[str]:
    """Imports of `source`, a file of `part`, that do not point down or belong elsewhere."""
    found = []
    for name in sorted(imported(source)):
        top, *rest = name.split(".")
        if top == "kpu_jax":
            target = rest[0] if rest else ""
            if target != part and target not in BELOW[part]:
                found.append(name)
        elif top == "matplotlib" and part != "visualization":
            found.append(name)
        elif name.startswith("jax._src") and part != "frontends":
            found.append(name)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    assert violations(part_of(path), path.read_text()) == []


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_small_and_leave_global_configuration_alone(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 400
    assert "config.update" not in source


def test_private_jax_is_read_in_one_file():
    reading = [p.relative_to(ROOT) for p in MODULES if any(n.startswith("jax._src") for n in imported(p.read_text()))]
    assert reading == [Path("frontends/jaxpr.py")]


def test_every_folder_is_a_package_and_every_part_is_known():
    for path in MODULES:
        assert (path.parent / "__init__.py").exists(), path.parent
        assert part_of(path) in BELOW


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("base", "from kpu_jax.hardware import KPUConfig"),
        ("model", "def f():\n    import kpu_jax.program.schedule"),
        ("program", "from kpu_jax.model import traffic"),
        ("explore", "if TYPE_CHECKING:\n    from kpu_jax.simulator import simulate"),
        ("analysis", "import matplotlib.pyplot as plt"),
        ("model", "from jax._src import core"),
        ("mapping", "import kpu_jax"),
    ],
)
def test_a_violation_is_found(part, source):
    assert violations(part, source)
