"""What the executor reports: times of every instruction, and the idle intervals of every engine with their reasons."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import jax
import numpy as np

from kpu_jax.base.tables import Row, Sheet
from kpu_jax.program.isa import Engine


class Wait(IntEnum):
    """Why an engine is idle."""

    NONE = 0
    OPERAND = 1  # data that the next instruction reads are not there
    BUFFER = 2  # the place that the next instruction writes is not free
    ENGINE = 3  # another engine is not ready: one whose start is awaited, or the vector engine on the drain
    BANDWIDTH = 4  # memory channels: held by a transfer to or from the host, or slower than the engine itself
    FINISHED = 5  # nothing left to do


class Idle(NamedTuple):
    """Idle intervals [interval], by queue and time. Busy and idle time of a queue's engine add up to the makespan."""

    engine: Any  # isa.Engine
    queue: Any  # which of the engine's queues, numbered
    start: Any  # [cycles]
    length: Any  # [cycles], greater than 0
    reason: Any  # Wait
    instruction: Any  # that ends the interval, or in whose hold it lies; -1 for FINISHED


class Timeline(NamedTuple):
    """Times in fabric cycles; leaves are arrays with one entry per instruction unless said otherwise."""

    start: Any
    end: Any  # of the hold: the engine is free for the next one
    done: Any  # complete: after the engine's latency, or the fabric's fill and drain
    wait: Any  # how long the queue was idle before the start
    wait_reason: Any  # Wait
    stall: Any  # the part of the hold, its end, in which the engine itself does not work
    stall_reason: Any  # Wait
    busy: Any  # [isa.Engine] cycles in which engines work, all queues of a class together
    makespan: Any  # []
    engine: Any  # isa.Engine
    queue: Any  # numbered

    def __repr__(self) -> str:
        if not self._is_one_run():
            return f"Timeline (traced or stacked, start of shape {np.shape(self.start)})"
        return f"Timeline of {len(self.start):,} instructions, {self.makespan:,.10g} fabric cycles"

    def __str__(self) -> str:
        return self.sheet().text()

    def _repr_html_(self) -> str:
        return self.sheet().html()

    def sheet(self) -> Sheet:
        """What prints: makespan, and busy and idle cycles of every engine class by reason."""
        return Sheet(repr(self), {"cycles busy, and idle by what was waited for:": self.rows()} if self._is_one_run() else {})

    def rows(self) -> list[Row]:
        """One dict per engine class: its busy cycles, and its idle ones by what it waits for."""
        idle, busy = self.idle_by_reason(), self.busy_by_engine()
        reasons = [reason.name.lower() for reason in Wait if any(reason.name.lower() in row for row in idle.values())]
        columns = {reason: "another engine" if reason == "engine" else reason for reason in reasons}
        return [
            {"engine": x, "busy": busy[x], **{name: idle.get(x, {}).get(reason, 0.0) for reason, name in columns.items()}}
            for x in busy if busy[x] or x in idle
        ]  # fmt: skip

    def _is_one_run(self) -> bool:
        """Concrete times of one program, not traced and not a batch."""
        return all(isinstance(leaf, (np.ndarray, np.generic)) for leaf in self) and np.ndim(self.makespan) == 0

    def first_rows(self, n: int) -> Timeline:
        """The first n instructions, as NumPy arrays (float64)."""
        whole = {"busy", "makespan"}
        fields = {name: np.asarray(leaf) for name, leaf in self._asdict().items()}
        return Timeline(**{name: leaf[()] if name in whole else leaf[:n] for name, leaf in fields.items()})

    def busy_by_engine(self) -> dict[str, float]:
        """Engine class -> cycles in which it works."""
        return {engine.name.lower(): float(self.busy[engine]) for engine in Engine if engine != Engine.CONTROL}

    def idle(self) -> Idle:
        """Every idle interval of every engine with its reason. Host only."""
        parts = [self._idle_of(engine, queue) for engine, queue in sorted(set(zip(self.engine.tolist(), self.queue.tolist(), strict=True)))]
        parts = [part for part in parts if part.engine.size and part.engine[0] != Engine.CONTROL]
        if not parts:
            return Idle(*[np.zeros(0, np.int64)] * 3, *[np.zeros(0, np.int64)] * 3)
        return jax.tree.map(lambda *v: np.concatenate(v), *parts)

    def idle_by_reason(self) -> dict[str, dict[str, float]]:
        """Engine class -> reason -> cycles, reasons that occur."""
        idle = self.idle()
        table: dict[str, dict[str, float]] = {}
        for engine, reason in sorted(set(zip(idle.engine.tolist(), idle.reason.tolist(), strict=True))):
            cycles = idle.length[(idle.engine == engine) & (idle.reason == reason)].sum()
            table.setdefault(Engine(engine).name.lower(), {})[Wait(reason).name.lower()] = float(cycles)
        return table

    def _idle_of(self, engine: int, queue: int) -> Idle:
        """Of one engine on one queue: gaps, what others hold of the queue, stalls, and the time after all is done."""
        rows = np.flatnonzero(self.queue == queue)
        own = self.engine[rows] == engine
        end = self.end[rows]
        begin = np.concatenate([
            self.start[rows] - self.wait[rows],
            np.where(own, end - self.stall[rows], self.start[rows]),
            end[-1:],
        ])  # fmt: skip
        length = np.concatenate([
            self.wait[rows],
            np.where(own, self.stall[rows], end - self.start[rows]),
            self.makespan - end[-1:],
        ])  # fmt: skip
        reason = np.concatenate([
            self.wait_reason[rows],
            np.where(own, self.stall_reason[rows], Wait.BANDWIDTH.value),
            [Wait.FINISHED.value],
        ])  # fmt: skip
        instruction = np.concatenate([rows, rows, [-1]])
        order = np.argsort(begin, kind="stable")
        order = order[length[order] > 0]
        full = np.full(len(order), 1)
        return Idle(full * engine, full * queue, begin[order], length[order], reason[order], instruction[order])
