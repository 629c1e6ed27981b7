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
from kpu_jax.model.exact import Arrival, Walk, arrival, begin_walk, end_walk, step_walk
from kpu_jax.model.moves import Context, context
from kpu_jax.model.rates import rates_of

LANES = 256
STRIDE = 128  # steps between two looks at which lanes are done


def _context(cfg: Any, op: Any, mapping: Any) -> Context:
    cfg, op, mapping = floats(cfg), floats(op), floats(mapping)
    array = cfg.compute.processor_array
    rates = rates_of(cfg, op, fill_drain(op, mapping.dataflow, array.rows, array.cols))
    return context(op, mapping, rates, array.rows, array.cols, rate_of(cfg, op), cfg.buses.burst_bytes)


def _begin(problem: Any) -> tuple[Walk, Arrival]:
    walk = begin_walk(_context(*problem))
    return walk, arrival(walk)


def _run(problems: Any, state: Any, fresh: Any) -> tuple[Any, Any, Any]:
    """(state, done, makespan) of every lane after `STRIDE` further steps, from the start where `fresh`.

    Lanes that are done walk on, and only where they arrived is kept: choosing between old and new for a
    whole walk, as a vmapped while loop does, costs more than the step.
    """
    c = jax.vmap(lambda p: _context(*p))(problems)

    def where(mask: Any, new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(mask.reshape((-1,) + (1,) * (a.ndim - 1)), a, b), new, old)

    state = where(fresh, jax.vmap(_begin)(problems), state)

    def body(carry: Any) -> Any:
        count, walk, arrived = carry
        on = jax.vmap(step_walk)(c, walk)
        return count + 1, on, where(on.done & ~walk.done, arrival(on), arrived)

    def goes_on(carry: Any) -> Any:
        return (carry[0] < STRIDE) & ~jnp.all(carry[1].done)

    _, walk, arrived = jax.lax.while_loop(goes_on, body, (0, *state))
    return (walk, arrived), walk.done, jax.vmap(end_walk)(c, arrived)


_run_lanes = jit_for(BATCH, donate_argnums=1)(_run)
_run_lane = jit_for(ONCE, donate_argnums=1)(lambda problems, state, fresh: _run(problems, state, fresh))


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
        state: Any = None
        while True:
            for lane in np.flatnonzero(task < 0):
                task[lane] = next(waiting, -1)
                fresh[lane] = True
            if (task < 0).all():
                return result
            picked = jax.tree.map(lambda v: v[np.maximum(task, 0)], problems)
            if state is None:
                shape = jax.eval_shape(jax.vmap(_begin), picked)
                state = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)
            idle = task < 0  # their walks are not read
            state, done, cycles = run(picked, state, fresh)
            done = np.asarray(done)
            cycles = np.asarray(cycles)
            finished = done & ~idle
            result[task[finished]] = cycles[finished]
            task[finished] = -1
            fresh[:] = False
