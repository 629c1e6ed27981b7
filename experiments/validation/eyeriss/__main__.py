"""AlexNet and VGG-16 on an Eyeriss-like chip: external bytes and time of every layer beside the measured ones.

    python -m experiments.validation.eyeriss [--alexnet FILE] [--vgg16 FILE]

FILE has the columns of tests/reference/data/eyeriss_alexnet.csv: Chen et al., JSSC 2017, batches of 4 (AlexNet) and 3
(VGG-16), 16 bits, 200 MHz. Each layer runs by the mapping found that costs least at the energies per access of Chen et al.,
ISCA 2016, table 4 (of 16 bits: DRAM 200, global buffer 6, scratchpad 1), partial sums of 16 bits. Printed beside the
measured values: the simulated bytes without the zeros of what is read (Eyeriss codes runs of zeros, the KPU does not);
the operands once; the time of the multiply-adds on the PEs that were active. Nothing is fitted.

Checked: no layer moves fewer bytes than its operands once, or takes less time than its multiply-adds on all PEs. Prints
`rows N mismatches X`, exits with 1 if there are any. VGG-16's table was entered by hand; its times and bytes add up to its totals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import kpu_jax as kpu
from experiments.validation import tables
from experiments.validation.eyeriss.networks import NETWORKS
from experiments.validation.least_energy import least_energy
from kpu_jax.base.errors import KPUError
from kpu_jax.hardware import derived

PRICES = {"dram": 100.0, "l3": 3.0, "l2": 0.5}  # multiply-adds of 16 bits per byte
COLUMNS = ("Layer", "Total Latency (ms)", "Processing Latency (ms)", "Num. of Active PEs", "Zeros in Ifmaps", "DRAM Accesses (MB)")
MB = 1e6
HEADER = (
    f"{'':<10}{'MB measured':>12}{'simulated':>11}{'no zeros':>10}{'once':>7}"
    f"{'ms total':>10}{'processing':>12}{'simulated':>11}{'PE-bound':>10}   held longest"
)  # fmt: skip


def _number(file: str, line: int, name: str, cell: str) -> float:
    try:
        return float(cell.removesuffix("%"))
    except ValueError:
        raise KPUError(f"{file}, line {line}, {name} = {cell!r}: not a number") from None


def check_network(name: str, file: str) -> tuple[int, list[str]]:
    """(rows, mismatches) of one network; prints its table."""
    net, cfg = NETWORKS[name](), kpu.load_config(Path(__file__).with_name("chip.yaml"))
    hz, peak = float(cfg.clocks.fabric_mhz) * 1e6, float(derived.peak_macs_per_cycle(cfg, 16))
    mismatches, sums = [], np.zeros(5)
    print(f"{name}\n{HEADER}")
    rows = [(line, cells) for line, cells in tables.read_table(file, COLUMNS) if cells["Layer"] in net]
    for line, cells in rows:
        layer, op = cells["Layer"], net[cells["Layer"]]
        total, processing, active, zeros, measured = (_number(file, line, c, cells[c]) for c in COLUMNS[1:])
        mapping = least_energy(cfg, op, PRICES).mapping
        r = kpu.simulate(cfg, op, mapping).check()
        moved, once, seconds = float(sum(r.traffic["dram"].values())), float(r.compulsory), float(r.seconds)
        coded = moved - float(r.traffic["dram"]["A"]) * zeros / 100
        bound = float(r.macs) / (active * hz)
        sums += measured, moved / MB, coded / MB, total, seconds * 1e3
        print(
            f"{layer:<10}{measured:>12.1f}{moved / MB:>11.2f}{coded / MB:>10.2f}{once / MB:>7.2f}"
            f"{total:>10.1f}{processing:>12.1f}{seconds * 1e3:>11.1f}{bound * 1e3:>10.1f}   {r.bound_by}"
        )
        if moved < once * (1 - 1e-12):
            mismatches.append(f"{name} {layer}: moves {moved:,.0f} bytes, its operands are {once:,.0f}")
        if seconds < float(r.macs) / (peak * hz):
            mismatches.append(f"{name} {layer}: {seconds:.4f} s, faster than all PEs")
    print(f"{'all':<10}{sums[0]:>12.1f}{sums[1]:>11.2f}{sums[2]:>10.2f}{'':>7}{sums[3]:>10.1f}{'':>12}{sums[4]:>11.1f}\n")
    return len(rows), mismatches


def main(argv: Sequence[str] | None = None) -> int:
    parser = tables.parser("eyeriss", __doc__)
    for name in NETWORKS:
        parser.add_argument(f"--{name}", metavar="FILE", default=str(tables.DATA / f"eyeriss_{name}.csv"))

    def check(args: argparse.Namespace) -> int:
        found = [check_network(name, getattr(args, name)) for name in NETWORKS]
        return tables.report(sum(rows for rows, _ in found), [m for _, mismatches in found for m in mismatches])

    return tables.run(check, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
