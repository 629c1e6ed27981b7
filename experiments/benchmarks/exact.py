"""Throughput of exact time: schedules per second, on one chip design at many speeds.

    python -m experiments.benchmarks.exact [--schedules 512] [--chips 8]

First tiled GEMMs of a thousand to a billion tiles, then the best mappings of ResNet-50 and BERT-base on seeded chips.
Compiled and warmed up before timing; every result is waited for.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import kpu_jax as kpu
from kpu_jax.explore.mapping_search import search
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES
from kpu_jax.model.batch import exact_cycles_of

SPACE = Path(__file__).parents[1] / "which_kpu" / "space.toml"
TILED = {  # name: (M = N = K, L3 tile, L2 tile)
    "one level, 10^3 tiles": (160, 160, 16),
    "one level, 1024^3 in 16^3 tiles": (1024, 1024, 16),
    "one level, 10^6 tiles": (1600, 1600, 16),
    "one level, 10^9 tiles": (16000, 16000, 16),
    "two levels with edge tiles, 3 x 10^4": (1000, 300, 32),
    "two levels with edge tiles, 3 x 10^10": (100_003, 300, 32),
}


def tiled(size: int, l3: int, l2: int, count: int) -> tuple[Any, Any, Any]:
    """`count` chips that differ in their clocks, with one cubic GEMM in cubic tiles."""
    chip = kpu.presets.datacenter()
    speeds = np.random.default_rng(0).uniform(0.5, 2.0, (3, count))
    chips = jax.tree.map(lambda v: np.full(count, float(v)), chip)
    for engine, factor in zip(("dma", "block_mover", "streamer"), speeds, strict=True):
        path = f"clocks.{engine}_mhz"
        chips = kpu.replace_path(chips, path, getattr(chips.clocks, f"{engine}_mhz") * factor)
    gemm, mapping = kpu.Gemm(size, size, size), kpu.Mapping(l3_tile=(l3,) * 3, l2_tile=(l2,) * 3)
    return chips, *(jax.tree.map(lambda v: np.full(count, float(v)), tree) for tree in (gemm.plain(), mapping))


def warm(run: Callable[[], Any], repeats: int = 3) -> float:
    """The shortest of several runs [s], after one that compiles."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=512, help="of each tiled GEMM")
    parser.add_argument("--chips", type=int, default=8, help="for the networks")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"device: {jax.devices()[0].device_kind} ({jax.default_backend()}), float64")

    start = time.perf_counter()
    exact_cycles_of(*tiled(160, 160, 16, args.schedules))
    print(f"first call {time.perf_counter() - start:.1f} s, compiling included")
    for name, sizes in TILED.items():
        problems = tiled(*sizes, args.schedules if sizes[0] == sizes[1] else max(args.schedules // 8, 2))
        count = len(problems[1].m)
        seconds = warm(lambda: exact_cycles_of(*problems))
        print(f"{name:<40} {count / seconds:9,.0f} per second, {seconds / count * 1e3:8.3f} ms each")

    space, _ = kpu.load_space(SPACE)
    net = kpu.networks.resnet50() + kpu.networks.bert_base()
    chips = space.chips(np.random.default_rng(args.seed).choice(len(space), args.chips, replace=False))
    found = search(chips, net.ops, SWEEP_STRATEGIES, ("edp",), finalists=4)
    fits = np.flatnonzero(np.isfinite(found.seconds.ravel()))
    chip, op, _ = np.unravel_index(fits, found.status.shape)
    problems = (
        jax.tree.map(lambda v: v[chip], chips),
        jax.tree.map(lambda v: np.asarray(v, np.float64)[op], net.ops),
        jax.tree.map(lambda v: v.reshape(-1)[fits], found.mappings),
    )
    seconds = warm(lambda: exact_cycles_of(*problems))
    print(f"{'best mappings of ResNet-50 and BERT-base':<40} {len(fits) / seconds:9,.0f} per second, {len(fits):,} schedules")


if __name__ == "__main__":
    main()
