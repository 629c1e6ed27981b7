"""`kpu-jax run`: one chip, one workload."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kpu_jax.analysis import layer_table, text_table, write_csv
from kpu_jax.base.errors import KPUError
from kpu_jax.cli.arguments import add_workload, check_target, chip_and_workload, raw, save_plot
from kpu_jax.explore.mapping_search import best_mapping
from kpu_jax.graph import plan_network
from kpu_jax.hardware import KPUConfig
from kpu_jax.hardware.presets import PRESET_NAMES
from kpu_jax.simulator import simulate
from kpu_jax.workload import Workload

EXAMPLES = """examples:
  kpu-jax run edge_ai --matmul 128x768x768
  kpu-jax run edge_ai --network resnet50 --layers
  kpu-jax run my_chip.yaml --network bert_base --option batch=8 --option sequence=384
  kpu-jax run edge_ai --network bert_base --option vector_ops=true --graph --layers
  kpu-jax run edge_ai --network resnet50 --set compute.tile_count=4 --set clocks.fabric_mhz=1000

CHIP is a preset or a YAML or JSON file. Every operation runs under the best mapping of a stated set, decided by
exact time: the same cycles as walking the schedule block by block. The first answer compiles for some seconds.
With --graph operations are fused and results stay on the chip where that is cheaper."""


def add(commands: Any) -> None:
    """Add the command and its arguments."""
    run = commands.add_parser("run", help="one chip, one workload: cycles, energy, traffic", formatter_class=raw, epilog=EXAMPLES)
    run.add_argument("chip", metavar="CHIP", help=f"preset ({', '.join(PRESET_NAMES)}) or configuration file")
    add_workload(run, required=True)
    run.add_argument("--layers", action="store_true", help="print one line per layer")
    run.add_argument("--csv", metavar="FILE", type=Path, help="write one line per layer, with its mapping")
    run.add_argument("--plot", metavar="FILE", type=Path, help="write a bar chart of the layers (png, pdf or svg)")
    run.add_argument("--graph", action="store_true", help="run the whole network as a graph; also its pipeline and critical path")
    run.add_argument("--without", metavar="POLICY", action="append", default=[], choices=("fusion", "attention", "residency"),
                     help="with --graph: leave out fusion, attention (by row blocks) or residency (in L3)")  # fmt: skip
    run.set_defaults(command=_run)


def _run(args: argparse.Namespace) -> None:
    for option, path in (("--csv", args.csv), ("--plot", args.plot)):
        check_target(option, path)
    chip, workload = chip_and_workload(args)
    if args.without and not args.graph:
        raise KPUError("--without is for --graph: alone, operations are neither fused nor kept on the chip")
    print("searching mappings (compiles first, some seconds)...", file=sys.stderr)
    if args.graph:
        _run_graph(args, chip, workload)
        return
    mappings = best_mapping(chip, workload, objective=args.objective)
    report = simulate(chip, workload, mappings).check()
    rows = layer_table(workload, report, mappings)
    print(report)
    if args.layers:
        print(text_table(rows))
    elif args.matmul:
        print(f"{rows[0]['format']}; mapping {rows[0]['dataflow']}, L3 tile {rows[0]['l3_tile']}, L2 tile {rows[0]['l2_tile']}, "
              f"partition {rows[0]['partition']}; --layers shows all of it")  # fmt: skip
    if args.csv:
        write_csv(rows, args.csv)
    if args.plot:
        from kpu_jax.visualization import plot_performance

        save_plot(plot_performance(report, workload.row_names), args.plot)


def _run_graph(args: argparse.Namespace, chip: KPUConfig, workload: Workload) -> None:
    report = plan_network(chip, workload, objective=args.objective, **dict.fromkeys(args.without, "none"))
    print(report)
    if args.layers:
        print(text_table(report.table()))
    print(report.critical_path)
    print(report.pipeline)
    if args.csv:
        write_csv(report.table(), args.csv)
    if args.plot:
        from kpu_jax.visualization import plot_performance

        save_plot(plot_performance(report, report.plan.workload.row_names), args.plot)
