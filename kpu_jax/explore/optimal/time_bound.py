"""Lower bounds on the makespan of many schedules at once, from counts along each axis.

Beside the paths of `model.bound` (the busiest engine, with what must come before and after its work) and the chains of
`l1_chains` and `visit_chains`, these are chains around the blocks of C. An engine serves in program order, and that
order is fixed (`design.md`, section 1).

* At L2, moves in precede moves out where there are two places. So the write-back of a block of C stands in the movers'
  queue before the moves in for the next block but one; with one place, for the next block. The chain of every other
  block (of every block) holds the moves in, passes, drains and write-backs of these blocks.
* At L3 the same with the DMA's stores and loads.
* With one place in L2, the first loads into L1 for an L2 block come after the way out of the pass before.

Each chain starts when A has come to its level. Which blocks follow one another follows from the loop orders: if the
innermost loop that iterates is that of M or N, every step has another block of C; else at least every block once.
"""

from __future__ import annotations

import numpy as np

from kpu_jax.explore.optimal.l1_chains import always_new, chains_at_l1, turn_loads
from kpu_jax.explore.optimal.orders import Choices, innermost
from kpu_jax.explore.optimal.problem import Problem
from kpu_jax.explore.optimal.traffic_bound import Axes, Moved, Partition
from kpu_jax.explore.optimal.visit_chains import finals_chain, through_finals, visits_at_l2
from kpu_jax.explore.optimal.work import work_of

Array = np.ndarray


def bound_cycles(p: Problem, flow: int, parts: Partition, axes: Axes, choices: Choices, moved: Moved, exact: bool) -> Array:
    """Fabric cycles that a schedule takes at least."""
    m, n, k = axes.m, axes.n, axes.k
    ea, eb, ec, acc = p.widths
    groups, streamer, mover, dma = parts.groups, p.streamer, p.mover, p.dma
    out_a, out_b, out_c = p.outside
    work = work_of(p, flow, parts, axes, moved)
    fabric, after_hold = work.fabric, work.after_hold

    # Down the memories to the first pass, and up after the last.
    channels = np.ceil(k.l3_size / p.kernel)
    first_a = (axes.input_rows[1] * p.in_w * channels if p.conv else m.l3_size * k.l3_size) * ea
    a_in_l3 = dma.hold(groups * first_a * out_a) + dma.latency * out_a
    b_in_l3 = a_in_l3 - dma.latency * out_a + dma.hold(groups * k.l3_size * n.l3_size * eb * out_b) + dma.latency * out_b
    a_in_l2 = a_in_l3 + mover.hold(groups * m.first_l2 * k.first_l2 * ea) + mover.latency
    b_in_l2 = b_in_l3 + mover.hold(groups * k.first_l2 * n.first_l2 * eb) + mover.latency
    head = a_in_l2 + streamer.hold(groups * n.active * m.first_pass * k.first_pass * ea) + streamer.latency
    if p.fabric:
        b_in_l1 = b_in_l2 + streamer.hold(groups * m.active * k.first_pass * n.first_pass * eb) + streamer.latency
        head = np.maximum(head, b_in_l1)
    store = dma.hold(m.last_l3 * n.last_l3 * ec) + dma.latency if out_c else 0.0
    after_move = mover.latency + store
    after_drain = streamer.latency + mover.hold(m.last_l2 * n.last_l2 * min(ec, acc)) + after_move
    after_pass = after_hold + streamer.hold(m.last_pass * n.last_pass * min(ec, acc)) + after_drain

    paths = [
        dma.hold_at_least(moved.dma),
        a_in_l3 + mover.hold_at_least(moved.mover) + after_move,
        a_in_l2 + work.loads + work.drains + after_drain,
        head + fabric + after_pass,
    ]

    if p.fabric:
        after_way_out = after_drain - streamer.latency
        paths += [
            a_in_l3 + mover.hold_at_least(moved.mover_in) + work.write_backs + after_move,
            a_in_l2 + chains_at_l1(p, flow, axes, choices, moved, work, exact) + after_way_out,
            head + finals_chain(p, flow, parts, axes, choices, moved, work) + after_way_out,
            head + visits_at_l2(p, flow, parts, axes, choices, moved, work) + after_move,
        ]

    # Chains at L2 and L3.
    around_l1 = after_hold + 2 * (streamer.hold(1.0) + streamer.latency)
    stays_l2, all_l2 = _stays(axes, choices.l2_order, [axis.turning for axis in axes[:3]], "l2_blocks", "most_l2")
    moves_in = np.where(all_l2, mover.hold_at_least(moved.mover_in), parts.batch_steps * stays_l2 * mover.hold(1.0))
    at_l2 = moves_in + mover.hold_at_least(moved.mover_out) + parts.batch_steps * stays_l2 * (mover.latency + around_l1)
    one_l2 = choices.single(1)
    paths.append(a_in_l3 + np.where(one_l2, fabric + at_l2, (fabric + at_l2) / 2))
    # With one place in L2, every other L2 block begins after the last way out of L1, too.
    turns, between = np.zeros(1), fabric
    if p.fabric:
        steps = parts.batch_steps * m.l2_blocks * n.l2_blocks * k.l2_blocks
        turn = after_hold + streamer.latency + 2 * streamer.hold(1.0)
        rest = turn_loads(p, flow, axes, moved) - steps * streamer.hold(1.0)
        in_turn = one_l2 & always_new(flow, axes, choices, moved)[2]
        turns = np.where(in_turn, (steps - parts.batch_steps * stays_l2) * turn + np.maximum(rest, 0.0), 0.0)
        between = np.where(in_turn, through_finals(p, flow, parts, axes, choices, moved, work), fabric)
        paths.append(np.where(in_turn, head + fabric + (steps - 1) * turn + after_pass, 0.0))
        paths.append(np.where(one_l2, a_in_l3 + between + at_l2 + turns, 0.0))
    if all(p.outside):
        turning = [np.where(axis.l3_trips > 1, axis.l3_trips, 0.0) for axis in axes[:3]]
        stays_l3, all_l3 = _stays(axes, choices.l3_order, turning, "l3_trips", "l3_trips")
        stays_l3 = parts.batch_steps * stays_l3
        loads_l3 = np.where(all_l3, dma.hold_at_least(moved.dma_in), 0.0) + dma.hold_at_least(moved.dma_out)
        at_l3 = loads_l3 + stays_l3 * (dma.latency + mover.latency)
        # The first moves into L2 of an L3 block: of A and B if it is another one along K, else of either.
        move_a = mover.hold(groups * m.least_first_l2 * k.least_first_l2 * ea)
        move_b = mover.hold(groups * k.least_first_l2 * n.least_first_l2 * eb) if p.fabric else move_a
        along_k = innermost(choices.l3_order, [t > 0 for t in turning]) == 2
        moves = np.where(along_k & p.fabric, move_a + move_b, np.minimum(move_a, move_b))
        refill = around_l1 + mover.latency + mover.hold(1.0) + moves
        loop = fabric + at_l3 + stays_l3 * refill
        single = choices.single(0)
        paths.append(np.where(single, loop, loop / 2))
        if p.fabric:
            through = through_finals(p, flow, parts, axes, choices, moved, work, stays_l3)
            paths.append(np.where(single, through + at_l3 + stays_l3 * refill, 0.0))
        # A's moves into L2 may go on while B comes to L3: they are left out here.
        at_both = at_l3 + at_l2 - moves_in + parts.batch_steps * stays_l2 * mover.hold(1.0)
        paths.append(np.where(single & one_l2, between + turns + at_both, 0.0))
        l3_steps = parts.batch_steps * m.l3_trips * n.l3_trips * k.l3_trips
        other_c = (m.turning >= m.l2_blocks) | (n.turning >= n.l2_blocks)
        paths.append(np.where(single & other_c, head + fabric + (l3_steps - 1) * refill + after_pass, 0.0))
        if exact:
            waits = _waits_for_place(p, flow, groups, axes, choices, moved, first_a, along_k & all_l2, refill)
            paths.append(np.where(single, head + fabric + after_pass + (l3_steps - 1) * waits[0] + waits[1], 0.0))
    cycles = paths[0]
    for path in paths[1:]:
        cycles = np.maximum(cycles, path)
    return cycles


