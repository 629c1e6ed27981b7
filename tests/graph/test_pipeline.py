"""Stages of a pipeline: against every contiguous partition, walked in plain Python, and by the laws of the chip."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from networks_small import CHIP, tower

from kpu_jax.base.pytree import get_path
from kpu_jax.engines.rates import external_bytes_per_second
from kpu_jax.graph.pipeline import SHARED, best_partition, group_chip, group_sizes
from kpu_jax.graph.plan import plan_network
from kpu_jax.hardware import preset


def every_partition(seconds, sizes, tiles):
    """The least slowest stage over all cuts and all sizes of groups."""
    count = seconds.shape[1]
    best = np.inf
    for stages in range(1, count + 1):
        for cuts in itertools.combinations(range(1, count), stages - 1):
            ends = (0, *cuts, count)
            for groups in itertools.product(range(len(sizes)), repeat=stages):
                if sum(sizes[g] for g in groups) <= tiles:
                    slowest = max(seconds[g, a:b].sum() for g, a, b in zip(groups, ends[:-1], ends[1:], strict=True))
                    best = min(best, slowest)
    return best


@pytest.mark.parametrize("count", [60, pytest.param(400, marks=pytest.mark.long)])
def test_the_partition_is_the_best_of_all(count):
    rng = np.random.default_rng(1)
    cuts = 0
    for _ in range(count):
        tiles = int(rng.integers(1, 9))
        sizes = group_sizes(tiles)
        seconds = rng.integers(1, 20, (len(sizes), int(rng.integers(1, 6)))).astype(float)
        if rng.random() < 0.5:
            seconds = np.sort(seconds, axis=0)[::-1]  # more compute tiles are seldom slower
        stages = best_partition(seconds, sizes, tiles)
        assert [s.first for s in stages] == [0, *(s.last + 1 for s in stages[:-1])] and stages[-1].last == seconds.shape[1] - 1
        assert sum(s.tiles for s in stages) <= tiles
        for s in stages:
            assert s.seconds == pytest.approx(seconds[sizes.index(s.tiles), s.first : s.last + 1].sum())
        assert max(s.seconds for s in stages) == pytest.approx(every_partition(seconds, sizes, tiles))
        cuts += len(stages) > 1
    assert cuts > count / 4


def test_groups_share_everything_that_is_shared():
    chip = preset("embodied_ai")
    assert group_sizes(6) == [1, 2, 4, 6] and group_sizes(8) == [1, 2, 4, 8]
    parts = [group_chip(chip, size) for size in (48, 12, 4)]
    for path in (*SHARED, "compute.tile_count"):
        assert sum(float(get_path(part, path)) for part in parts) == pytest.approx(float(get_path(chip, path)))
    rates = [float(external_bytes_per_second(part)) for part in parts]
    assert sum(rates) == pytest.approx(float(external_bytes_per_second(chip)))


def test_a_pipeline_obeys_the_chip():
    """Its interval is at least the array's peak and the external memory allow, and at most all tiles take in turn."""
    net = tower()
    report = plan_network(CHIP, net, objective="latency", residency="none")
    pipeline = report.pipeline
    assert pipeline is report.pipeline and sum(s.tiles for s in pipeline.stages) <= float(CHIP.compute.tile_count)
    assert [n for s in pipeline.stages for n in pipeline.names[s.first : s.last + 1]] == list(pipeline.names)
    array = CHIP.compute.processor_array
    peak = float(CHIP.compute.tile_count * array.rows * array.cols * CHIP.precision.macs_8) * float(CHIP.clocks.fabric_mhz) * 1e6
    assert net.macs.sum() / peak <= pipeline.interval <= float(report.seconds) * (1 + 1e-12)
    weights = sum(float(op.k * op.n) for _, op in net if op.kind == 0)
    assert pipeline.interval >= weights / float(external_bytes_per_second(CHIP))
    assert pipeline.throughput * pipeline.interval == pytest.approx(1)
    assert len(pipeline.stages) > 1 and "compute tiles" in repr(pipeline)
