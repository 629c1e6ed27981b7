"""One sweep on several processes or machines, through JAX's own runtime."""

from __future__ import annotations

import atexit
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kpu_jax.base.errors import KPUError, check_number
from kpu_jax.explore.watched import ProcessLostError, is_watched, what_is_kept

START_SECONDS = 60  # until every process must have come
SILENT_SECONDS = 40  # after which a process counts as lost; a busy machine was seen to be silent for 20

Arrays = dict[str, np.ndarray]


def several(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> bool:
    """Do these arguments of `join`, or SLURM, name several processes? `KPUError` for arguments that do not belong together."""
    given = (coordinator, processes, process)
    if all(v is None for v in given):
        return int(os.environ.get("SLURM_NTASKS", "1")) > 1
    if any(v is None for v in given):
        raise KPUError("--coordinator, --processes and --process belong together: give all three or none")
    count = int(check_number("processes", processes, "processes", low=1, integer=True))
    check_number("process", process, "number of this process", high=count - 1, integer=True)
    return True


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Join the other processes of a sweep, before JAX is used for anything.

    `coordinator`: address:port of process 0, with the number of `processes` and which `process` this is. Without them:
    as SLURM says if it started several tasks, else this process is alone. Raises `KPUError` for arguments that do
    not belong together and if the others do not come in time. See `watched` for what happens when one is lost.
    """
    if not several(coordinator, processes, process):
        return
    try:
        jax.distributed.initialize(
            coordinator, processes, process, initialization_timeout=START_SECONDS, heartbeat_timeout_seconds=SILENT_SECONDS
        )
        multihost_utils.process_allgather(np.zeros(1))  # the first exchange gives up on a process that is half a minute late
    except (RuntimeError, ValueError) as error:
        raise KPUError(f"the processes did not come together at {coordinator or 'the address of SLURM'}: {error!s:.200}") from None
    atexit.register(lambda: leave(1) if hasattr(sys, "last_value") else None)  # after an error that nobody caught


def leave(status: int) -> int:
    """`status`, for `sys.exit`; among several processes it ends this one now: JAX's farewell would wait for the others."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


class Processes:
    """Those that JAX's runtime has brought together; one alone without it."""

    def __init__(self, store: str | Path | None = None) -> None:
        """`store`: the folder of results, for the message when a process is lost."""
        self.count, self.this, self.store = jax.process_count(), jax.process_index(), store

    def agree(self, description: dict[str, Any]) -> None:
        """Raises `KPUError` on all processes if they were not started with the same `description` (of plain values).

        The first meeting must not be late: the processes find each other in it, and wait for a minute only. Later
        ones may be hours apart.
        """
        text = json.dumps(description, sort_keys=True)
        given = [json.loads(a["text"].tobytes()) for a in self.gather({"text": np.frombuffer(text.encode(), np.uint8)})]
        for number, other in enumerate(given):
            differing = [key for key in given[0] if other.get(key) != given[0][key]]
            if differing:
                raise KPUError(f"process {number} was given another sweep than process 0: its {', '.join(differing)} differ")

    def gather(self, arrays: Arrays) -> list[Arrays]:
        """What every process gives, in their order, on all of them. `ProcessLostError` if one was lost."""
        if self.count == 1:
            return [arrays]
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        data = np.frombuffer(buffer.getvalue(), np.uint8)
        sizes = self._all(np.array([len(data)], np.int32))[:, 0]
        padded = np.zeros(int(sizes.max()), np.uint8)
        padded[: len(data)] = data
        rows = self._all(padded)
        return [_arrays(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]

    def _all(self, values: np.ndarray) -> Any:
        try:
            return np.asarray(multihost_utils.process_allgather(values)).reshape(self.count, -1)
        except (RuntimeError, ValueError) as error:
            if is_watched():  # JAX's runtime soon knows which, and ends this process
                time.sleep(2 * SILENT_SECONDS)
            raise ProcessLostError(f"another process was lost ({str(error).splitlines()[0]:.120}). {what_is_kept(self.store)}") from None


def _arrays(data: bytes) -> Arrays:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}
