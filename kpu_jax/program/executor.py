"""When every instruction of a program starts and ends on a chip, and why engines are idle in between.

An instruction starts when what it needs is complete (or, for START needs, has started) and its queue has ended the hold
of the instruction before: program order, no arbitration, engines of a class as one gang. That is a recurrence in max
and plus, computed by a scan over the instructions. Exact for durations that are integers or dyadic, in float64; others
to (instructions x 2^-52) relative. In float32 a million additions drift by a percent: use float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.errors import KPUError, is_number, plain, shown
from kpu_jax.base.pytree import is_traced
from kpu_jax.engines.rates import rates_of
from kpu_jax.hardware import KPUConfig, check_config
from kpu_jax.program.durations import Durations, durations
from kpu_jax.program.isa import Engine, Need
from kpu_jax.program.program import Program
from kpu_jax.program.structure import check_chip, trouble
from kpu_jax.program.timeline import Timeline, Wait
from kpu_jax.program.wiring import Wiring, wire


class Times(NamedTuple):
    """[row] of a wiring, in fabric cycles."""

    start: Any
    end: Any  # of the hold: the engine is free
    done: Any  # complete


def _serve(wiring: Wiring, hold: Any, delay: Any) -> tuple[Any, Callable[[Any, Any], tuple[Any, Any, Any]]]:
    """(the state at time 0, (state, row of the wiring) -> (next state, start, completion))."""

    def serve(state: Any, row: Any) -> tuple[Any, Any, Any]:
        reads, writes, kind = row
        start = jnp.max(state.at[reads].get(mode="promise_in_bounds"))
        end = start + hold[kind]
        done = end + delay[kind]
        results = jnp.stack([end, done, start][: writes.shape[-1]])
        return state.at[writes].set(results, mode="promise_in_bounds", unique_indices=True), start, done

    return jnp.zeros(np.shape(wiring.state), jnp.result_type(float)) + 0 * (hold[0] + delay[0]), serve


def starts(wiring: Wiring, hold: Any, delay: Any) -> Any:
    """[row] the start of every instruction; `hold`, `delay` [kind]. Pure: jit, vmap over durations and grad go through."""
    state, serve = _serve(wiring, hold, delay)

    def step(state: Any, row: Any) -> tuple[Any, Any]:
        state, start, _ = serve(state, row)
        return state, start

    return jax.lax.scan(step, state, (wiring.reads, wiring.writes, wiring.kind))[1]


def times(wiring: Wiring, hold: Any, delay: Any) -> Times:
    """Start, end of the hold and completion of every row."""
    start = starts(wiring, hold, delay)
    end = start + hold[wiring.kind]
    return Times(start, end, end + delay[wiring.kind])


def makespan(wiring: Wiring, hold: Any, delay: Any) -> Any:
    """When everything is complete, without keeping the times of the instructions: for batches of chips."""
    state, serve = _serve(wiring, hold, delay)

    def step(carry: Any, row: Any) -> tuple[Any, None]:
        state, _, done = serve(carry[0], row)
        return (state, jnp.maximum(carry[1], done)), None

    return jax.lax.scan(step, (state, state[0]), (wiring.reads, wiring.writes, wiring.kind))[0][1]


def cycles(cfg: Any, op: Any, dataflow: Any, wiring: Wiring) -> Any:
    """Makespan [fabric cycles] on chip `cfg`: pure, for jit, vmap over chips and grad."""
    d = durations(wiring.kinds, rates_of(cfg, op, dataflow), wiring.vector)
    return makespan(wiring, d.hold, d.delay)


def account(wiring: Wiring, d: Durations) -> Timeline:
    """The timeline of a wiring: times, and why engines are idle. Pure, like `starts`; all rows, padding included."""
    t = times(wiring, d.hold, d.delay)
    work = d.work[wiring.kind]
    free = jnp.where(wiring.before >= 0, t.end[wiring.before], 0.0)
    wait = t.start - free
    needed = jnp.where(wiring.need_kind == Need.START, t.start[wiring.needs], t.done[wiring.needs])
    needed = jnp.where(wiring.needs >= 0, needed, -jnp.inf)
    decides = needed >= t.start[:, None]
    reason = jnp.zeros_like(wiring.kind)
    for kind, code in ((Need.START, Wait.ENGINE), (Need.BUFFER, Wait.BUFFER), (Need.OPERAND, Wait.OPERAND)):
        reason = jnp.where(jnp.any(decides & (wiring.need_kind == kind), axis=1), code.value, reason)
    stall = (d.hold - d.work)[wiring.kind]
    by_memory = d.by_memory[wiring.kind]
    busy = jnp.zeros(len(Engine), work.dtype).at[wiring.engine].add(work)
    return Timeline(
        start=t.start,
        end=t.end,
        done=t.done,
        wait=wait,
        wait_reason=jnp.where(wait > 0, reason, Wait.NONE.value),
        stall=stall,
        stall_reason=jnp.where(stall > 0, jnp.where(by_memory, Wait.BANDWIDTH.value, Wait.ENGINE.value), Wait.NONE.value),
        busy=busy,
        makespan=jnp.max(t.done),
        engine=wiring.engine,
        queue=wiring.reads[:, 0],
    )


@jax.jit
def _account(cfg: Any, op: Any, dataflow: Any, wiring: Wiring) -> Timeline:
    return account(wiring, durations(wiring.kinds, rates_of(cfg, op, dataflow), wiring.vector))


_account_durations = jax.jit(account)


def execute(cfg: KPUConfig, program: Program) -> Timeline:
    """Run `program` on chip `cfg`: when each instruction starts and ends, how busy engines are, and why they idle.

    The chip may differ from the one that the program was built for in all that sets durations (clocks, buses,
    bandwidths, engine counts, latencies), but not in its array and its bursts. Computes in float64 on the host's behalf
    and returns NumPy. Raises `KPUError` for arguments of the wrong kind, and with the number and the text of the first
    instruction that cannot be served: numbers that mean nothing, needs that come later, engines that the chip lacks.
    Whether blocks are there when they are read, and room for them, only `check_program` looks at: it follows them one by one.
    """
    check_config(cfg)
    if is_traced(cfg, program) or np.ndim(cfg.compute.tile_count):
        raise KPUError("execute takes one concrete chip; under jit, vmap or grad use kpu.program.cycles on kpu.program.wire(program)")
    wiring = wire(program)
    check_chip(cfg, program)
    cfg = jax.tree.map(lambda v: np.asarray(v, np.float64), cfg)
    with jax.enable_x64(True):
        timeline = _account(cfg, program.op, program.mapping.dataflow, wiring)
    return timeline.first_rows(len(program))


def execute_durations(program: Program, hold: np.ndarray, delay: np.ndarray | float = 0.0) -> Timeline:
    """The same with durations [n] from outside, in any unit of time: for machines with other rules than ours.

    `delay`: from the end of the hold to completion, [n] or one for all; the same for all instructions of an engine class, which
    complete in order. Raises `KPUError` unless durations are finite numbers of at least 0, one per instruction, and as `wire`
    does; engines may be as many as the program says.
    """
    wiring = wire(program, kind_per_instruction=True)
    missing = len(wiring.kinds.engine) - len(program)
    holds = np.pad(_durations("hold", hold, program), (0, missing))
    delays = _durations("delay", np.broadcast_to(delay, len(program)) if np.ndim(delay) == 0 else delay, program)
    _, first, engine = np.unique(program.engine, return_index=True, return_inverse=True)
    other = np.flatnonzero(delays != delays[first][engine])
    if len(other):
        i = int(other[0])
        trouble(program)(i, f"has delay = {delays[i]:g}, others of its engine {delays[first][engine][i]:g}: give each engine class one")
    delays = np.pad(delays, (0, missing))
    with jax.enable_x64(True):
        timeline = _account_durations(wiring, Durations(holds, delays, holds, holds >= 0))
    return timeline.first_rows(len(program))


def _durations(name: str, given: Any, program: Program) -> np.ndarray:
    """[n] float64, or a `KPUError` naming what is wrong."""
    try:
        array = np.asarray(given)
    except ValueError:
        array = np.zeros(0, object)
    if not is_number(array) or array.shape != (len(program),):
        got = f"an array of {array.dtype}, shape {array.shape}" if array.size else shown(given)
        raise KPUError(f"{name} must be {len(program)} numbers, one per instruction [time], got {got}")
    wrong = np.flatnonzero(~np.isfinite(array) | (array < 0))
    if len(wrong):
        i = int(wrong[0])
        number = plain(array[i]) if np.isfinite(array[i]) else array[i]
        trouble(program)(i, f"has {name} = {number}, which must be a finite time of at least 0")
    return array.astype(np.float64)
