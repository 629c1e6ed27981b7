"""One sweep on several processes or machines, through JAX's own runtime."""

from __future__ import annotations

import io
import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kpu_jax.base.errors import KPUError, check_number

START_SECONDS = 60  # until every process must have come
SILENT_SECONDS = 20  # after which a process counts as lost

Arrays = dict[str, np.ndarray]


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Join the other processes of a sweep, before JAX is used for anything.

    `coordinator`: address:port of process 0, with the number of `processes` and which `process` this is. Without them:
    as SLURM says if it started several tasks, else this process is alone. Raises `KPUError` for arguments that do
    not belong together and if the others do not come in time.
    """
    given = (coordinator, processes, process)
    alone = all(v is None for v in given)
    if alone and int(os.environ.get("SLURM_NTASKS", "1")) < 2:
        return
    if not alone:
        if any(v is None for v in given):
            raise KPUError("--coordinator, --processes and --process belong together: give all three or none")
        count = int(check_number("processes", processes, "processes", low=1, integer=True))
        check_number("process", process, "number of this process", high=count - 1, integer=True)
    try:
        jax.distributed.initialize(
            coordinator, processes, process, initialization_timeout=START_SECONDS, heartbeat_timeout_seconds=SILENT_SECONDS
        )
        multihost_utils.process_allgather(np.zeros(1))  # the first exchange gives up on a process that is half a minute late
    except (RuntimeError, ValueError) as error:
        raise KPUError(f"the processes did not come together at {coordinator or 'the address of SLURM'}: {error!s:.200}") from None


class Processes:
    """Those that JAX's runtime has brought together; one alone without it."""

    def __init__(self) -> None:
        self.count, self.this = jax.process_count(), jax.process_index()

    def gather(self, arrays: Arrays) -> list[Arrays]:
        """What every process gives, in their order, on all of them. `KPUError` if one was lost."""
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
        except RuntimeError as error:
            raise KPUError(
                f"another process was lost ({str(error).splitlines()[0]:.120}); with a results folder, start all of them again to go on"
            ) from None


def _arrays(data: bytes) -> Arrays:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}
