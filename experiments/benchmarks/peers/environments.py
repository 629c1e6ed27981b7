"""A virtual environment for each peer, and its driver running in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FOLDER = ROOT / "build" / "peers"  # one environment each, and what the peers print


@dataclass(frozen=True)
class Peer:
    """A tool, what it needs, and the driver that speaks for it."""

    name: str
    requirements: tuple[str, ...] = ()
    python: tuple[str, ...] = ("python3.11", "python3.12")  # interpreters that will do, best first
    programs: tuple[str, ...] = ()  # that must be on the path

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def driver(self) -> Path:
        return HERE / "drivers" / f"drive_{self.name}.py"


PEERS = (
    Peer("scale_sim", ("scalesim==3.0.0", "numpy<2.4")),
    Peer("zigzag", ("zigzag-dse==3.9.1", "six")),
    Peer("accelforge", ("accelforge==1.0.467",), ("python3.12",), ("dot",)),
)
OURS = Peer("kpu")


class Missing(Exception):
    """Why a peer cannot be run here."""


def interpreter(peer: Peer) -> str:
    """The Python of the peer's environment, which is made and filled if it is not there yet. Raises `Missing`."""
    python, ready = peer.folder / "bin" / "python", peer.folder / "ready"
    if absent := [p for p in peer.programs if shutil.which(p) is None]:
        raise Missing(f"{peer.name} needs {', '.join(absent)} on the path")
    if ready.exists() and ready.read_text() == "\n".join(peer.requirements):
        return str(python)
    base = next((found for name in peer.python if (found := _working(name))), None)
    if base is None:
        raise Missing(f"{peer.name} needs {' or '.join(peer.python)} on the path")
    print(f"making an environment for {peer.name}", file=sys.stderr)
    for command in ([base, "-m", "venv", "--clear", str(peer.folder)], [str(python), "-m", "pip", "install", "-q", *peer.requirements]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise Missing(f"{peer.name}: {' '.join(command[1:4])} failed: {last}")
    ready.write_text("\n".join(peer.requirements))
    return str(python)


def _working(name: str) -> str | None:
    """The path of an interpreter of that name that runs, or None: on the path, or among pyenv's versions."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    others = sorted(pyenv.glob(f"{name.removeprefix('python')}*/bin/{name}"))
    for candidate in filter(None, (shutil.which(name), *map(str, others))):
        done = subprocess.run([candidate, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True)
        if done.returncode == 0:  # a version manager may put names on the path that do not run
            return done.stdout.strip()
    return None


class Driver:
    """A peer's process that answers one request after the other."""

    def __init__(self, peer: Peer) -> None:
        python = sys.executable if peer is OURS else interpreter(peer)
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.peer = peer
        self._log = (FOLDER / f"{peer.name}.log").open("w")
        environment = {"PATH": f"{Path(python).parent}:/usr/bin:/bin:/usr/local/bin", "HOME": str(FOLDER), "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [python, str(peer.driver)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
            cwd=FOLDER,  # peers leave files behind
        )
        self.imported = self._answer()["seconds"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Missing(f"{self.peer.name}'s driver ended; see {self._log.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise Missing(f"{self.peer.name}: {answer['error']}; see {self._log.name}")
        return answer

    def ask(self, do: str, **job: Any) -> dict[str, Any]:
        """The answer to one request. Raises `Missing` with the peer's own words if it failed."""
        assert self._process.stdin is not None
        print(json.dumps({"do": do, **job}), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        self._log.close()
