"""A second, independent way to run a program: engines with queues, and a clock that jumps to the next event.

Unlike the executor, it never computes a completion from formulas over earlier ones: an engine starts the head of its
queue when it is free and nothing that the instruction needs is outstanding.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

START = 2  # kind of need: only started


def simulate_events(program: Any, duration: Callable[[int], tuple[Any, Any]]) -> list[tuple[Any, Any, Any]]:
    """(start, engine free again, complete) of every instruction, in order.

    `duration(i)`: (cycles held, cycles from then to completion) of instruction i.
    """
    queue_of = program.queue.tolist()
    queues: dict[int, deque[int]] = defaultdict(deque)
    outstanding: list[int] = []
    waiting: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for number, (needs, kinds) in enumerate(zip(program.needs.tolist(), program.need_kind.tolist(), strict=True)):
        queues[queue_of[number]].append(number)
        pairs = [(need, kind == START) for need, kind in zip(needs, kinds, strict=True) if need >= 0]
        outstanding.append(len(pairs))
        for pair in pairs:
            waiting[pair].append(number)
    busy = dict.fromkeys(queues, False)
    times: list[tuple[Any, Any, Any]] = [(0, 0, 0)] * len(queue_of)
    events: list[tuple[Any, int, str]] = []  # (time, instruction, "free" or "complete")

    def release(numbers: Iterable[int]) -> None:
        for later in numbers:
            outstanding[later] -= 1

    now = 0
    while True:
        started = True
        while started:  # a start may be what another queue's head waits for
            started = False
            for name, queue in queues.items():
                while queue and not busy[name] and not outstanding[queue[0]]:
                    number = queue.popleft()
                    hold, delay = duration(number)
                    times[number] = (now, now + hold, now + hold + delay)
                    busy[name] = started = True
                    heapq.heappush(events, (now + hold, number, "free"))
                    heapq.heappush(events, (now + hold + delay, number, "complete"))
                    release(waiting[number, True])
        if not events:
            break
        now, number, kind = heapq.heappop(events)
        if kind == "free":
            busy[queue_of[number]] = False
        else:
            release(waiting[number, False])
    assert not any(queues.values()), "instructions that wait for each other"
    return times
