"""The package on every Python and with the newest and the oldest versions of what it needs: `make matrix`.

Builds the source distribution and a wheel from it; then, in a new environment for each row: installs the wheel, imports
it with warnings as errors, asks the command line, and runs a part of the tests against what was installed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "matrix"
TESTS = [
    "test_import.py", "test_core.py", "hardware", "base", "utilities", "workload/test_gemm.py", "program/test_text_and_binary.py",
    "frontends/test_trace.py", "frontends/test_topology.py", "execution", "fuzz/test_constructors.py",
]  # fmt: skip
SHOWN = "import importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in ('jax', 'numpy', 'optax', 'matplotlib')), sep=', ')"


def python_of(version: str) -> str | None:
    """An interpreter of this version: on the path, or one that pyenv installed."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for name in (f"python{version}", *map(str, sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True))):
        found = shutil.which(name)
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    return None


def run(*words: str | Path, cwd: Path = WORK) -> str:
    """What a command prints; a `RuntimeError` with its last lines if it fails."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PIP_CONSTRAINT", "PYTHONPATH")}
    done = subprocess.run([str(w) for w in words], cwd=cwd, env=clean, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError("\n".join((done.stdout + done.stderr).strip().splitlines()[-15:]))
    return done.stdout


def checked(python: str, oldest: bool, wheel: Path, tests: list[str]) -> str:
    """The result of one row, in words."""
    place = WORK / ("oldest" if oldest else "newest")
    shutil.rmtree(place, ignore_errors=True)
    run(python, "-m", "venv", place)
    limits = ["-c", ROOT / "constraints-lowest.txt"] if oldest else []
    run(place / "bin/pip", "install", "-q", *limits, f"{wheel}[onnx,dataframe]", "pytest", "hypothesis")
    inside = place / "bin/python"
    start = time.perf_counter()
    run(inside, "-W", "error", "-c", "import kpu_jax")
    seconds = time.perf_counter() - start
    run(place / "bin/kpu-jax", "--version")
    run(place / "bin/kpu-jax", "run", "minimal", "--matmul", "32x32x32")
    found = run(place / "bin/pytest", "-q", "-p", "no:cacheprovider", *(ROOT / "tests" / t for t in tests))
    passed = re.findall(r"\d+ passed", found)
    return f"{run(inside, '-c', SHOWN).strip()}; import {seconds:.1f} s; {', '.join(passed)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", default=["3.11", "3.12", "3.13"], help="versions")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="below tests/")
    args = parser.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    run(sys.executable, "-m", "build", "-q", "--outdir", WORK, ROOT, cwd=ROOT)
    wheel = next(WORK.glob("*.whl"))
    failed = 0
    for version in args.python:
        python = python_of(version)
        for oldest in (False, True):
            row = f"Python {version}, {'oldest' if oldest else 'newest'}"
            try:
                print(f"{row}: {checked(python, oldest, wheel, args.tests) if python else 'not on this machine'}", flush=True)
            except RuntimeError as error:
                failed += 1
                print(f"{row}: FAILED\n{error}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
