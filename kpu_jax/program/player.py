"""Play a schedule's moves on in-order engines, in plain Python: the oracle of `model/timing`."""

from __future__ import annotations

import math
from typing import Any

from kpu_jax.program.schedule import Move, Schedule


def play(schedule: Schedule, rates: Any) -> float:
    """Makespan [fabric cycles] of the schedule; `rates` are `engines.Rates` of Python floats.

    Every move starts when the moves that it needs are complete and its engine has finished the one before.
    """
    free = dict.fromkeys(("dma", "block_mover", "streamer", "fabric"), 0.0)
    done: list[float] = []
    for move in schedule.moves:
        queue = "dma" if move.engine == "host" else move.engine  # a host transfer holds the memory channels
        start = max([free[queue], *(done[i] for i in move.needs)])
        hold, delay = _duration(move, schedule, rates)
        free[queue] = start + hold
        done.append(start + hold + delay)
    return max(done)


def _duration(move: Move, schedule: Schedule, rates: Any) -> tuple[float, float]:
    """(cycles that the engine is held, cycles from then to completion)."""
    if move.engine == "fabric":
        if schedule.blocks.kind == 2:
            return move.stream * rates.element, 0.0
        if rates.overlap:
            return move.stream * rates.stream, rates.fill_drain
        return move.stream * rates.stream + rates.fill_drain, 0.0
    gang = getattr(rates, move.engine)
    lanes = move.bias_lanes * rates.bias + move.activation_lanes * rates.activation
    sizes = [move.gang_bytes, *move.stages]
    hold = 0.0
    for i, size in enumerate(sizes):
        time = math.ceil(math.ceil(size / gang.engines) / gang.bus) * gang.cycles
        time = max(time, size / gang.limit)
        if i == len(sizes) - 1:
            time = max(time, lanes)
        hold += time + (gang.latency if i else 0.0)
    return hold, gang.latency
