"""A second, independent way to play a schedule: engines with queues, and a clock that jumps to the next event.

Unlike `kpu_jax.program.player`, it never computes a completion from formulas over earlier ones: an engine starts the
head of its queue when it is free and nothing that the move needs is outstanding.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable

from kpu_jax.program.moves import Move

SHARED = {"HOST": "DMA"}  # a host transfer holds the memory channels, and so the DMA's queue


def simulate_events(
    moves: list[Move], duration: Callable[[Move], tuple[float, float]]
) -> list[tuple[float, float, float]]:
    """(start, engine free again, complete) of every move, in order; `duration`: (cycles held, cycles from then to completion)."""
    queues: dict[str, deque[int]] = defaultdict(deque)
    outstanding = [len(move.needs) for move in moves]
    waiting: dict[int, list[int]] = defaultdict(list)
    for number, move in enumerate(moves):
        queues[SHARED.get(move.engine.name, move.engine.name)].append(number)
        for need, _ in move.needs:
            waiting[need].append(number)
    busy = dict.fromkeys(queues, False)
    times: list[tuple[float, float, float]] = [(0.0, 0.0, 0.0)] * len(moves)
    events: list[tuple[float, int, str]] = []  # (time, move, "free" or "complete")
    now = 0.0
    while True:
        for engine, queue in queues.items():
            while queue and not busy[engine] and not outstanding[queue[0]]:
                number = queue.popleft()
                hold, delay = duration(moves[number])
                times[number] = (now, now + hold, now + hold + delay)
                busy[engine] = True
                heapq.heappush(events, (now + hold, number, "free"))
                heapq.heappush(events, (now + hold + delay, number, "complete"))
        if not events:
            break
        now, number, kind = heapq.heappop(events)
        if kind == "free":
            engine = moves[number].engine.name
            busy[SHARED.get(engine, engine)] = False
        else:
            for later in waiting[number]:
                outstanding[later] -= 1
    assert not any(queues.values()), "moves that wait for each other"
    return times
