"""How our own time grows: with chips, layers of a network, and tiles of a product (with cores and processes: `parallel`).

    python -m experiments.benchmarks.scaling [--repeats 3]

Warm, every result waited for; CPU seconds of the process (median), so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import kpu_jax as kpu
from experiments.benchmarks.exact import tiled
from kpu_jax.model.batch import exact_cycles_of


def median(call: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of a call, after one that compiles."""
    jax.block_until_ready(call())
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        jax.block_until_ready(call())
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def points(count: int) -> Callable[[], Any]:
    """One product under one mapping on `count` chips, by the bound."""
    cfg, gemm = kpu.presets.edge_ai(), kpu.Gemm(128, 768, 768)
    mapping = kpu.Mapping(l3_tile=(128, 64, 384), l2_tile=(64, 32, 384), partition=(1, 2, 1, 1))
    chips = jax.tree.map(lambda v: np.full(count, float(v), np.float32), cfg)
    chips = kpu.replace_path(chips, "clocks.fabric_mhz", np.linspace(500, 2000, count, dtype=np.float32))
    run = jax.jit(jax.vmap(lambda c: kpu.simulate(c, gemm, mapping, timing="bound").edp))
    return lambda: run(chips)


def layers(count: int) -> Callable[[], Any]:
    """A network of `count` different products, exactly timed, with the mappings found beforehand."""
    cfg = kpu.presets.edge_ai()
    net = kpu.Workload.from_ops([kpu.Gemm(64 + i % 7, 64 + i // 7, 256) for i in range(count)])
    mappings = kpu.best_mapping(cfg, net)
    return lambda: kpu.simulate(cfg, net, mappings).cycles


def tiles(side: int) -> Callable[[], Any]:
    """64 chips, one product of side^3 in tiles of 16^3, exactly timed."""
    work = tiled(side, side, 16, 64)
    return lambda: exact_cycles_of(*work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    series: list[tuple[str, str, Callable[[int], Callable[[], Any]], tuple[int, ...]]] = [
        ("chips, one product, bound", "chips", points, (100, 1_000, 10_000, 100_000)),
        ("layers, exact time", "layers", layers, (8, 64, 512)),
        ("tiles of a product, exact time of 64 chips", "side", tiles, (160, 1_600, 16_000)),
    ]
    for title, unit, make, counts in series:
        print(title)
        for count in counts:
            seconds = median(make(count), args.repeats)
            print(f"  {count:>9,} {unit:<8}{seconds * 1e3:>10.2f} ms CPU{seconds / count * 1e6:>12.2f} us each", flush=True)


if __name__ == "__main__":
    main()
