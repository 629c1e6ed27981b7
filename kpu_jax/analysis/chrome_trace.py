"""A timeline as Trace Event Format JSON, for chrome://tracing and Perfetto (ui.perfetto.dev)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kpu_jax.analysis.run_analysis import check_run
from kpu_jax.base.errors import check_number
from kpu_jax.base.files import file_path
from kpu_jax.base.outputs import write_whole
from kpu_jax.program import Program
from kpu_jax.program.isa import Engine, Opcode, Operand
from kpu_jax.program.timeline import Timeline, Wait


def write_chrome_trace(timeline: Timeline, path: str | Path, *, program: Program | None = None, fabric_mhz: float | None = None) -> None:
    """Write what `kpu.program.execute` returned: engines are threads, instructions complete events ("X"), by start.

    An event lasts as long as its engine is held; its args say when it is complete, how long its queue was idle before
    and why, and which end of the hold the engine did not work in and why [fabric cycles]. The `program` names the
    instructions; without it they bear their engine's name. Times are microseconds at the `fabric_mhz` given, else one
    fabric cycle counts as one. The file appears complete or not at all.

    Raises `KPUError` for what is no concrete timeline, a program of another length, and files that cannot be written.
    """
    file = file_path(path)
    check_run("write_chrome_trace", timeline, program)
    cycle = 1.0 if fabric_mhz is None else 1 / check_number("fabric_mhz", fabric_mhz, "MHz", low_open=True)
    unit = "1 fabric cycle shown as 1 us" if fabric_mhz is None else f"fabric clock {fabric_mhz:g} MHz"
    events = [*_threads(timeline), *_instructions(timeline, program, cycle)]
    whole = {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"time": unit, "makespan_cycles": float(timeline.makespan)}}
    write_whole(file, json.dumps(whole, allow_nan=False) + "\n")


def _threads(timeline: Timeline) -> list[dict[str, Any]]:
    engines = sorted({int(code) for code in timeline.engine} - {Engine.CONTROL.value})
    process = {"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "args": {"name": "KPU"}}
    return [process] + [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": code, "args": {"name": Engine(code).name.lower()}} for code in engines
    ]


def _instructions(timeline: Timeline, program: Program | None, cycle: float) -> list[dict[str, Any]]:
    events = []
    for i in np.argsort(timeline.start, kind="stable"):
        engine = Engine(int(timeline.engine[i]))
        if engine == Engine.CONTROL:  # takes no time
            continue
        args: dict[str, Any] = {"instruction": int(i), "done_cycles": float(timeline.done[i])}
        if timeline.wait[i] > 0:
            args |= {"idle_before_cycles": float(timeline.wait[i]), "idle_for": _cause(timeline.wait_reason[i])}
        if timeline.stall[i] > 0:
            args |= {"stall_cycles": float(timeline.stall[i]), "stall_for": _cause(timeline.stall_reason[i])}
        name = engine.name.lower()
        if program is not None:
            name = Opcode(int(program.opcode[i])).name
            args |= {"operand": Operand(int(program.operand[i])).name, "bytes": float(program.bytes[i])}
        start, length = float(timeline.start[i]) * cycle, float(timeline.end[i] - timeline.start[i]) * cycle
        thread = {"cat": engine.name.lower(), "pid": 0, "tid": engine.value}
        events.append({"ph": "X", "name": name, **thread, "ts": start, "dur": length, "args": args})
    return events


def _cause(reason: Any) -> str:
    return Wait(int(reason)).name.lower()
