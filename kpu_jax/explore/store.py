"""A folder of results of one sweep, in parts that are there whole or not at all.

`sweep.json` says which sweep: its fingerprint and what it was taken of. Each part is one file: the SHA-256 of what
follows, a line end, and arrays as NumPy's `npz`. A part is written to a temporary file, flushed to the disk and
renamed; whatever ends a process, the same sweep finds what was done and does the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, word
from kpu_jax.base.files import file_path
from kpu_jax.explore.space import Space
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES
from kpu_jax.version import __version__
from kpu_jax.workload import Workload

NAME = "sweep.json"
Arrays = dict[str, np.ndarray]


def describe(space: Space, net: Workload, objective: str, limits: dict[str, float], parts: list[int]) -> dict[str, Any]:
    """What the bits of a sweep's results and its `parts` depend on, each entry as a digest or in words."""
    return {
        "version": __version__,
        "jax": f"{jax.__version__} on {jax.default_backend()}",
        "space": _digest([(names, rows) for names, rows in space.geometry + space.speed]),
        "conditions": [each.text for each in space.where],
        "base": _digest(jax.tree.leaves(space.base)),
        "workload": _digest(jax.tree.leaves(net.ops)),
        "objective": objective,
        "constraints": dict(sorted(limits.items())),
        "mappings": _digest(SWEEP_STRATEGIES),
        "parts": _digest(parts),
    }


def _digest(values: Any) -> str:
    leaves, structure = jax.tree.flatten(values)
    digest = hashlib.sha256(str(structure).encode())
    for leaf in leaves:
        digest.update(leaf.encode() if isinstance(leaf, str) else repr(np.shape(leaf)).encode() + np.asarray(leaf, np.float64).tobytes())
    return digest.hexdigest()


class Store:
    """The parts of one sweep in a folder. Several processes may write different parts at once."""

    def __init__(self, folder: str | Path, description: dict[str, Any], writer: int = 0) -> None:
        """Open `folder`, or make it. `writer`: the number of this process.

        Raises `KPUError` if it holds another sweep (naming what differs) or files of something else, or cannot be written.
        """
        self.folder, self.writer = file_path(folder), writer
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            found = [path.name for path in self.folder.iterdir() if not path.name.startswith(".new-")]
        except (OSError, ValueError) as error:
            raise self._refused(error) from None
        if NAME in found:
            self._check(description)
        elif found:
            raise KPUError(f"{self.folder}: holds {found[0]} and no {NAME}: name a new or empty folder")
        else:
            self._write(NAME, json.dumps(description, indent=2).encode() + b"\n")

    def _check(self, description: dict[str, Any]) -> None:
        file = self.folder / NAME
        try:
            stored = json.loads(file.read_bytes())
            if not isinstance(stored, dict):
                raise ValueError
        except OSError as error:
            raise self._refused(error) from None
        except (ValueError, RecursionError):
            raise KPUError(f"{file}: is damaged; name a new folder, or move this one away to begin again") from None
        given = json.loads(json.dumps(description))
        differing = [key for key in {**stored, **given} if stored.get(key) != given.get(key)]
        if differing:
            fields = ", ".join(map(word, differing[:20]))
            raise KPUError(f"{self.folder}: holds another sweep (its {fields} differ); name another folder. Nothing was changed")

    def part(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """A part that is stored, or computed now and stored.

        Raises `KPUError` for a part that is damaged (it stays as it is) and one that cannot be written.
        """
        known = self.read(name)
        if known is not None:
            return known
        arrays = compute()
        self.write(name, arrays)
        return arrays

    def write(self, name: str, arrays: Arrays) -> None:
        """Store a part, whole or not at all; `KPUError` if it cannot be written."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        body = buffer.getvalue()
        self._write(name, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)

    def read(self, name: str) -> Arrays | None:
        """A stored part, or None if it is not there; `KPUError` if it is damaged."""
        file = self.folder / name
        try:
            digest, _, body = file.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KPUError(f"{file}: cannot be read: {error.strerror or error}") from None
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise KPUError(f"{file}: is damaged (its checksum differs); delete this file and run the same sweep to redo it alone")
        try:
            with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
                return {key: arrays[key] for key in arrays.files}
        except (zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, OSError, TypeError, AttributeError, ValueError):
            raise KPUError(f"{file}: is no part of a sweep; delete this file and run the same sweep to redo it alone") from None

    def _write(self, name: str, data: bytes) -> None:
        # A writer's temporary file has one name per part, so a killed run leaves at most one, which the next replaces.
        temporary = self.folder / f".new-{self.writer}-{name}"
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, self.folder / name)
            directory = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise self._refused(error) from None

    def _refused(self, error: Any) -> KPUError:
        reason = getattr(error, "strerror", None) or error
        return KPUError(f"{self.folder}: cannot be written: {reason}. What was stored is kept; the same sweep goes on from there")
