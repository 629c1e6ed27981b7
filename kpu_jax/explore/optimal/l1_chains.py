"""Chains of operations around the array that no schedule can overlap: lower bounds on the time between head and tail.

Each pass ends `after_hold` after it has held the fabric. Where L1 has two places per block, for an operand X:

* Place: block j + 2 of X may be loaded once the last pass that reads block j has ended. So the loads of X, its passes
  and their ends lie on two chains, of every other block; the makespan is no less than half of their sum. The same
  holds for C, whose way out ends its stay.
* Queue: C's way out after a pass comes before the loads for the second pass after it. So where a pass reads a new
  block of X and of C, its drain lies on these chains, too.
* Visits: where C stays for two passes or more, its way out comes before the loads for the second pass of the next
  stay. So one chain holds all stays but the first pass of each; and within a stay along K, A and B both change
  with every pass: the second, the fourth, ... pass follow one another by "place".

With one place per block everything is in turn: one chain holds all loads and passes.
"""

from __future__ import annotations

import functools

import numpy as np

from kpu_jax.explore.optimal.orders import Choices, innermost
from kpu_jax.explore.optimal.problem import Problem
from kpu_jax.explore.optimal.traffic_bound import Axes, Moved
from kpu_jax.explore.optimal.work import Work

Array = np.ndarray
M, N, K = range(3)
PASS_AXES = ((M, N), (K, N), (K, M))  # by dataflow: the axes that passes walk


def always_new(flow: int, axes: Axes, choices: Choices, moved: Moved) -> tuple[Array, Array, Array]:
    """Does every step surely bring a new block of A, B, C into L1?"""
    x, y = PASS_AXES[flow]
    several = axes.along(x).fewest >= 2, axes.along(y).fewest >= 2
    x_inner = several[0] & (choices.inside_pass(x, y) | one_pass(axes, y))
    y_inner = several[1] & (choices.inside_pass(y, x) | one_pass(axes, x))
    both = several[0] | several[1]
    a, b, c = ((x_inner, y_inner, both), (x_inner, both, y_inner), (both, x_inner, y_inner))[flow]
    return a, b, c | moved.leaves_always


def chains_at_l1(p: Problem, flow: int, axes: Axes, choices: Choices, moved: Moved, work: Work, exact: bool) -> Array:
    """Fabric cycles from A's first block in L2 to C's last way out of L1, at least."""
    streamer, each = p.streamer, work.after_hold + p.streamer.latency
    stays_a, stays_b, stays_c = moved.stays
    always_a, always_b, always_c = always_new(flow, axes, choices, moved)
    in_turn = work.fabric + work.loads + work.passes * each + work.drains * always_c
    chains = [
        in_turn * always_c,
        work.fabric + stays_a * each + streamer.hold_at_least(moved.loads_a) + work.drains * always_a,
        work.fabric + stays_b * each + streamer.hold_at_least(moved.loads_b) + work.drains * always_b,
        work.fabric + stays_c * each + work.drains,
    ]
    two = functools.reduce(np.maximum, chains)
    return np.where(choices.single(2), in_turn, np.maximum(two / 2, _along_visits(p, flow, axes, choices, moved, work, exact)))


def turn_loads(p: Problem, flow: int, axes: Axes, moved: Moved) -> Array:
    """Fabric cycles of the loads into L1 that surely belong to the first pass of an L2 block."""
    if flow == 0:
        return np.zeros(1)
    size = (moved.loads_a, moved.loads_b)[flow - 1]
    return np.where(one_pass(axes, K), p.streamer.hold_at_least(size), 0.0)


def one_pass(axes: Axes, axis: int) -> Array:
    """Surely one pass along this axis in every L2 block?"""
    return axes.along(axis).most_visits <= axes.along(axis).l2_pairs


def stays_along_k(flow: int, axes: Axes, choices: Choices) -> tuple[Array, Array]:
    """(passes of C's stays in L1, at least; share of passes that are not the first of a stay), where K does not stream."""
    k, other = axes.k, PASS_AXES[flow][1]
    alone = one_pass(axes, other)
    fewest = np.where(choices.inside_pass(K, other) | alone, k.fewest, 1.0)
    through = alone & k_innermost(axes, choices)  # for all L2 blocks along K
    share = np.maximum(1 - 1 / fewest, np.where(through, 1 - k.l3_trips / k.passes, 0.0))
    return np.where(through, np.maximum(fewest, 2.0), fewest), share


def k_innermost(axes: Axes, choices: Choices) -> Array:
    """Surely every L3 block has several L2 blocks along K, and their loop is the innermost?"""
    inner = innermost(choices.l2_order, [axis.turning > 0 for axis in axes[:3]]) == K
    return inner & (axes.k.turning >= axes.k.l2_blocks)


def _along_visits(p: Problem, flow: int, axes: Axes, choices: Choices, moved: Moved, work: Work, exact: bool) -> Array:
    """The chain of C's stays, if all are surely of two passes or more; else 0."""
    k, each, stays = axes.k, work.after_hold + p.streamer.latency, moved.stays[2]
    if flow == 0:  # passes differ in length by their L2 block's depth: the first is the deepest
        blocks = k.l2_blocks
        later = stays * (np.maximum(k.stream - k.most_stream, 0.0) + work.serial * (blocks - 1))
        return np.where(moved.stays_once & (blocks >= 2), later + stays * each + work.drains, 0.0)
    fewest, share = stays_along_k(flow, axes, choices)
    later = work.fabric * share + stays * each
    # Of r passes, floor(r / 2) follow one another by place; of their loads, all but the first of a stay count half.
    even = np.where(exact & (k.passes <= k.fewest * k.l2_blocks) & (k.fewest >= 2), np.floor(k.fewest / 2) / k.fewest, share / 2)
    loads = work.loads * np.maximum(1 - 1 / np.maximum(fewest - 1, 1), 0) / 2
    by_place = (work.fabric + work.passes * each) * even + loads
    return np.where(fewest >= 2, np.maximum(later, by_place) + work.drains, 0.0)
