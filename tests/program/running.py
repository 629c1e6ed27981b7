"""Run a program at given rates, where `kpu.program.execute` takes a chip."""

from __future__ import annotations

from typing import Any

import jax

from kpu_jax.program import Program
from kpu_jax.program.durations import durations
from kpu_jax.program.executor import account
from kpu_jax.program.timeline import Timeline
from kpu_jax.program.wiring import wire


@jax.jit
def _account(wiring: Any, rates: Any) -> Timeline:
    return account(wiring, durations(wiring.kinds, rates, wiring.vector))


def run(program: Program, rates: Any) -> Timeline:
    """The timeline of the program on engines of these rates (Python floats), in float64."""
    with jax.enable_x64(True):
        timeline = _account(wire(program), jax.tree.map(float, rates))
    return timeline.first_rows(len(program))
