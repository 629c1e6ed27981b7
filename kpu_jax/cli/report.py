"""`kpu-jax report`: one HTML page of a run or of a sweep."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from kpu_jax.base.errors import KPUError
from kpu_jax.cli.arguments import add_workload, check_target, chip_and_workload, raw
from kpu_jax.explore.mapping_search import best_mapping
from kpu_jax.hardware.presets import PRESET_NAMES
from kpu_jax.simulator import simulate

EXAMPLES = """examples:
  kpu-jax report edge_ai --network resnet50 --output resnet50.html
  kpu-jax report edge_ai --matmul 128x768x768
  kpu-jax report results                       the folder that kpu-jax sweep wrote

The page holds everything that it shows and needs no network: summary, tables, plots, configuration, and how to
reproduce it."""


def add(commands: Any) -> None:
    """Add the command and its arguments."""
    report = commands.add_parser("report", help="a page with tables and plots, for a browser", formatter_class=raw, epilog=EXAMPLES)
    report.add_argument("chip", metavar="CHIP|FOLDER", help="preset or configuration file, or the folder of a sweep's results")
    add_workload(report, required=False)
    report.add_argument("--output", metavar="FILE.html", type=Path, default=Path("report.html"), help="default: report.html")
    report.set_defaults(command=_report)


def _report(args: argparse.Namespace) -> None:
    from kpu_jax.report_html import run_page, sweep_page

    check_target("--output", args.output)
    if args.output.suffix.lower() not in (".html", ".htm"):
        raise KPUError(f"--output {args.output}: the name must end in .html")
    workload_given = args.matmul is not None or args.network is not None
    if Path(args.chip).is_dir() and not (workload_given and args.chip in PRESET_NAMES):
        if workload_given or args.option or args.dtype or args.set:
            raise KPUError(f"{args.chip} is a folder of results: it takes no workload, no --dtype, no --set")
        page = sweep_page(Path(args.chip), f"kpu-jax report {shlex.quote(args.chip)} --output {shlex.quote(str(args.output))}")
    else:
        if not workload_given:
            raise KPUError(f"report {args.chip}: say what runs on it, by --matmul or --network; or name the folder of a sweep's results")
        chip, workload = chip_and_workload(args)
        print("searching mappings (compiles first, some seconds)...", file=sys.stderr)
        mappings = best_mapping(chip, workload, objective=args.objective)
        report = simulate(chip, workload, mappings).check()
        title = f"{args.network or f'matmul {args.matmul}'} on {args.chip}"
        page = run_page(title, chip, workload, mappings, report, _command(args))
    page.save(args.output)
    print(f"wrote {args.output}")


def _command(args: argparse.Namespace) -> str:
    words = ["kpu-jax", "report", args.chip]
    words += ["--matmul", args.matmul] if args.matmul is not None else ["--network", args.network]
    for option, values in (("--option", args.option), ("--set", args.set)):
        words += [word for value in values for word in (option, value)]
    words += ["--dtype", args.dtype] if args.dtype else []
    return shlex.join([*words, "--objective", args.objective, "--output", str(args.output)])
