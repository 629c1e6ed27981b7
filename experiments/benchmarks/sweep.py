"""Throughput of the fused sweep: evaluations (one chip x one mapping x one operation) per second.

    python -m experiments.benchmarks.sweep [--geometries 6] [--repeats 5]

Each evaluation gives traffic, time (lower bound) and energy, reduced on the device to the best mapping of each
operation and the totals of each chip. Compiled and warmed up before timing; every run is waited for.
The peer: the ScheduleCharacterizer of the C++ simulator kpu-sim does 255 to 271 evaluations per second on such
a machine (two cores).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import numpy as np

import kpu_jax as kpu
from kpu_jax.explore.kernel import evaluate_block
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES

SPACE = Path(__file__).parents[1] / "which_kpu" / "space.toml"
KPU_SIM = (255, 271)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometries", type=int, default=6, help="geometries per block, each at every speed")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    space, _ = kpu.load_space(SPACE)
    net = kpu.networks.resnet50() + kpu.networks.bert_base()

    def float32(tree):
        return jax.tree.map(lambda v: np.asarray(v, np.float32), tree)

    base, ops, strategies = float32(space.base), float32(net.ops), np.asarray(SWEEP_STRATEGIES, np.float32)
    speed = float32(space.speed_values(np.arange(space.speeds)))

    def run(first: int) -> float:
        geometry = float32(space.geometry_values(np.arange(first, first + args.geometries)))
        start = time.perf_counter()
        jax.block_until_ready(evaluate_block(base, geometry, speed, ops, strategies, "edp"))
        return time.perf_counter() - start

    first = run(0)
    warm = [run(args.geometries * (i + 1)) for i in range(args.repeats)]
    count = args.geometries * space.speeds * net.rows * len(strategies)
    rate = count / min(warm)
    print(f"device: {jax.devices()[0].device_kind} ({jax.default_backend()}), float32")
    print(f"block: {args.geometries} geometries x {space.speeds:,} speeds x {net.rows} operations x {len(strategies)} mappings = {count:,}")
    print(f"compile and first run {first:.1f} s; warm {min(warm):.3f} s (median {np.median(warm):.3f} s of {args.repeats})")
    print(f"{rate / 1e6:,.1f} million evaluations per second: {rate / KPU_SIM[1]:,.0f} times kpu-sim's {KPU_SIM[0]} to {KPU_SIM[1]}")


main()
