"""Exact times of many schedules at once: lanes that take up the next schedule when theirs is done.

Schedules differ in length by orders of magnitude; a plain vmap would run all of them as long as the longest.
Host NumPy in and out; the loop over lanes is compiled once for each number of lanes.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.compilation import BATCH, ONCE, jit_for
from kpu_jax.model.bound import fill_drain
from kpu_jax.model.evaluate import floats, rate_of
from kpu_jax.model.exact import begin_walk, end_walk, step_walk
from kpu_jax.model.moves import Context, context
from kpu_jax.model.rates import rates_of

LANES = 256
STRIDE = 128  # steps between two looks at which lanes are done


def _context(cfg: Any, op: Any, mapping: Any) -> Context:
    cfg, op, mapping = floats(cfg), floats(op), floats(mapping)
    array = cfg.compute.processor_array
    rates = rates_of(cfg, op, fill_drain(op, mapping.dataflow, array.rows, array.cols))
    return context(op, mapping, rates, array.rows, array.cols, rate_of(cfg, op), cfg.buses.burst_bytes)


def _run(problem: Any, walk: Any, fresh: Any) -> tuple[Any, Any, Any]:
    """(walk, done, makespan) of one lane after `STRIDE` further steps, from the start where `fresh`."""
    c = _context(*problem)
    start = begin_walk(c)
    walk = jax.tree.map(lambda a, b: jnp.where(fresh, a, b), start, walk)

    def body(state: Any) -> Any:
        count, w = state
        return count + 1, step_walk(c, w)

    _, walk = jax.lax.while_loop(lambda s: ~s[1].done & (s[0] < STRIDE), body, (0, walk))
    return walk, walk.done, end_walk(c, walk)


_run_lanes = jit_for(BATCH)(lambda p, w, f: jax.vmap(_run)(p, w, f))
_run_lane = jit_for(ONCE)(lambda p, w, f: jax.vmap(_run)(p, w, f))


def exact_cycles_of(cfg: Any, ops: Any, mappings: Any) -> np.ndarray:
    """Exact makespans [schedule] in fabric cycles, float64.

    Each argument is a pytree of NumPy leaves [schedule]. All schedules must be legal; check before.
    """
    problems = jax.tree.map(lambda v: np.asarray(v, np.float64), (cfg, ops, mappings))
    total = len(jax.tree.leaves(problems)[0])
    if total == 0:
        return np.zeros(0)
    lanes = 1 if total == 1 else LANES
    run = _run_lane if lanes == 1 else _run_lanes
    result = np.zeros(total)
    task = np.full(lanes, -1)  # which schedule each lane works on
    fresh = np.zeros(lanes, bool)
    waiting = iter(range(total))
    with jax.enable_x64(True):
        walk: Any = None
        while True:
            for lane in np.flatnonzero(task < 0):
                task[lane] = next(waiting, -1)
                fresh[lane] = True
            if (task < 0).all():
                return result
            picked = jax.tree.map(lambda v: v[np.maximum(task, 0)], problems)
            if walk is None:
                shape = jax.eval_shape(jax.vmap(lambda p: begin_walk(_context(*p))), picked)
                walk = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shape)
            # A lane without a task repeats the first one's start; its result is not read.
            idle = task < 0
            walk, done, cycles = run(picked, walk, fresh | idle)
            done, cycles = np.asarray(done), np.asarray(cycles)
            finished = done & ~idle
            result[task[finished]] = cycles[finished]
            task[finished] = -1
            fresh[:] = False
