"""A lower bound on the makespan: the busiest engine, plus what must come before and after its work.

Proof sketch. Each engine class serves its operations one after the other, so it is busy for the sum of
their holds, and a hold is never shorter than bytes / peak rate (rounding up only adds). Before an engine's
first operation its operands must have come down the memories (the head: the first blocks of A and B, in
program order); after its last one the last block of C must still go up (the tail). So the makespan is at
least head + busy + tail, for every engine.

The DMA has another tail. In program order, its last load of A or B is followed by at most C's move into the last
L3 block, the store of the block before (if L3 is double-buffered) and the last store. So that load ends no earlier
than it takes to carry all bytes but these. The passes of the last L3 block wait for it (its blocks in L2 and L1 are
new, too), and the last store waits for them. If L3, L2 (and L1) are double-buffered, the store of a block is queued behind
the load of the next, and so are its write-back and drain behind the moves of that load's first blocks: at every such
turn the DMA waits for these, unless C's move in fills the time.

C's visits to L1 take turns with the streamers. A drain at the end of a visit comes before the loads for the second
pass of the next visit; so from its end, all passes of that visit but the first must pass until the next drain.

The bound is the largest of all these paths.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.engines.rates import Rates
from kpu_jax.model.work import Work

Scalar = jax.Array
ENGINES = ("host", "dma", "block_mover", "streamer", "fabric", "vector")


class Bound(NamedTuple):
    cycles: Scalar  # lower bound on the makespan [fabric cycles]
    in_turns: Scalar  # likely makespan when L3 is loaded and read in turns (single-buffered); no bound
    busy: tuple[Scalar, ...]  # per engine class of `ENGINES`: the least time it is held [fabric cycles]
    paced: Scalar  # of the streamers' hold: drains that last as long as the vector engine takes, not the bytes

    @property
    def bound_by(self) -> Scalar:
        """Index into `ENGINES` of the class that is held longest; of held streamers, the class that most of it is due to."""
        code, most = jnp.zeros_like(self.busy[0]), self.busy[0]
        for i, busy in enumerate(self.busy[1:], 1):
            code = jnp.where(busy > most, float(i), code)
            most = jnp.maximum(busy, most)
        streamer = ENGINES.index("streamer")
        due_to_vector = (code == streamer) & (self.paced > 0.5 * self.busy[streamer])
        return jnp.where(due_to_vector, float(ENGINES.index("vector")), code)


def bound_of(work: Work, rates: Rates) -> Bound:
    """Lower bound on the makespan of `work` at these `rates`. Differentiable in the rates almost everywhere."""
    dma, mover, streamer = rates.dma, rates.block_mover, rates.streamer
    host = work.host / rates.host.limit
    # Complete results pass the vector engine on the way out.
    by_bytes, by_vector = streamer.hold_at_least(work.final), work.lanes * (rates.bias + rates.activation)
    drains = jnp.maximum(by_bytes, by_vector)
    alone = rates.element > 0  # a vector operation: its passes run on the vector engine, in the fabric's place
    busy = (
        host,
        host + dma.hold_at_least(work.dma),  # host transfers hold the memory channels
        mover.hold_at_least(work.block_mover),
        streamer.hold_at_least(work.streamer - work.final) + drains,
        work.fabric,
    )
    holds = [dma.hold(size) for size in work.first_l3]
    waits = [jnp.where(size > 0, dma.latency, 0.0) for size in work.first_l3]
    in_l3 = (holds[0] + waits[0], holds[0] + holds[1] + waits[1])
    in_l2 = [t + mover.hold(size) + mover.latency for t, size in zip(in_l3, work.first_l2, strict=True)]
    in_l1 = [t + streamer.hold(size) + streamer.latency for t, size in zip(in_l2, work.first_l1, strict=True)]
    has_b = work.first_l1[1] > 0
    first_pass = jnp.maximum(in_l1[0], jnp.where(has_b, in_l1[1], 0.0))

    store = dma.hold(work.last_l3) + jnp.where(work.last_l3 > 0, dma.latency, 0.0)
    after_move = mover.latency + store
    after_drain = streamer.latency + mover.hold(work.last_l2) + after_move
    after_pass = work.fill_drain + streamer.hold(work.last_l1) + after_drain
    last, visits, turns = work.last_block, work.visits, work.turns
    on_the_way = mover.hold(turns.into_l2) + mover.hold(turns.write_back) + mover.latency
    in_l1_first = mover.latency + streamer.hold(turns.into_l1) + streamer.hold(turns.drain) + streamer.latency
    on_the_way += jnp.where(turns.into_l1 > 0, in_l1_first, 0.0)
    turn = dma.latency + on_the_way

    def carried(size: Scalar, boundaries: Scalar) -> Scalar:
        """The DMA's time for `size` bytes with that many turns, which may be filled by what it carries meanwhile."""
        others = jnp.maximum(size - boundaries * turns.meanwhile, 0.0)
        return jnp.maximum(dma.hold_at_least(size), dma.hold_at_least(others) + boundaries * turn)

    loaded = carried(last.before, jnp.maximum(turns.turns - 1, 0.0)) + dma.latency
    fed = mover.hold(last.l2) + mover.latency + streamer.hold(last.l1) + streamer.latency
    after_load = jnp.where(last.loads, loaded + fed + last.fabric + after_pass, 0.0)
    visit_path = first_pass + visits.later + visits.visits * work.fill_drain + drains + after_drain
    visit_path += (visits.visits - 1) * streamer.latency
    paths = (
        jnp.where(work.host > 0, host + rates.host.latency, 0.0),
        jnp.maximum(host + carried(work.dma, turns.turns), after_load),
        in_l3[0] + busy[2] + after_move,
        in_l2[0] + busy[3] + after_drain,
        first_pass + busy[4] + after_pass,
        jnp.where(visits.visits > 0, visit_path, 0.0),
    )
    total = paths[0]
    for path in paths[1:]:
        total = jnp.maximum(total, path)
    inside = jnp.maximum(jnp.maximum(busy[2], busy[3]), busy[4])
    held = (*busy[:4], jnp.where(alone, 0.0, work.fabric), jnp.where(alone, work.fabric, by_vector))
    paced = jnp.where(by_vector > by_bytes, by_vector, 0.0)
    return Bound(total, jnp.maximum(total, busy[1] + inside), held, paced)
