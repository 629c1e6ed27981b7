"""Play a schedule's moves on in-order engines, in plain Python: the oracle of `model/timing`."""

from __future__ import annotations

import math
from typing import Any

from kpu_jax.program.isa import QUEUE, Engine
from kpu_jax.program.moves import Move
from kpu_jax.program.schedule import Schedule


def play(schedule: Schedule, rates: Any) -> float:
    """Makespan [fabric cycles] of the schedule; `rates` are `engines.Rates` of Python floats.

    Every move starts when the moves that it needs are complete and its engine has finished the one before.
    """
    free = dict.fromkeys(QUEUE, 0.0)
    done: list[float] = []
    for move in schedule:
        queue = QUEUE[move.engine]
        start = max([free[queue], *(done[i] for i, _ in move.needs)])
        hold, delay = _duration(move, schedule, rates)
        free[queue] = start + hold
        done.append(start + hold + delay)
    return max(done)


def _duration(move: Move, schedule: Schedule, rates: Any) -> tuple[float, float]:
    """(cycles that the engine is held, cycles from then to completion)."""
    if move.engine == Engine.FABRIC:
        if schedule.blocks.kind == 2:
            return move.stream * rates.element, 0.0
        if rates.overlap:
            return move.stream * rates.stream, rates.fill_drain
        return move.stream * rates.stream + rates.fill_drain, 0.0
    gang = getattr(rates, move.engine.name.lower())
    lanes = move.bias_lanes * rates.bias + move.activation_lanes * rates.activation
    time = math.ceil(math.ceil(move.burst_bytes / gang.engines) / gang.bus) * gang.cycles
    return max(time, move.burst_bytes / gang.limit, lanes), gang.latency
