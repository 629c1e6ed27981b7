"""The command line: `kpu-jax run` one chip, `kpu-jax sweep` a space of chips."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kpu_jax.analysis import layer_table, short_names, sweep_table, text_table, write_csv
from kpu_jax.base.errors import KPUError, check_number
from kpu_jax.base.outputs import new_files
from kpu_jax.explore.limits import OBJECTIVES, limits_of
from kpu_jax.explore.mapping_search import best_mapping
from kpu_jax.explore.study import Study, load_study
from kpu_jax.explore.sweep import SweepResult, sweep
from kpu_jax.hardware import KPUConfig, load_config, preset, save_config
from kpu_jax.hardware.io import SUFFIXES
from kpu_jax.hardware.presets import PRESET_NAMES
from kpu_jax.simulator import simulate
from kpu_jax.version import __version__
from kpu_jax.workload import Gemm, Workload, network
from kpu_jax.workload.networks import NETWORK_NAMES

EXACT = 96  # chips that a sweep times exactly at most
SHOWN = 16  # lines of the Pareto set that are printed
RESULTS = ("chip", "mapped_for", "latency_ms", "energy_mj", "edp_js", "area_mm2", "power_w")
PICTURES = (".png", ".pdf", ".svg")

RUN_EXAMPLES = """examples:
  kpu-jax run edge_ai --matmul 128x768x768
  kpu-jax run edge_ai --network resnet50 --layers
  kpu-jax run my_chip.yaml --network bert_base --option batch=8 --option sequence=384
  kpu-jax run edge_ai --network resnet50 --set compute.tile_count=4 --set clocks.fabric_mhz=1000

CHIP is a preset or a YAML or JSON file. Every operation runs under the best mapping of a stated set, decided by
exact time: the same cycles as walking the schedule block by block. The first answer compiles for some seconds."""

EXAMPLES = """examples:
  kpu-jax run edge_ai --matmul 128x768x768           one GEMM on a preset: cycles, energy, traffic, mapping
  kpu-jax run edge_ai --network resnet50 --layers    a network, layer by layer
  kpu-jax sweep space.toml                           which of many chips is best within a budget
kpu-jax COMMAND --help explains each."""

SWEEP_EXAMPLES = """example of a study, space.toml:
  base = "edge_ai"                        # preset or configuration file: every other field
  workload = ["resnet50", {network = "bert_base", batch = 8}]
  objective = "edp"                       # or latency, energy
  [constraints]                           # upper limits: area_mm2, power_w, tdp_w, seconds, energy_pj
  area_mm2 = 60
  [[axis]]                                # fields that vary together, and their values
  fields = ["compute.processor_array.rows", "compute.processor_array.cols"]
  values = [8, 16, 32]

