"""A billion evaluations (chip x mapping x operation, by bound) in one sweep, and what exact re-timing of its best costs.

    python -m experiments.billion [--exact 16]

The space of `which_kpu/million.toml`, cut to as many chips as give at least 10^6, 10^7, 10^8 and 10^9 evaluations of
ResNet-50 and BERT-base. Compiled before timing. Prints the rate of each, the peak of the process's memory, and for the
last: the front, chips timed exactly, seconds for each, whether the cut was certified.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import jax
import numpy as np

import kpu_jax as kpu
from kpu_jax.explore.blocks import blocks_of
from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.explore.retime import retime
from kpu_jax.explore.screening import evaluate_range
from kpu_jax.explore.sweep import SweepResult

STUDY = Path(__file__).parents[1] / "which_kpu" / "million.toml"
SIZES = (10**6, 10**7, 10**8, 10**9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exact", type=int, default=16, help="chips to time exactly at most")
    args = parser.parse_args()
    study = kpu.load_study(STUDY)
    space, ops, limits = study.space, study.workload.ops, study.constraints
    probe = evaluate_range(space, ops, 0, 1, constraints=limits)  # compiles
    print(f"{len(jax.local_devices())} x {jax.devices()[0].device_kind}; {len(space):,} chips, {probe.evaluations:,} evaluations each; "
          f"{blocks_of(space, ops)}")  # fmt: skip
    for size in SIZES:
        chips = min(-(-size // probe.evaluations), len(space))
        first = int(np.random.default_rng(0).integers(0, len(space) - chips + 1))
        begun = time.perf_counter()
        summary = evaluate_range(space, ops, first, first + chips, constraints=limits)
        seconds = time.perf_counter() - begun
        print(f"{summary.evaluations:>13,} evaluations, {summary.chips:>9,} chips: {seconds:7.2f} s, "
              f"{summary.evaluations / seconds / 1e6:6.1f} M/s, peak {_peak():.2f} GB, front of {len(summary.front_ids)}")  # fmt: skip
    begun = time.perf_counter()
    retimed = retime(space, study.workload, summary, study.objective, limits, args.exact)
    seconds = time.perf_counter() - begun
    result = SweepResult(space, study.workload, study.objective, limits, summary, retimed)
    print(f"{retimed.chips} chips timed exactly (compilation included): {seconds:.1f} s, {seconds / retimed.chips:.2f} s each")
    print("certified within the range: " + ", ".join(f"{name} {result.certified[name]}" for name in OBJECTIVES))
    print(f"peak {_peak():.2f} GB")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
