"""Grids of values for an axis of a space: {start, stop, num} or {start, stop, step}, evenly spaced or by a constant factor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, check_choice, check_number, nearest, shown

ENTRIES = ("start", "stop", "num", "step", "scale")
MOST = 1_000_000  # values of one axis
SLACK = 1e-9  # of a step: by how much rounding may pass `stop`


def grid_values(grid: Mapping[str, Any]) -> list[float]:
    """The values of a grid, ends included.

    `num`: how many values from `start` to `stop`. `step`: what leads from one to the next, added on the "linear"
    scale (default), multiplied on the "log" one; the last value is at most `stop`. Raises `KPUError` naming the entry.
    """
    for key in grid:
        if key not in ENTRIES:
            raise KPUError(f"grid: unknown entry {shown(key)}: {nearest(key, ENTRIES)}")
    if {"start", "stop"} - set(grid) or ("num" in grid) == ("step" in grid):
        raise KPUError(f"a grid needs start, stop and one of num or step, got {shown(dict(grid))}")
    log = check_choice("scale", grid.get("scale", "linear"), ("linear", "log")) == "log"
    start = check_number("start", grid["start"], "of the field", low_open=log)
    stop = check_number("stop", grid["stop"], "of the field", low=start)
    if "num" in grid:
        num = int(check_number("num", grid["num"], "values", low=1 if start == stop else 2, high=MOST, integer=True))
        values: np.ndarray = np.geomspace(start, stop, num) if log else np.linspace(start, stop, num)
    else:
        step = check_number("step", grid["step"], "factor" if log else "of the field", low=1 if log else 0, low_open=True)
        span = math.log(stop / start) / math.log(step) if log else (stop - start) / step
        if span >= MOST:
            raise KPUError(f"a grid of more than {MOST} values, got {shown(dict(grid))}: widen the step")
        steps = np.arange(math.floor(span + SLACK) + 1)
        values = start * step**steps if log else start + step * steps
    return [_whole(float(value)) for value in values]


def _whole(value: float) -> float:
    """The integer that rounding missed, so that a grid 8, 16, 32 serves fields that count."""
    return float(round(value)) if abs(value - round(value)) <= 1e-12 * abs(value) else value