Every chip is screened by a lower bound on its time under a stated set of mappings; then the most promising and a
spread of the Pareto front are timed exactly, until no other chip can be better or --exact chips are timed. Each answer
says whether that was reached (certified). Writes table.csv, layers.csv, best_chip.yaml, pareto.png and
performance.png, all or none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 2 for wrong input."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        args.command(args)
    except KPUError as error:
        print(f"kpu-jax: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kpu-jax: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="kpu-jax", description="Simulate the Stillwater Knowledge Processing Unit.", formatter_class=raw, epilog=EXAMPLES
    )
    parser.add_argument("--version", action="version", version=f"kpu-jax {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="one chip, one workload: cycles, energy, traffic", formatter_class=raw, epilog=RUN_EXAMPLES)
    run.add_argument("chip", metavar="CHIP", help=f"preset ({', '.join(PRESET_NAMES)}) or configuration file")
    what = run.add_mutually_exclusive_group(required=True)
    what.add_argument("--matmul", metavar="MxNxK", help="C[m,n] = A[m,k] B[k,n]")
    what.add_argument("--network", metavar="NAME", help=", ".join(NETWORK_NAMES))
    run.add_argument("--option", metavar="NAME=VALUE", action="append", default=[], help="option of the network, such as batch=8")
    run.add_argument("--dtype", help="number format (default int8)")
    run.add_argument("--set", metavar="FIELD=VALUE", action="append", default=[], help="change a field of the chip")
    run.add_argument("--objective", choices=OBJECTIVES, default="edp", help="what the mappings minimise (default edp)")
    run.add_argument("--layers", action="store_true", help="print one line per layer")
    run.add_argument("--csv", metavar="FILE", type=Path, help="write one line per layer, with its mapping")
    run.add_argument("--plot", metavar="FILE", type=Path, help="write a bar chart of the layers (png, pdf or svg)")
    run.set_defaults(command=_run)

    study = commands.add_parser(
        "sweep", help="a space of chips under budgets: Pareto table and best chips", formatter_class=raw, epilog=SWEEP_EXAMPLES
    )
    study.add_argument("study", metavar="FILE.toml", type=Path, help="space, workload, objective and constraints")
    study.add_argument("--objective", choices=OBJECTIVES, help="in place of the file's")
    study.add_argument("--limit", metavar="NAME=VALUE", action="append", default=[], help="a constraint, such as area_mm2=40")
    study.add_argument("--exact", metavar="N", type=int, default=EXACT, help=f"chips to time exactly at most (default {EXACT})")
    study.add_argument("--output", metavar="FOLDER", type=Path, default=Path("results"), help="default: results")
    study.set_defaults(command=_sweep)
    return parser


def _pairs(option: str, given: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE words as a dict; numbers and true/false become such."""
    pairs: dict[str, Any] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise KPUError(f"{option} {word!r}: write NAME=VALUE")
        pairs[name] = _value(value)
    return pairs


def _value(text: str) -> Any:
    """A number, true or false, a list separated by commas, or text."""
    if "," in text:
        return [_value(part) for part in text.split(",")]
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:  # also of integers with thousands of digits
            pass
    return text


def _chip(name: str) -> KPUConfig:
    if name in PRESET_NAMES:
        return preset(name)
    if Path(name).suffix.lower() in SUFFIXES:
        return load_config(name)
    if "." in name or "/" in name:
        raise KPUError(f"{name}: a configuration file ends in {', '.join(SUFFIXES)}")
    return preset(name)  # raises, with the nearest names


def _matmul(text: str, dtype: str | None) -> Gemm:
    try:
        m, n, k = (int(p) for p in text.lower().split("x"))
    except ValueError:
        raise KPUError(f"--matmul {text!r}: write three integers M x N x K, such as 128x768x768") from None
    return Gemm(m=m, n=n, k=k, dtype=dtype or "int8")


def _run(args: argparse.Namespace) -> None:
    for option, path in (("--csv", args.csv), ("--plot", args.plot)):
        _check_target(option, path)
    chip = _chip(args.chip)
    changes = _pairs("--set", args.set)
    chip = chip.replace(changes) if changes else chip
    options = _pairs("--option", args.option)
    if args.dtype and "dtype" in options:
        raise KPUError("--dtype and --option dtype=... are the same: give one")
    options |= {"dtype": args.dtype} if args.dtype else {}
    if args.matmul is not None:
        if set(options) - {"dtype"}:
            raise KPUError("--option is for networks; a matmul has only --dtype")
        workload = Workload.from_ops([("matmul", _matmul(args.matmul, args.dtype))])
    else:
        workload = network(args.network, **options)
    print("searching mappings (compiles first, some seconds)...", file=sys.stderr)
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

        _save(plot_performance(report, workload.row_names), args.plot)


def _sweep(args: argparse.Namespace) -> None:
    study = load_study(args.study)
    limits = {**study.constraints, **limits_of(_pairs("--limit", args.limit))}
    objective = args.objective or study.objective
    check_number("--exact", args.exact, "chips", low=1, integer=True)
    with new_files(args.output) as folder:
        print(f"{study.space}\nworkload: one pass of each of {', '.join(study.names)}: {study.workload.macs.sum():,} MACs")
        print(f"objective {objective}; limits: {', '.join(f'{k} {v:g}' for k, v in limits.items()) or 'none'}")
        result = _swept(study, objective, limits, args.exact)
        _print(result)
        _write(result, folder)
    print(f"wrote table.csv, layers.csv, best_chip.yaml, pareto.png and performance.png to {args.output}/")


def _swept(study: Study, objective: str, limits: dict[str, Any], exact: int) -> SweepResult:
    from tqdm import tqdm

    with (
        tqdm(total=len(study.space), unit="chip", unit_scale=True, desc="screening") as screened,
        tqdm(total=exact, unit="chip", desc="exact times") as timed,
    ):
        return sweep(
            study.space, study.workload, objective=objective, constraints=limits, retime_chips=exact,
            progress=screened.update, timed=timed.update,
        )  # fmt: skip


def _print(result: SweepResult) -> None:
    s, r = result.summary, result.retimed
    rows = [row for row in sweep_table(result) if row["pareto"]]
    print(f"{s.chips:,} chips screened ({s.evaluations:,} evaluations), {s.met:,} may keep the limits; {r.chips} timed exactly.")
    print(f"Pareto set of these by exact time (latency, energy, area), best {result.objective} first:")
    labels = short_names(result.space.paths)
    axes = [labels[paths[0]] for paths, _ in result.space.geometry + result.space.speed]  # the other fields follow the first
    print(text_table(rows[:SHOWN], [*(c for c in RESULTS if c in rows[0]), *axes]))
    if len(rows) > SHOWN:
        print(f"... and {len(rows) - SHOWN} more in table.csv")
    for name in OBJECTIVES:
        point, value = r.best(name)
        unit = {"latency": "s", "energy": "pJ", "edp": "J s"}[name]
        cut = "certified: no other chip of the space can be better" if result.certified[name] else (
            f"not certified: a chip that was not timed exactly cannot be below {result.floor[name]:.4g}"
        )  # fmt: skip
        print(f"best {name}: chip {r.ids[point]}, {value:.4g} {unit} ({cut})")


def _write(result: SweepResult, folder: Path) -> None:
    """table.csv, layers.csv, best_chip.yaml and the plots."""
    from kpu_jax.visualization import plot_pareto, plot_performance

    chip, net = result.best_chip(), result.workload
    mappings = result.retimed.mapping(result.retimed.best(result.objective)[0])
    report = simulate(chip, net, mappings)
    write_csv(sweep_table(result), folder / "table.csv")
    write_csv(layer_table(net, report, mappings), folder / "layers.csv")
    save_config(chip, folder / "best_chip.yaml")
    _save(plot_pareto(result), folder / "pareto.png")
    _save(plot_performance(report, net.row_names), folder / "performance.png")


def _check_target(option: str, path: Path | None) -> None:
    """Notice a file that cannot be written before the work, not after it."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise KPUError(f"{option} {path}: " + ("is a folder; name a file" if path.is_dir() else f"there is no folder {path.parent}"))
    if option == "--plot" and path is not None and path.suffix.lower() not in PICTURES:
        raise KPUError(f"{option} {path}: the name must end in {', '.join(PICTURES)}")


def _save(ax: Any, path: Path) -> None:
    try:
        ax.get_figure().savefig(path, dpi=150, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise KPUError(f"{path}: cannot be written: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
