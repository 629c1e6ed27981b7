"""One configuration for measured GEMM times of a TPU, fitted by gradient and judged on rows that it was not fitted to.

    python -m experiments.validation.tpu_gemm [--csv FILE]

The table has the columns set_up_to, m, n, k, mean_us. A weight- or input-stationary array of 128 x 128 stands for the
machine, with everything on chip generous; bandwidths, clocks, latencies and a constant per call are fitted to all rows
at once. Beside it stand the published median errors of two baselines that are refitted for every range of sizes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import kpu_jax as kpu
from experiments.validation.tables import DATA, read_table

PUBLISHED = {"128": (0.051, 0.026), "1024": (0.090, 0.101), "4096": (0.062, 0.065)}  # linear in MNK; in SCALE-Sim's cycles
FREE = (
    "external_memory.bandwidth_gbps", "clocks.fabric_mhz", "clocks.block_mover_mhz", "clocks.streamer_mhz",
    "latency.external_ns", "latency.block_mover_ns", "latency.streamer_ns", "vector.cycles_relu",
)  # fmt: skip


def chip() -> kpu.KPUConfig:
    """Eight arrays of 128 x 128, where the descent starts. Sizes and counts are assumptions, not fitted."""
    tiles = 8
    return kpu.presets.datacenter().replace(
        {
            "compute": {"tile_count": tiles, "processor_array": {"rows": 128, "cols": 128}},
            "on_chip_memory": {
                "l3": {"tile_count": 4, "tile_capacity_kb": 65536},
                "l2": {"bank_count": 16 * tiles, "bank_capacity_kb": 1024},
                "l1": {"buffer_capacity_kb": 64},
            },
            "external_memory": {"bank_count": 1, "bandwidth_gbps": 800},
            "memory_controller": {"page_buffer_capacity_kb": 4096},
            "data_movement": {"dma_engine_count": 1, "block_mover_count": tiles, "streamer_count": tiles},
            "buses": {"dma_bytes": 512, "block_mover_bytes": 512, "streamer_bytes": 512},
            "clocks": {"fabric_mhz": 500, "dma_mhz": 4000, "block_mover_mhz": 1000, "streamer_mhz": 1000},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=DATA / "tpu_gemm_us.csv")
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--folds", type=int, default=5)
    args = parser.parse_args()
    ranges = np.array([row["set_up_to"] for _, row in read_table(args.csv, ("set_up_to", "m", "n", "k", "mean_us"))])
    measured = kpu.load_measurements(args.csv, dtype="fp32", activation="relu")
    start = time.perf_counter()
    flows = ("weight_stationary", "input_stationary")
    found = kpu.calibrate(chip(), measured, FREE, dataflows=flows, overhead_us=0.5, starts=args.starts, folds=args.folds)
    print(f"{found}\nin {time.perf_counter() - start:.0f} s; median errors, one configuration for all ranges:\n")
    print(f"{'dimensions to':>14}{'rows':>6}{'fitted':>9}{'held out':>10}{'linear in MNK':>16}{'in SCALE-Sim cycles':>21}")
    for name in dict.fromkeys(ranges):
        rows = ranges == name
        errors = [np.median(found.errors(held_out=h)[rows]) for h in (False, True)]
        baselines = "".join(f"{e:{w}.1%}" for e, w in zip(PUBLISHED.get(name, (np.nan, np.nan)), (16, 21), strict=True))
        print(f"{name:>14}{rows.sum():6}{errors[0]:9.1%}{errors[1]:10.1%}{baselines}")


if __name__ == "__main__":
    main()
