"""SCALE-Sim's compute cycles and SRAM accesses, from kpu_jax's own pass counting, traffic and fabric timing.

    python -m experiments.validation.scale_sim [--csv FILE]

FILE has the columns of tests/reference/data/scale_sim_cycles.csv; its counts of SRAM accesses are compared where the file
has them. Prints `rows N mismatches X` and the first mismatches; the exit status is 1 if there are any, and 2 for a file
that cannot be used.

Its rules, where they differ from ours: passes (its folds) fill and drain one after the other, which is our
`compute.fold_overlap=False`; memory never stalls the array, so that a run lasts as long as the fabric is held; there is one
tile, whatever the memories hold; and an output-stationary fold counts rows + cols writes more than there are results.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import kpu_jax as kpu
from experiments.validation import tables
from kpu_jax.base.errors import MAX_DIMENSION, MAX_MACS, KPUError, check_choice
from kpu_jax.hardware.fields import FIELDS
from kpu_jax.mapping.visits import lay_out

SIZES = ("M", "N", "K", "rows", "cols")
CYCLES = ("folds", "total_cycles")
ACCESSES = ("sram_ifmap_reads", "sram_filter_reads", "sram_ofmap_writes")  # of A, B and C
MOST = dict.fromkeys(("M", "N", "K"), MAX_DIMENSION) | {x: int(FIELDS[f"compute.processor_array.{x}"].high) for x in ("rows", "cols")}
DATAFLOWS = {"os": "output_stationary", "ws": "weight_stationary", "is": "input_stationary"}
ONE_BYTE = {"dtype": "int8", "acc_dtype": "int8"}  # bytes count elements


@jax.jit
def _folds(op: Any, mapping: Any, rows: Any, cols: Any) -> Any:
    layout = lay_out(op, mapping, rows, cols, 1.0)
    return layout.m.passes * layout.n.passes * layout.k.passes


def results(M: int, N: int, K: int, rows: int, cols: int, dataflow: str) -> dict[str, int]:
    """What SCALE-Sim reports for C[M,N] = A[M,K] B[K,N] on an array of rows x cols PEs."""
    array = {"compute.processor_array": {"rows": rows, "cols": cols}, "compute.fold_overlap": False, "precision.macs_8": 1}
    cfg = kpu.presets.minimal().replace(array)
    gemm = kpu.Gemm(M, N, K, **ONE_BYTE)
    whole = kpu.Mapping(dataflow=DATAFLOWS[dataflow], l3_tile=(M, N, K), l2_tile=(M, N, K))
    report = kpu.simulate(cfg, gemm, whole, timing="bound")  # what the fabric must do is exact in it
    with jax.enable_x64(True):
        folds = int(_folds(gemm.plain(), whole, np.float64(rows), np.float64(cols)))
    return {
        "folds": folds,
        "total_cycles": int(report.busy["fabric"]),
        "sram_ifmap_reads": int(report.reads["l1"]["A"]),
        "sram_filter_reads": int(report.reads["l1"]["B"]),
        "sram_ofmap_writes": int(report.reads["pe"]["C"]) + (folds * (rows + cols) if dataflow == "os" else 0),
    }


def check_table(file: str) -> int:
    """Compare every row of a table of results."""
    mismatches, rows = [], tables.read_table(file, (*SIZES, "dataflow", *CYCLES))
    for line, cells in rows:
        sizes = {name: tables.integer(file, line, name, cells[name], 1, MOST[name]) for name in SIZES}
        flow = check_choice(f"{file}, line {line}, dataflow", cells["dataflow"].lower(), DATAFLOWS)
        given = [name for name in (*CYCLES, *ACCESSES) if name in cells]
        expected = {name: tables.integer(file, line, name, cells[name]) for name in given}
        macs = sizes["M"] * sizes["N"] * sizes["K"]
        if macs > MAX_MACS:
            raise KPUError(f"{file}, line {line}, M x N x K = {macs:,}: must be at most 2^53, up to which counts are exact")
        if text := tables.differences(expected, results(**sizes, dataflow=flow)):
            mismatches.append(f"line {line}: {text}; {sizes}, {flow}")
    return tables.report(len(rows), mismatches)


def main(argv: Sequence[str] | None = None) -> int:
    parser = tables.parser("scale_sim", __doc__)
    parser.add_argument("--csv", metavar="FILE", default=str(tables.DATA / "scale_sim_cycles.csv"))
    return tables.run(lambda args: check_table(args.csv), parser, argv)


if __name__ == "__main__":
    sys.exit(main())
