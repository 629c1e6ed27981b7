"""Pipelined throughput: contiguous stages of the network on disjoint groups of compute tiles.

A group of t of T compute tiles gets t/T of everything else: L3, L2, L1, block movers, streamers, DMA engines, page buffers and
the external and host bandwidth. So nothing is shared in time that is not paid for: each stage is priced by the exact
model on a chip of that size, all stages can run at once, and the interval between two inputs in steady state, the slowest
stage's time, can be kept (an arbiter that lent idle bandwidth could be faster). Results between operations go through
external memory; transfers of host work stop all stages. The partition is optimal over all contiguous stages and group sizes
in `group_sizes`, in float64; if the network on all compute tiles, with results kept in L3, is faster, that is the only stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kpu_jax.base.pytree import get_path, replace_path
from kpu_jax.explore.mapping_search import search
from kpu_jax.graph.pieces import Piece, Places
from kpu_jax.graph.prices import operation_key, stack
from kpu_jax.hardware import KPUConfig
from kpu_jax.mapping.proposals import STRATEGIES

SHARED = (  # what a group of compute tiles gets a part of
    "host_memory.bandwidth_gbps", "external_memory.bandwidth_gbps", "memory_controller.page_buffer_count",
    "memory_controller.bandwidth_gbps", "on_chip_memory.l3.tile_count", "on_chip_memory.l2.bank_count",
    "on_chip_memory.l1.buffer_count", "data_movement.dma_engine_count", "data_movement.block_mover_count",
    "data_movement.streamer_count",
)  # fmt: skip
NEVER = 1e30  # seconds of an operation that does not fit its group


class Stage(NamedTuple):
    """Operations `first` to `last` of the network (positions of `Pipeline.names`) on a group of compute tiles."""

    first: int
    last: int
    tiles: int
    seconds: float  # for one input


class Pipeline(NamedTuple):
    """The network in stages that work on different inputs at the same time."""

    names: tuple[str, ...]  # operations, in order
    stages: tuple[Stage, ...]
    host_seconds: float  # transfers of host work per input, during which all stages wait
    interval: float  # between two inputs in steady state [s]

    @property
    def throughput(self) -> float:
        """Inputs per second in steady state."""
        return 1.0 / self.interval

    @property
    def latency(self) -> float:
        """From an input to its result: all stages, the slowest setting the pace [s]."""
        return len(self.stages) * self.interval

    def __repr__(self) -> str:
        lines = [f"{self.throughput:,.1f} inputs/s in {len(self.stages)} stages, each {self.latency * 1e3:,.4g} ms on its way"]
        for s in self.stages:
            names = self.names[s.first] if s.first == s.last else f"{self.names[s.first]} .. {self.names[s.last]}"
            lines.append(f"  {s.tiles:>4} compute tiles {s.seconds * 1e3:>10,.4g} ms  {names}")
        return "\n".join(lines)


def group_sizes(tiles: int) -> list[int]:
    """Sizes of groups that are tried: powers of two, and all compute tiles."""
    return sorted({*(2**i for i in range(tiles.bit_length())), tiles})


def group_chip(cfg: KPUConfig, tiles: int) -> KPUConfig:
    """A group of compute tiles with its part of the chip, as a chip; counts may be fractions."""
    part = tiles / float(cfg.compute.tile_count)
    for path in SHARED:
        cfg = replace_path(cfg, path, np.float64(get_path(cfg, path) * part))
    return replace_path(cfg, "compute.tile_count", np.float64(tiles))


def pipeline_of(cfg: KPUConfig, pieces: Sequence[Piece], in_turn: float, host_seconds: float) -> Pipeline:
    """The fastest pipeline of these pieces; every operation from and to external memory, by its fastest mapping.

    `in_turn`: seconds of the planned network on all compute tiles, one operation after the other; `host_seconds` of host work.
    """
    total = int(cfg.compute.tile_count)
    sizes = group_sizes(total)
    steps = [piece.work.steps(piece.name, Places()) for piece in pieces]
    distinct = {operation_key(step.op): step.op for own in steps for step in own}
    row_of = {key: row for row, key in enumerate(distinct)}
    chips = stack([group_chip(cfg, size) for size in sizes])
    found = search(chips, stack(list(distinct.values())), STRATEGIES, ("latency",)).seconds.min(axis=-1)  # [size, row]
    found = np.where(np.isfinite(found), found, NEVER)
    each = np.zeros((len(sizes), len(pieces)))
    for i, (piece, own) in enumerate(zip(pieces, steps, strict=True)):
        for step in own:
            each[:, i] += piece.repeats * step.times * found[:, row_of[operation_key(step.op)]]
    stages = best_partition(each, sizes, total)
    if in_turn < max(s.seconds for s in stages):
        stages = [Stage(0, len(pieces) - 1, total, in_turn)]
    return Pipeline(tuple(p.name for p in pieces), tuple(stages), host_seconds, max(s.seconds for s in stages) + host_seconds)


def best_partition(seconds: np.ndarray, sizes: Sequence[int], tiles: int) -> list[Stage]:
    """The contiguous stages whose slowest is fastest, on at most `tiles` compute tiles.

    `seconds` [size, operation] on a group of each of `sizes`. The least interval is among the sums of contiguous
    operations; a bisection over these finds it, and for each a dynamic program over prefixes counts the compute tiles that the first
    j operations need: never more than the first j + 1, so that with a group of some size the longest last stage is best.
    """
    ends = np.concatenate([np.zeros((len(sizes), 1)), np.cumsum(seconds, axis=1)], axis=1)
    i, j = np.triu_indices(ends.shape[1], 1)
    sums = np.unique(ends[:, j] - ends[:, i])
    low, high = 0, len(sums) - 1
    while low < high:
        middle = (low + high) // 2
        if _stages(ends, sizes, sums[middle])[0] <= tiles:
            high = middle
        else:
            low = middle + 1
    return _stages(ends, sizes, sums[low])[1]


def _stages(ends: np.ndarray, sizes: Sequence[int], interval: float) -> tuple[float, list[Stage]]:
    """(compute tiles, stages) of the fewest compute tiles on which no stage takes longer than `interval`."""
    slack = interval * 1e-12  # differences of sums are rounded
    starts = np.stack([np.searchsorted(row, row - interval - slack) for row in ends])
    count = ends.shape[1]
    need, last = np.full(count, np.inf), np.zeros(count, int)
    need[0] = 0.0
    for j in range(1, count):
        options = [need[starts[s, j]] + size if starts[s, j] < j else np.inf for s, size in enumerate(sizes)]
        last[j] = int(np.argmin(options))
        need[j] = options[last[j]]
    if not np.isfinite(need[-1]):
        return np.inf, []
    stages, j = [], count - 1
    while j > 0:
        s = last[j]
        first = int(starts[s, j])
        stages.append(Stage(first, j - 1, int(sizes[s]), float(ends[s, j] - ends[s, first])))
        j = first
    return float(need[-1]), stages[::-1]
