"""`kpu-jax sweep`: a space of chips under budgets."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from kpu_jax.analysis import layer_table, short_names, sweep_table, text_table, write_csv
from kpu_jax.base.errors import check_number
from kpu_jax.base.outputs import new_files, write_whole
from kpu_jax.cli.arguments import add_study, raw, save_plot, study_of
from kpu_jax.explore.limits import CONSTRAINTS, OBJECTIVES
from kpu_jax.explore.processes import Processes, join, several
from kpu_jax.explore.study import Study
from kpu_jax.explore.sweep import SweepResult, sweep
from kpu_jax.explore.watched import is_watched, watch
from kpu_jax.hardware import save_config
from kpu_jax.simulator import simulate

EXACT = 96  # chips that a sweep times exactly at most
SHOWN = 16  # lines of the Pareto set that are printed
RESULTS = ("chip", "mapped_for", "latency_ms", "energy_mj", "edp_js", "area_mm2", "power_w")

EXAMPLES = """example of a study, space.toml:
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
says whether that was reached (certified). Writes answer.txt, study.toml, table.csv, layers.csv, best_chip.yaml,
pareto.png and performance.png, all or none; kpu-jax report FOLDER makes a page of them.
With --store FOLDER the parts are kept there: whatever ends the command, the same command goes on from there, to the
same bits. Values may be a grid, {start = 8, stop = 64, step = 2, scale = "log"}, and
where = ["rows == cols"] passes over chips. Under SLURM, or with --coordinator, all processes share the parts; if one is
lost, the others name it and end with status 75: run the same command again. With --table FILE.parquet the figures of
every chip by the bound are written there, however many they are."""


def add(commands: Any) -> None:
    """Add the command and its arguments."""
    study = commands.add_parser(
        "sweep", help="a space of chips under budgets: Pareto table and best chips", formatter_class=raw, epilog=EXAMPLES
    )
    add_study(study)
    study.add_argument("--exact", metavar="N", type=int, default=EXACT, help=f"chips to time exactly at most (default {EXACT})")
    study.add_argument("--store", metavar="FOLDER", type=Path, help="keep every part, so that the same command can go on")
    study.add_argument("--table", metavar="FILE.parquet", type=Path, help="the figures of every chip by the bound")
    study.add_argument("--coordinator", metavar="ADDRESS:PORT", help="of process 0, to sweep with several processes")
    study.add_argument("--processes", metavar="N", type=int, help="how many there are")
    study.add_argument("--process", metavar="I", type=int, help="which this is, from 0")
    study.set_defaults(command=_sweep)


def _sweep(args: argparse.Namespace) -> int:
    study = study_of(args)
    text = args.study.read_text(encoding="utf-8")  # as it was when the sweep began
    check_number("--exact", args.exact, "chips", low=1, integer=True)
    shared = (args.coordinator, args.processes, args.process)
    if several(*shared) and not is_watched():
        return watch([sys.executable, "-m", "kpu_jax.cli", *args.words], args.store)
    join(*shared)
    if Processes().this:
        _swept(study, args.exact, args.store, args.table)  # process 0 prints and writes
        return 0
    with new_files(args.output) as folder:
        question = _question(study)
        print(question)
        result = _swept(study, args.exact, args.store, args.table)
        answer = _answer(result)
        print(answer)
        _write(result, folder)
        write_whole(folder / "answer.txt", f"kpu-jax {shlex.join(args.words)}\n\n{question}\n\n{answer}\n")
        write_whole(folder / "study.toml", text)
    print(f"wrote answer.txt, study.toml, table.csv, layers.csv, best_chip.yaml, pareto.png and performance.png to {args.output}/")
    return 0


def _swept(study: Study, exact: int, store: Path | None, table: Path | None) -> SweepResult:
    from tqdm import tqdm

    with (
        tqdm(total=len(study.space), unit="chip", unit_scale=True, desc="screening") as screened,
        tqdm(total=exact, unit="chip", desc="exact times") as timed,
    ):
        return sweep(
            study.space, study.workload, objective=study.objective, constraints=study.constraints, retime_chips=exact,
            progress=screened.update, timed=timed.update, store=store, table=table,
        )  # fmt: skip


def _question(study: Study) -> str:
    limits = ", ".join(f"{name} at most {value:g} {CONSTRAINTS[name]}" for name, value in study.constraints.items())
    return (
        f"{study.space}\nworkload: one pass of each of {', '.join(study.names)}: {study.workload.macs.sum():,} MACs\n"
        f"objective {study.objective}; limits: {limits or 'none'}"
    )


def _answer(result: SweepResult) -> str:
    s, r = result.summary, result.retimed
    rows = [row for row in sweep_table(result) if row["pareto"]]
    lines = [
        f"{s.chips:,} chips screened ({s.evaluations:,} evaluations), {s.met:,} may keep the limits; {r.chips} timed exactly.",
        f"Pareto set of these by exact time (latency, energy, area), best {result.objective} first:",
    ]
    labels = short_names(result.space.paths)
    axes = [labels[paths[0]] for paths, _ in result.space.geometry + result.space.speed]  # the other fields follow the first
    lines.append(text_table(rows[:SHOWN], [*(c for c in RESULTS if c in rows[0]), *axes]))
    if len(rows) > SHOWN:
        lines.append(f"... and {len(rows) - SHOWN} more in table.csv")
    for name in OBJECTIVES:
        point, value = r.best(name)
        unit = {"latency": "s", "energy": "pJ", "edp": "J s"}[name]
        cut = "certified: no other chip of the space can be better" if result.certified[name] else (
            f"not certified: a chip that was not timed exactly cannot be below {result.floor[name]:.4g}"
        )  # fmt: skip
        lines.append(f"best {name}: chip {r.ids[point]}, {value:.4g} {unit} ({cut})")
    return "\n".join(lines)


def _write(result: SweepResult, folder: Path) -> None:
    """table.csv, layers.csv, best_chip.yaml and the plots."""
    from kpu_jax.visualization import plot_pareto, plot_performance

    chip, net = result.best_chip(), result.workload
    mappings = result.retimed.mapping(result.retimed.best(result.objective)[0])
    report = simulate(chip, net, mappings)
    write_csv(sweep_table(result), folder / "table.csv")
    write_csv(layer_table(net, report, mappings), folder / "layers.csv")
    save_config(chip, folder / "best_chip.yaml")
    save_plot(plot_pareto(result), folder / "pareto.png")
    save_plot(plot_performance(report, net.row_names), folder / "performance.png")
