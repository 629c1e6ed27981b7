"""A process among several runs as a child, whose parent puts its end into words.

When one process of a job is lost, JAX's runtime aborts all others, with pages of its own log and no way for Python to
hear of it first. So each is the child of a process that only waits: its parent names the lost one in a line, and says
what is kept and how to go on.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kpu_jax.base.errors import KPUError

AGAIN = 75  # exit status: EX_TEMPFAIL of sysexits.h, the same command may succeed when it is run again
EXPLAINED = (0, 2, AGAIN, 130)  # with which a child has said itself why it ended
CHILD = "KPU_JAX_WATCHED"  # environment of a child: descriptors of its parent's pipe, output and errors
# How JAX's runtime names the processes that were lost; what it calls the leader is process 0.
NAMED = (r"unhealthy[^\n]*\n((?:\d+\n)+)", r"Task (\d+) heartbeat", r"/task:(\d+)")
LEADER_LOST = "Failed to send RPC to coordination service"


class ProcessLostError(KPUError):
    """A process of a sweep was lost; the message says which, what is kept and how to go on."""


def is_watched() -> bool:
    """Is this process a child of `watch`?"""
    return CHILD in os.environ


def watch(command: Sequence[str], store: str | Path | None) -> int:
    """Run `command`, which must call `report_to_parent`, as a child in this terminal; returns its exit status.

    Raises `ProcessLostError` if a signal ended it, or JAX's runtime because another process was lost. `store`: the
    folder of results that the message names. The child ends with this process, whatever ends this one.
    """
    pipe, held = os.pipe()
    streams = (pipe, os.dup(1), os.dup(2))
    try:
        with tempfile.TemporaryFile() as log:  # what the libraries below Python print
            environment = {**os.environ, CHILD: ",".join(map(str, streams))}
            child = subprocess.Popen(command, stdout=log, stderr=log, pass_fds=streams, env=environment)
            try:
                status = child.wait()
            except KeyboardInterrupt:  # the terminal has interrupted the child, too
                status = child.wait()
            log.seek(0)
            text = log.read().decode(errors="replace")
    finally:
        for descriptor in (*streams, held):
            os.close(descriptor)
    if status in EXPLAINED:
        return status
    if "RegisterTask" in text:
        raise ProcessLostError(f"the other processes did not come in time. {what_is_kept(store)}")
    lost = lost_processes(text)
    if status < 0 and not lost:
        raise ProcessLostError(f"this process was ended by {signal.Signals(-status).name}. {what_is_kept(store)}")
    if lost:
        who = f"process {', '.join(lost)} was lost" if lost != ["?"] else "another process was lost"
        raise ProcessLostError(f"{who}: killed, cut off, or ended by an error of its own. {what_is_kept(store)}")
    sys.stderr.write(text)
    return status


def report_to_parent() -> None:
    """In a child of `watch`: print to the parent's terminal, and end when the parent does. Elsewhere: nothing."""
    if not is_watched():
        return
    pipe, out, errors = map(int, os.environ[CHILD].split(","))
    sys.stdout, sys.stderr = os.fdopen(out, "w"), os.fdopen(errors, "w", buffering=1)

    def end_with_parent() -> Any:
        os.read(pipe, 1)  # nothing is ever written: it returns when the parent's end closes
        os._exit(AGAIN)

    threading.Thread(target=end_with_parent, daemon=True).start()


def lost_processes(log: str) -> list[str]:
    """The numbers of the processes that JAX's runtime reports as lost; `?` for one that it does not name."""
    named = [number for pattern in NAMED for found in re.findall(pattern, log) for number in found.split()]
    if LEADER_LOST in log and not named:
        return ["0"]
    unnamed = ["?"] if "JAX distributed service detected fatal errors" in log else []
    return sorted(set(named), key=int) or unnamed


def what_is_kept(store: str | Path | None) -> str:
    """What a sweep that ended early leaves, and how to go on."""
    if store is None:
        return "Nothing is kept without a results folder (--store): name one, and the same command goes on from there next time"
    return f"Every finished part is kept in {store}: start all processes again with the same command, and it goes on from there"
