"""Exact times of many schedules at once: lanes that take up the next schedule when theirs is done.

Schedules differ in length by orders of magnitude; a plain vmap would run all of them as long as the longest.
Host NumPy in and out; the loop over lanes is compiled once for each number of lanes.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.compilation import ONCE_LOOP, jit_for
from kpu_jax.engines.rates import rates_of
from kpu_jax.hardware import preset
from kpu_jax.mapping import Mapping
from kpu_jax.model.evaluate import floats, rate_of
from kpu_jax.model.exact import Arrival, Walk, arrival, begin_walk, end_walk, exact_cycles, step_walk
from kpu_jax.model.leaps import ALIKE_PAIRS
from kpu_jax.model.moves import Context, context
from kpu_jax.workload import Gemm

STRIDE = 32  # steps between two looks at which lanes are done
LANES = 64  # of a worker on a CPU: the longest schedules decide for fewer, caches for more
ACCELERATOR_LANES = 4096


def _context(cfg: Any, op: Any, mapping: Any) -> Context:
    cfg, op, mapping = floats(cfg), floats(op), floats(mapping)
    array = cfg.compute.processor_array
    rates = rates_of(cfg, op, mapping.dataflow)
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


@jit_for(ONCE_LOOP)
def _alone(cfg: Any, op: Any, mapping: Any) -> Any:
    return exact_cycles(_context(cfg, op, mapping))[0]


_COMPILING = threading.Lock()


@functools.cache
def _compiled(lanes: int) -> Any:
    """The compiled loop over `lanes` schedules (0: one schedule alone), for float64 leaves."""
    with jax.enable_x64(True):
        shape = jax.ShapeDtypeStruct((lanes,) if lanes else (), np.float64)
        problems = jax.tree.map(lambda _: shape, (preset("minimal"), Gemm(1, 1, 1).plain(), Mapping(l3_tile=(1, 1, 1), l2_tile=(1, 1, 1))))
        if not lanes:
            return _alone.lower(*problems).compile()
        state = jax.eval_shape(jax.vmap(_begin), problems)
        fresh = jax.ShapeDtypeStruct((lanes,), bool)
        return jax.jit(_run, donate_argnums=1).lower(problems, state, fresh).compile()


def _loop(lanes: int) -> Any:
    with _COMPILING:  # compiled once, whichever thread asks first
        return _compiled(lanes)


def _lanes() -> int:
    return LANES if jax.default_backend() == "cpu" else ACCELERATOR_LANES


def exact_cycles_of(cfg: Any, ops: Any, mappings: Any) -> np.ndarray:
    """Exact makespans [schedule] in fabric cycles, float64.

    Each argument is a pytree of NumPy leaves [schedule]. All schedules must be legal; check before.
    """
    problems = jax.tree.map(lambda v: np.asarray(v, np.float64), (cfg, ops, mappings))
    total = len(jax.tree.leaves(problems)[0])
    if total == 1:
        with jax.enable_x64(True):
            return np.asarray(_loop(0)(*jax.tree.map(lambda v: v[0], problems)))[None]
    result = np.zeros(total)
    longest_first = iter(np.argsort(-_rough_steps(*problems), kind="stable").tolist())
    on_cpu = jax.default_backend() == "cpu"
    lanes = _lanes()
    workers = min(os.cpu_count() or 1, 8, -(-total // lanes)) if on_cpu else 1
    with ThreadPoolExecutor(max(workers, 1)) as pool:  # compiled code runs outside of Python's lock
        for worker in [pool.submit(_work, problems, longest_first, lanes, result) for _ in range(workers)]:
            worker.result()
    return result


def _work(problems: Any, waiting: Iterator[int], lanes: int, result: np.ndarray) -> None:
    """Time schedules from the queue `waiting` until there are none left."""
    task = np.full(lanes, -1)  # which schedule each lane works on
    fresh = np.zeros(lanes, bool)
    state: Any = None
    run = _loop(lanes)
    with jax.enable_x64(True):
        while True:
            for lane in np.flatnonzero(task < 0):
                task[lane] = next(waiting, -1)
                fresh[lane] = True
            if (task < 0).all():
                return
            picked = jax.tree.map(lambda v: v[np.maximum(task, 0)], problems)
            if state is None:
                state = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), jax.eval_shape(jax.vmap(_begin), picked))
            state, done, cycles = run(picked, state, fresh)
            finished = np.asarray(done) & (task >= 0)  # the walks of idle lanes are not read
            result[task[finished]] = np.asarray(cycles)[finished]
            task[finished] = -1
            fresh[:] = False


def _rough_steps(cfg: Any, op: Any, mapping: Any) -> np.ndarray:
    """About how many steps a walk takes; only the order in which schedules start depends on it."""
    steps = np.minimum(op.batch, ALIKE_PAIRS + 1)
    array = cfg.compute.processor_array
    for axis in "mnk":
        size, tile = getattr(op, axis), np.minimum(getattr(mapping, f"l3_{axis}"), getattr(op, axis))
        share = tile / getattr(mapping, f"partition_{axis}")
        block = np.minimum(getattr(mapping, f"l2_{axis}"), share)
        streams = mapping.dataflow == "knm".index(axis)
        passes = np.where(streams, 1, block / np.where(axis == "n", array.cols, array.rows))
        for trips in (size / tile, share / block, passes):
            steps = steps * np.clip(np.ceil(trips), 1, ALIKE_PAIRS + 1)
    return steps
