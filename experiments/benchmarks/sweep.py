"""Throughput of the fused sweep: evaluations (one chip x one mapping x one operation) per second.

    python -m experiments.benchmarks.sweep [--geometries 6] [--repeats 5]

Each evaluation gives traffic, time (lower bound) and energy, reduced on the device to the best mapping of each
operation and the totals of each chip. Traffic and dynamic energy do not depend on a chip's speeds and are shared by all
speeds of a geometry; both stages are also given apart. Compiled and warmed up before timing; every run is waited for.
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
from kpu_jax.explore.kernel import evaluate_block, lay_block
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES

SPACE = Path(__file__).parents[1] / "which_kpu" / "space.toml"
KPU_SIM = (255, 271)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometries", type=int, default=8, help="geometries per block, each at every speed")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    space, _ = kpu.load_space(SPACE)
    net = kpu.networks.resnet50() + kpu.networks.bert_base()
    base64, ops64 = (jax.tree.map(lambda v: np.asarray(v, np.float64), t) for t in (space.base, net.ops))
    strategies, blocks = np.asarray(SWEEP_STRATEGIES), iter(range(0, space.geometries, args.geometries))

    def float32(tree):
        return jax.tree.map(lambda v: v.astype(np.float32), tree)

    base, ops, speed = float32(base64), float32(ops64), float32(space.speed_values(np.arange(space.speeds)))

    def run() -> tuple[float, float]:
        """Seconds to lay out a block of geometries, and to time and reduce it at every speed."""
        first = next(blocks)
        geometry = space.geometry_values(np.arange(first, first + args.geometries))
        start = time.perf_counter()
        with jax.enable_x64(True):
            laid = jax.block_until_ready(lay_block(base64, geometry, ops64, strategies))
        between = time.perf_counter()
        jax.block_until_ready(evaluate_block(base, float32(geometry), speed, ops, float32(laid), "edp"))
        return between - start, time.perf_counter() - between

    first = sum(run())
    lay, timed = (np.median(column) for column in zip(*(run() for _ in range(args.repeats)), strict=True))
    mappings = args.geometries * net.rows * len(strategies)
    count = mappings * space.speeds
    rate = count / (lay + timed)
    print(f"device: {jax.devices()[0].device_kind} ({jax.default_backend()}); work in float64, time in float32")
    print(f"block: {args.geometries} geometries x {space.speeds:,} speeds x {net.rows} operations x {len(strategies)} mappings = {count:,}")
    print(f"compile and first run {first:.1f} s; warm {lay + timed:.3f} s (median of {args.repeats})")
    print(f"{rate / 1e6:,.1f} million evaluations per second: {rate / KPU_SIM[1]:,.0f} times kpu-sim's {KPU_SIM[0]} to {KPU_SIM[1]}")
    print(f"apart: {mappings / lay / 1e6:,.2f} million mappings laid out (traffic, energy, fit) and "
          f"{count / timed / 1e6:,.1f} million timed and reduced per second")  # fmt: skip


if __name__ == "__main__":
    main()
