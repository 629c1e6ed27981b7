"""Throughput of exact time: schedules per second, best mappings of ResNet-50 and BERT-base on seeded chips.

    python -m experiments.benchmarks.exact [--chips 8]

Compiled and warmed up before timing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import numpy as np

import kpu_jax as kpu
from kpu_jax.explore.mapping_search import search
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES
from kpu_jax.model.batch import exact_cycles_of

SPACE = Path(__file__).parents[1] / "which_kpu" / "space.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
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
    warm = []
    for _ in range(3):
        start = time.perf_counter()
        exact_cycles_of(*problems)
        warm.append(time.perf_counter() - start)
    print(f"device: {jax.devices()[0].device_kind} ({jax.default_backend()}), float64")
    print(f"{len(fits):,} schedules, {found.seconds[np.isfinite(found.seconds)].sum() * 1e3:,.1f} ms of chip time")
    print(f"warm {min(warm):.2f} s: {len(fits) / min(warm):,.0f} exact times per second")


if __name__ == "__main__":
    main()
