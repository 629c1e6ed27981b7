"""Exact times of many schedules at once: lanes that take up the next schedule when theirs is done.

Schedules differ in length by orders of magnitude; walking all of them as long as the longest would waste most
of the work. `times` is traceable: `jax.vmap` of one time runs in lanes too, however deep the vmaps nest.
`exact_cycles_of` is the same for NumPy leaves on the host.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from kpu_jax.engines.rates import Rates, rates_of
from kpu_jax.hardware import preset
from kpu_jax.mapping import Mapping
from kpu_jax.mapping.rate import rate_of
from kpu_jax.model.exact import Slopes, begin_walk, end_walk, exact_cycles, exact_slopes, step_walk
from kpu_jax.model.moves import Context, context
from kpu_jax.workload import Gemm

Scalar = jax.Array
Along = Callable[["Problem"], Slopes]
STRIDE = 16  # steps between two looks at which lanes are done
LANES = 128  # on a CPU: enough to hide what a step costs besides arithmetic, few enough for the caches
FEW = 16  # lanes for few schedules
ACCELERATOR_LANES = 8192
CHUNK = 1024  # schedules that the host hands over at once
MANY = 5  # steps until a loop repeats, more or less


class Problem(NamedTuple):
    """A schedule to be timed; all leaves of one shape, () or one number per schedule."""

    rates: Rates
    op: Any
    mapping: Any
    rows: Scalar
    cols: Scalar
    rate: Scalar  # MACs per PE and cycle
    burst: Scalar  # [byte]


def problem_of(cfg: Any, op: Any, mapping: Any) -> Problem:
    """The schedule of `op` under `mapping` on `cfg`."""
    array = cfg.compute.processor_array
    return Problem(rates_of(cfg, op, mapping.dataflow), op, mapping, array.rows, array.cols, rate_of(cfg, op), cfg.buses.burst_bytes)


def _context(p: Problem) -> Context:
    return context(p.op, p.mapping, p.rates, p.rows, p.cols, p.rate, p.burst)


@functools.cache
def times(along: Along | None = None) -> Any:
    """`Problem` -> (makespans [fabric cycles], their derivatives `along` [direction, ...]).

    All leaves of the problem have one shape and dtype. Under `jax.vmap` the schedules run in lanes.
    """

    @custom_vmap
    def timed(problem: Problem) -> tuple[Scalar, Scalar]:
        shape = problem.rows.shape
        if not shape:
            c = _context(problem)
            if along is not None:
                return exact_slopes(c, along(problem))
            cycles, _ = exact_cycles(c)
            return cycles, jnp.zeros((0,), cycles.dtype)
        flat = jax.tree.map(lambda v: v.reshape(-1), problem)
        lanes = LANES if jax.default_backend() == "cpu" else ACCELERATOR_LANES
        cycles, slopes = in_lanes(flat, len(flat.rows), lanes, along)
        return cycles.reshape(shape), slopes.reshape((len(slopes), *shape))

    @timed.def_vmap
    def _(size: int, batched: Any, problem: Problem) -> Any:
        full = jax.tree.map(lambda v, b: v if b else jnp.broadcast_to(v, (size, *v.shape)), problem, batched[0])
        cycles, slopes = timed(full)
        return (cycles, jnp.moveaxis(slopes, 0, 1)), (True, True)

    return timed


def in_lanes(problems: Problem, total: Scalar | int, lanes: int, along_of: Along | None = None) -> tuple[Scalar, Scalar]:
    """(makespans [schedule], derivatives [direction, schedule]) of the first `total` problems [schedule]."""
    count = len(problems.rows)
    lanes = min(lanes, count)
    longest_first = -jnp.nan_to_num(_rough_steps(problems), posinf=0.0)
    order = jnp.argsort(jnp.where(jnp.arange(count) < total, longest_first, jnp.inf))

    def assigned(task: Scalar) -> tuple[Context, Slopes | None]:
        picked = jax.tree.map(lambda v: v[order[jnp.minimum(task, count - 1)]], problems)
        return _context(picked), along_of and along_of(picked)

    def body(state: Any) -> Any:
        task, following, fresh, walk, arrived, cycles, slopes = state
        c, along = assigned(task)
        start = begin_walk(c, along)
        # What the last schedule remembered is not wiped: the new one remembers nothing of it.
        memory, blank = walk.memory, None
        walk, arrived = _where(fresh, (start._replace(memory=blank), start.now), (walk._replace(memory=blank), arrived))
        walk = walk._replace(memory=memory, done=walk.done | (task >= total))

        def step(carry: Any) -> Any:
            count, on, last = carry
            further = step_walk(c, on, along)
            # Lanes that are done walk on, and only where they arrived is kept: cheaper than to keep whole walks.
            return count + 1, further, _where(further.done & ~on.done, further.now, last)

        _, walk, arrived = jax.lax.while_loop(lambda s: (s[0] < STRIDE) & ~jnp.all(s[1].done), step, (0, walk, arrived))
        ends, slopes_now = end_walk(c, arrived, along)
        finished = walk.done & (task < total)
        place = jnp.where(finished, order[jnp.minimum(task, count - 1)], count)
        cycles = cycles.at[place].set(ends, mode="drop")
        if along is not None:
            slopes = slopes.at[:, place].set(slopes_now, mode="drop")
        turn = jnp.cumsum(finished)
        task = jnp.where(finished, jnp.minimum(following + turn - 1, total), task)
        return task, jnp.minimum(following + turn[-1], total), finished, walk, arrived, cycles, slopes

    task = jnp.minimum(jnp.arange(lanes), total)
    blank = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), jax.eval_shape(lambda t: begin_walk(*assigned(t)), task))
    directions = 0 if along_of is None else len(blank.now.slopes)
    results = jnp.zeros((1 + directions, count), problems.rows.dtype)
    state = (task, jnp.minimum(lanes, total), task >= 0, blank, blank.now, results[0], results[1:])
    *_, cycles, slopes = jax.lax.while_loop(lambda s: jnp.any(s[0] < total), body, state)
    return cycles, slopes


def _where(mask: Scalar, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(mask, a, b), new, old)  # lanes are the last axis


def _rough_steps(p: Problem) -> Scalar:
    """About how many steps a walk takes; only the order in which schedules start depends on it."""
    op, mapping = p.op, p.mapping
    steps = jnp.minimum(op.batch, MANY)
    for axis in "mnk":
        size, tile = getattr(op, axis), jnp.minimum(getattr(mapping, f"l3_{axis}"), getattr(op, axis))
        share = tile / getattr(mapping, f"partition_{axis}")
        block = jnp.minimum(getattr(mapping, f"l2_{axis}"), share)
        streams = mapping.dataflow == "knm".index(axis)
        passes = jnp.where(streams, 1, block / (p.cols if axis == "n" else p.rows))
        for trips in (size / tile, share / block, passes):
            steps = steps * jnp.clip(jnp.ceil(trips), 1, MANY)
    return steps


@jax.jit
def _alone(cfg: Any, op: Any, mapping: Any) -> Any:
    return exact_cycles(_context(problem_of(cfg, op, mapping)))[0]


def _run(cfg: Any, ops: Any, mappings: Any, total: Any, *, lanes: int) -> Any:
    return in_lanes(problem_of(cfg, ops, mappings), total, lanes)[0]


_COMPILING = threading.Lock()


@functools.cache
def _compiled(chunk: int) -> Any:
    """The compiled loop over `chunk` schedules (0: one schedule alone), for float64 leaves."""
    with jax.enable_x64(True):
        shape = jax.ShapeDtypeStruct((chunk,) if chunk else (), np.float64)
        problems = jax.tree.map(lambda _: shape, (preset("minimal"), Gemm(1, 1, 1).plain(), Mapping(l3_tile=(1, 1, 1), l2_tile=(1, 1, 1))))
        if not chunk:
            return _alone.lower(*problems).compile()
        run = functools.partial(_run, lanes=min(chunk, LANES if jax.default_backend() == "cpu" else ACCELERATOR_LANES))
        return jax.jit(run).lower(*problems, jax.ShapeDtypeStruct((), np.int64)).compile()


def _loop(chunk: int) -> Any:
    with _COMPILING:  # compiled once, whichever thread asks first
        return _compiled(chunk)


def exact_cycles_of(cfg: Any, ops: Any, mappings: Any) -> np.ndarray:
    """Exact makespans [schedule] in fabric cycles, float64.

    Each argument is a pytree of NumPy leaves [schedule]. All schedules must be legal; check before.
    """
    problems = jax.tree.map(lambda v: np.asarray(v, np.float64), (cfg, ops, mappings))
    total = len(jax.tree.leaves(problems)[0])
    if total == 1:
        with jax.enable_x64(True):
            return np.asarray(_loop(0)(*jax.tree.map(lambda v: v[0], problems)))[None]
    chunk = FEW if total <= FEW else CHUNK
    workers = min(os.cpu_count() or 1, 8) if jax.default_backend() == "cpu" else 1
    size = max(1, min(chunk, -(-total // workers)))
    result = np.zeros(total)
    starts = iter(range(0, total, size))
    with ThreadPoolExecutor(workers) as pool:  # compiled code runs outside of Python's lock
        for worker in [pool.submit(_work, problems, starts, size, chunk, result) for _ in range(workers)]:
            worker.result()
    return result


def _work(problems: Any, starts: Iterator[int], size: int, chunk: int, result: np.ndarray) -> None:
    """Time the parts of `size` schedules that begin at `starts` until there are none left."""
    run = _loop(chunk)
    for start in starts:
        part = slice(start, min(start + size, len(result)))
        count = part.stop - start
        padded = jax.tree.map(lambda v: np.pad(v[part], (0, chunk - count), mode="edge"), problems)
        with jax.enable_x64(True):
            result[part] = np.asarray(run(*padded, np.int64(count)))[:count]
