"""One configuration for measured GEMM times of a TPU, fitted by gradient and judged on rows that it was not fitted to.

    python -m experiments.validation.tpu_gemm [--csv FILE] [--stated]

The table has the columns set_up_to, m, n, k, mean_us. Three numbers are fitted, to all ranges of sizes at once: external
bandwidth, fabric clock, and a constant per call. The rest of the chip is stated in `chip`, and which mappings its
compiler takes in `RULES`. The held-out errors are those of rows left out at random, and of whole output shapes
(M x N and N x M with every K). Beside them stand the published median errors of two baselines that are refitted for
every range of sizes. `--stated` fits nothing and judges the numbers found for the default table on the rows of FILE.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import kpu_jax as kpu
from experiments.validation.tables import DATA, read_table
from kpu_jax.explore.finalists import finalists_on, timed

PUBLISHED = {"128": (0.051, 0.026), "1024": (0.090, 0.101), "4096": (0.062, 0.065)}  # linear in MNK; in SCALE-Sim's cycles
FREE = ("external_memory.bandwidth_gbps", "clocks.fabric_mhz")
STATED = {"external_memory.bandwidth_gbps": 995.0, "clocks.fabric_mhz": 1146.0, "overhead_us": 0.78}  # what the fit finds
RULES = kpu.MappingRules(largest_stays=True, whole_blocks=True)


def chip() -> kpu.KPUConfig:
    """Four arrays of 128 x 128 under 64 MiB, with movers that never limit; where the descent starts."""
    tiles = 4
    return kpu.presets.datacenter().replace(
        {
            "compute": {"tile_count": tiles, "processor_array": {"rows": 128, "cols": 128}, "drain_overlap": False},
            "on_chip_memory": {
                "l3": {"tile_count": 1, "tile_capacity_kb": 65536},
                "l2": {"bank_count": 16 * tiles, "bank_capacity_kb": 1024},
                "l1": {"buffer_capacity_kb": 64},
            },
            "external_memory": {"bank_count": 1, "bandwidth_gbps": 900},
            "memory_controller": {"page_buffer_capacity_kb": 4096},
            "data_movement": {"dma_engine_count": 1, "block_mover_count": tiles, "streamer_count": tiles},
            "buses": {"dma_bytes": 512, "block_mover_bytes": 8192, "streamer_bytes": 8192},
            "clocks": {"fabric_mhz": 1100, "dma_mhz": 4000, "block_mover_mhz": 1500, "streamer_mhz": 1500},
            "latency": {"external_ns": 0, "block_mover_ns": 2, "streamer_ns": 2},  # the memory's is in the constant
        }
    )


def fit(measured: kpu.Measurements, **options: Any) -> kpu.Calibration:
    """The chip calibrated to these times."""
    return kpu.calibrate(chip(), measured, FREE, rules=RULES, **{"overhead_us": 0.8, "steps": 150, "rounds": 3, **options})


def stated_times(workload: kpu.Workload) -> np.ndarray:
    """Seconds [row] on the chip with the `STATED` numbers, which are not fitted again."""
    stated = chip().replace({name: STATED[name] for name in FREE})
    return timed(stated, workload, finalists_on(stated, workload, RULES)) + STATED["overhead_us"] * 1e-6


def output_shapes(measured: kpu.Measurements) -> list[str]:
    """A label [row] of M and N, in whichever order."""
    ops = measured.workload.ops
    return [f"{min(m, n):.0f}x{max(m, n):.0f}" for m, n in zip(ops.m, ops.n, strict=True)]


def interval_of_median(errors: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """95 % confidence interval of the median over such rows (bootstrap)."""
    drawn = np.random.default_rng(0).choice(errors, (draws, len(errors)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return float(low), float(high)


def read(path: Path) -> tuple[kpu.Measurements, np.ndarray]:
    """(measurements, range of sizes [row]) of a table."""
    measured = kpu.load_measurements(path, dtype="fp32")
    table = read_table(path, ("set_up_to", "m", "n", "k", "mean_us"))
    range_of = {tuple(float(row[axis]) for axis in "mnk"): row["set_up_to"] for _, row in table}
    ops = measured.workload.ops
    return measured, np.array([range_of[m, n, k] for m, n, k in zip(ops.m.tolist(), ops.n.tolist(), ops.k.tolist(), strict=True)])


def show(ranges: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """Median errors by range of sizes, with the 95 % interval of each median."""
    print(f"{'up to':>6}{'rows':>6}" + "".join(f"{title:>25}" for title in columns) + f"{'linear in MNK':>16}{'SCALE-Sim cycles':>18}")
    for name in dict.fromkeys(ranges):
        line = f"{name:>6}{np.sum(ranges == name):6}"
        for errors in columns.values():
            low, high = interval_of_median(errors[ranges == name])
            line += f"{np.median(errors[ranges == name]):9.1%} ({low:5.1%}, {high:5.1%})"
        print(line + "".join(f"{e:{w}.1%}" for e, w in zip(PUBLISHED.get(name, (np.nan, np.nan)), (16, 18), strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=DATA / "tpu_gemm_us.csv")
    parser.add_argument("--stated", action="store_true", help="do not fit: judge the stated numbers on the rows of --csv")
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--folds", type=int, default=5)
    args = parser.parse_args()
    measured, ranges = read(args.csv)
    if args.stated:
        show(ranges, {"stated chip": np.abs(stated_times(measured.workload) / measured.seconds - 1)})
        return
    start = time.perf_counter()
    found = fit(measured, starts=args.starts, folds=args.folds)
    shapes = fit(measured, starts=1, folds=args.folds, groups=output_shapes(measured))
    print(f"{found}\nin {time.perf_counter() - start:.0f} s; median errors, one configuration for all ranges:\n")
    held_out = {"rows held out": found.errors(held_out=True), "shapes held out": shapes.errors(held_out=True)}
    show(ranges, {"fitted": found.errors(), **held_out})


if __name__ == "__main__":
    main()