def _waits_for_place(
    p: Problem, flow: int, groups: float, axes: Axes, choices: Choices, moved: Moved, first_a: Array, along_k: Array, refill: Array
) -> tuple[Array, Array]:
    """(per L3 block, in all): fabric cycles lost while the only place of A or B in L3 is read, and then filled.

    Both change with every L3 block (`along_k`), and C with every L2 block. The last move of X out of an L3 block stands
    in the movers' queue behind the write-back of the last L2 block but two, so at most two blocks' passes go on meanwhile.
    """
    m, n, k = axes.m, axes.n, axes.k
    ea, eb, _, _ = p.widths
    extents = p.extents(flow)
    across = [np.ceil(axis.l2_size / extent) for axis, extent in zip(axes[:3], extents, strict=True)]
    stream = np.ceil((k, m, n)[flow].l2_size / (p.rate if flow == 0 else 1.0))
    block = across[0] * across[1] * across[2] * (stream + (0.0 if p.overlap else p.fill_drain[flow]))
    turns = [axis.turning >= axis.l2_blocks for axis in axes[:3]]
    inner = innermost(choices.l2_order, [axis.turning > 0 for axis in axes[:3]])
    least = [np.where(turn, 2.0, 1.0) for turn in turns]
    enough = least[0] * least[1] * least[2] >= 4
    dma = p.dma
    loads_b = dma.hold_at_least(moved.dma_b) - dma.hold(groups * k.l3_size * n.l3_size * eb)
    loads_a = dma.hold_at_least(moved.dma_in - moved.dma_b) - dma.hold(groups * first_a)
    loads = loads_b + np.where((inner == 0) | (inner == 2), loads_a, 0.0)
    known = (inner >= 0) & np.where(inner == 0, turns[0], np.where(inner == 1, turns[1], turns[2]))
    valid = along_k & enough & known
    each = refill + p.mover.latency + p.mover.hold(1.0) + dma.latency - 2 * block
    return np.where(valid, each, 0.0), np.where(valid, np.maximum(loads, 0.0), 0.0)


def _stays(axes: Axes, order: Array, turning: list[Array], blocks: str, most: str) -> tuple[Array, Array]:
    """(stays of C's blocks at a level, at least; whether every step of that level surely begins one).

    `turning`: blocks along an axis that are not alone in their loop.
    """
    m, n, k = (getattr(axis, blocks) for axis in axes[:3])
    steps = m * n * k
    inner = innermost(order, [t > 0 for t in turning])
    follow = np.where(inner == 0, turning[0] * n * k, np.where(inner == 1, m * turning[1] * k, 0.0))
    once = getattr(axes.k, most) <= 1
    stays = np.maximum(np.where(once, steps, m * n), follow)
    return stays, once | (stays >= steps)
