"""Chains through C's visits to L2 and through its last ways out of L1: lower bounds on the makespan.

* Last ways out: until an element of C is complete, little of it needs the streamers for long; its last way out takes
  as long as the vector engine. So the fabric's passes before the last ones along K, and the last ways out, lie on one
  chain: a pass, its end, its way out, those behind it in the streamer's queue, and the loads for the second pass
  after the last of these: the chain leaves out the first pass after a run, and holds the run's first pass instead.
* Visits to L2: where C stays for two L2 blocks or more, its write-back comes before the moves in for the second block
  of the next stay. So one chain holds the write-backs and all passes but those of the first L2 block of each stay,
  or of these passes those before the last along K, and C's last ways out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kpu_jax.explore.optimal.l1_chains import PASS_AXES, K, M, N, k_innermost, one_pass, stays_along_k
from kpu_jax.explore.optimal.orders import Choices, innermost
from kpu_jax.explore.optimal.problem import Problem
from kpu_jax.explore.optimal.traffic_bound import Axes, Moved, Partition
from kpu_jax.explore.optimal.work import Work

Array = np.ndarray


class _Finals(NamedTuple):
    """The last pass along K of every block of C."""

    several: Array  # bool: it is not the only one
    blocks: Array  # of C, one pass each
    runs: Array  # of such passes one after the other, at least; the first of each ends before any way out
    loads: Array  # fabric cycles of the loads that stand between their ways out in the streamers' queue, at least


def _finals(p: Problem, flow: int, parts: Partition, axes: Axes, choices: Choices, moved: Moved) -> _Finals:
    m, n, k = axes.m, axes.n, axes.k
    blocks = (m.passes * n.passes, m.l2_blocks * n.passes, m.passes * n.l2_blocks)[flow]
    if flow == 0:
        several, alone = k.l2_blocks >= 2, moved.stays_once
        within, loads = k_innermost(axes, choices), np.zeros(1)
    else:
        several, alone = k.passes >= 2, stays_along_k(flow, axes, choices)[0] >= 2
        within, loads = k_innermost(axes, choices) | (k.fewest >= 2), _loads_between(p, flow, parts, axes, choices, moved)
    runs = np.where(alone, blocks, np.where(within, m.l2_blocks * n.l2_blocks, 1.0))
    return _Finals(several, parts.batch_steps * blocks, parts.batch_steps * runs, np.where(alone, 0.0, loads))


def _loads_between(p: Problem, flow: int, parts: Partition, axes: Axes, choices: Choices, moved: Moved) -> Array:
    """Where each pass of an L2 block brings another block of C: its partial sums return, and B (or A) comes.

    Those of the first two passes of a run may come before.
    """
    across = PASS_AXES[flow][1]
    axis, share = axes.along(across), (parts.m, parts.n)[across]
    inner = choices.inside_pass(across, K) | one_pass(axes, K)
    size = p.batch * p.sizes[M] * p.sizes[N] * p.widths[3] + (moved.loads_b, moved.loads_a)[flow - 1] * axes.k.last_pass / p.sizes[K]
    first = 2 * p.extents(flow)[across] * share * axis.most_l2 / p.sizes[across]
    return np.where(inner, p.streamer.hold_at_least(size) * np.maximum(1 - first, 0.0), 0.0)


def _held_without(flow: int, axes: Axes, work: Work, blocks: Array, passes: Array, streams: Array) -> Array:
    """Of the fabric's hold, at least what is left without so many passes along K (or L2 blocks, where K streams)."""
    k = axes.k
    if flow:
        return work.fabric * np.maximum(1 - passes / k.passes, 0.0)
    stream = np.maximum(k.stream - streams * k.most_stream, 0.0)
    return blocks * (stream + work.serial * np.maximum(k.l2_blocks - streams, 0.0))


def finals_chain(p: Problem, flow: int, parts: Partition, axes: Axes, choices: Choices, moved: Moved, work: Work) -> Array:
    """Fabric cycles from the first pass to C's last way out of L1, at least."""
    f, each = _finals(p, flow, parts, axes, choices, moved), work.after_hold + p.streamer.latency
    before = _held_without(flow, axes, work, f.blocks, np.ones(1), np.ones(1))
    return np.where(f.several, before + work.finals + f.loads + f.runs * each, 0.0)


def through_finals(
    p: Problem, flow: int, parts: Partition, axes: Axes, choices: Choices, moved: Moved, work: Work, boundaries: Array | None = None
) -> Array:
    """All passes, or those before the last along K and C's last ways out, if that is longer.

    With `boundaries` at which the end of a pass is counted elsewhere, the ends of the other runs of last passes are added.
    """
    f, each = _finals(p, flow, parts, axes, choices, moved), work.after_hold + p.streamer.latency
    before = _held_without(flow, axes, work, f.blocks, np.ones(1), np.ones(1))
    ends = 0.0 if boundaries is None else np.maximum(f.runs - boundaries, 0.0) * each
    return np.maximum(work.fabric, np.where(f.several, before + work.finals + f.loads + ends, 0.0))


def visits_at_l2(p: Problem, flow: int, parts: Partition, axes: Axes, choices: Choices, moved: Moved, work: Work) -> Array:
    """Fabric cycles from the first pass to the end of C's last write-back's hold, at least."""
    m, n, k = axes.m, axes.n, axes.k
    f, each = _finals(p, flow, parts, axes, choices, moved), work.after_hold + p.streamer.latency
    whole_m, whole_n = (axis.most_l2 <= axis.l3_trips for axis in (m, n))
    l3_inner = innermost(choices.l3_order, [axis.l3_trips > 1 for axis in axes[:3]]) == K
    through = whole_m & whole_n & l3_inner  # C stays for all of K
    long = k_innermost(axes, choices) | (through & (k.l2_blocks >= 2))
    other_c = (m.turning >= m.l2_blocks) | (n.turning >= n.l2_blocks)
    firsts = np.where(through, 1.0, k.l3_trips)  # stays of a block of C at most, each with a first L2 block
    stays = parts.batch_steps * m.l2_blocks * n.l2_blocks * np.where(through | ~other_c, 1.0, k.l3_trips)
    skipped = firsts * k.most_passes
    plain = _held_without(flow, axes, work, f.blocks, skipped, firsts) + stays * each
    by_finals = _held_without(flow, axes, work, f.blocks, skipped + 1, firsts + 1)
    by_finals = by_finals + work.finals + f.loads + f.runs * each
    link = p.mover.latency + p.mover.hold(1.0) + p.streamer.hold(1.0) + p.streamer.latency
    held = np.maximum(plain, np.where(f.several, by_finals, 0.0))
    return np.where(long, held + work.write_backs + (stays - 1) * link, 0.0)
