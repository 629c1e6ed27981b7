"""What the engines around the array do for many schedules, for the chains that bound their makespan."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kpu_jax.explore.optimal.problem import Problem
from kpu_jax.explore.optimal.traffic_bound import Axes, Moved, Partition

Array = np.ndarray


class Work(NamedTuple):
    """Holds in fabric cycles [schedule], at least."""

    fabric: Array  # by all passes
    passes: Array  # number of them
    serial: float  # of each pass's hold, beyond its stream
    after_hold: float  # from the end of a pass's hold to its end
    loads: Array  # L2 to L1
    drains: Array  # L1 to L2, side by side with the vector engine
    finals: Array  # of these, the last of every element of C
    write_backs: Array  # C from L2 to L3


def work_of(p: Problem, flow: int, parts: Partition, axes: Axes, moved: Moved) -> Work:
    fill = p.fill_drain[flow]
    serial, after_hold = (0.0, fill) if p.overlap else (fill, 0.0)
    fabric, passes = _fabric(p, flow, parts, axes, serial)
    lanes = parts.batch_steps * axes.m.shares * axes.n.shares / p.cols
    drains, finals = _drains(p, parts, moved, lanes)
    loads = p.streamer.hold_at_least(moved.loads)
    return Work(fabric, passes, serial, after_hold, loads, drains, finals, _write_backs(p, parts, axes, moved, lanes))


def _fabric(p: Problem, flow: int, parts: Partition, axes: Axes, serial: float) -> tuple[Array, Array]:
    """(cycles that all passes hold the fabric, or the vector engine; number of passes)."""
    m, n, k = axes.m, axes.n, axes.k
    if not p.fabric:
        return parts.batch_steps * m.stream * p.element, parts.batch_steps * m.l2_blocks
    streams = (k, m, n)[flow]
    across = (m.passes * n.passes, k.passes * n.passes, k.passes * m.passes)[flow]
    passes = parts.batch_steps * across
    return passes * (streams.stream + serial * streams.l2_blocks), passes * streams.l2_blocks


def _drains(p: Problem, parts: Partition, moved: Moved, lanes: Array) -> tuple[Array, Array]:
    """(all ways out of L1, the last of every element of C)."""
    hold = p.streamer.hold_at_least
    if parts.k == 1:
        finals = np.maximum(hold(moved.complete), (lanes if p.fabric else 0.0) * p.vector)
        return finals + hold(moved.drains), finals
    finals = lanes * p.bias
    last = p.batch * parts.k * p.sizes[0] * p.sizes[1] * p.widths[3]  # bytes of the parts that end their K, at most
    return np.maximum(hold(moved.drains), hold(np.maximum(moved.drains - last, 0.0)) + finals), finals


def _write_backs(p: Problem, parts: Partition, axes: Axes, moved: Moved, lanes: Array) -> Array:
    """C's ways out of L2: parts of K are written to L3, then read, added and written."""
    hold, (_, _, ec, acc), k = p.mover.hold_at_least, p.widths, axes.k
    plain = hold(moved.mover_out)
    if parts.k == 1:
        return plain
    whole, final = moved.leaving_l2 * acc, p.batch * p.sizes[0] * p.sizes[1]
    last = hold(whole + final * ec + np.maximum(moved.leaving_l2 - final, 0.0) * acc)
    meets = k.l3_pairs >= parts.k * k.l3_trips  # in every L3 block
    return np.where(meets, hold(whole) + np.maximum(last, lanes * (p.vector - p.bias)), plain)
