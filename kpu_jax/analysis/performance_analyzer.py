"""What a result says: where time, energy and bytes go, what binds, and what would help, in numbers."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from typing import Any

import numpy as np

from kpu_jax.analysis.bounds import Bounds, bounds
from kpu_jax.analysis.breakdown import UNUSED, WAITING, compare_reports, time_table, time_terms
from kpu_jax.analysis.findings import Analysis
from kpu_jax.analysis.run_analysis import check_run, run_advice, run_tables
from kpu_jax.analysis.sweep_analysis import sweep_analysis
from kpu_jax.analysis.what_if import advice_of, what_if
from kpu_jax.base.errors import KPUError
from kpu_jax.base.tables import Row
from kpu_jax.explore.sweep import SweepResult
from kpu_jax.hardware import KPUConfig
from kpu_jax.mapping import Mapping
from kpu_jax.model.report import Report, check_report, slowest
from kpu_jax.program import Program, Timeline
from kpu_jax.workload import Op, Workload

ACCEPTED = "a Report, a SweepResult, (program, timeline) of kpu.program, or a list or dict of reports"
CRITICAL = "critical path, and each class twice as fast"
MOST_BOUNDS = 12  # rows of a network whose bounds are listed, those that take longest


class PerformanceAnalyzer:
    """`PerformanceAnalyzer().analyze(result)`, `.compare(a, b)`."""

    def analyze(
        self, result: Any, *, chip: KPUConfig | None = None, workload: Op | Workload | None = None, mapping: Mapping | None = None
    ) -> Analysis:
        """The analysis of a `Report` (of an operation or a network), of an executed program, of a sweep, or of several reports.

        - A report: totals, where the cycles go (terms that add up), engine classes, energy, traffic and reuse, and the slowest
          operations. With `chip` and `workload` also what no schedule can beat; with the `mapping` (of a network one per row) also
          the critical path and what each engine class twice as fast would give, predicted by the gradient and simulated again.
        - `(program, timeline)` of `kpu.program.build` and `.execute`, or a timeline alone: busy and idle cycles by cause, bytes
          moved and held. With `chip` also its critical path and what-if table.
        - A `SweepResult`: the best chips with their certificates, the Pareto set, which fields decide, which limits bind.
        - A list of reports, or a dict {name: report}: side by side.

        Raises `InfeasibleError` for a report of a mapping that does not fit, `KPUError` for anything else.
        """
        given = {"chip": chip, "workload": workload, "mapping": mapping}
        if isinstance(result, SweepResult):
            _none_of(given, "a sweep")
            return sweep_analysis(result)
        if isinstance(result, Timeline):
            return _of_run(None, result, given)
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Program):
            return _of_run(*result, given)
        if isinstance(result, (list, tuple, MappingType)):
            _none_of(given, "several results")
            return _of_several(result)
        if not isinstance(result, Report):
            raise KPUError(f"analyze takes {ACCEPTED}, got {type(result).__name__}")
        return _of_report(check_report("the result", result), chip, workload, mapping)

    def compare(self, a: Report, b: Report) -> Analysis:
        """Why does `b` take more or less than `a`? See `compare_reports`."""
        return compare_reports(a, b)


def _none_of(given: dict[str, Any], what: str) -> None:
    if some := [name for name, value in given.items() if value is not None]:
        raise KPUError(f"the analysis of {what} takes no {', '.join(some)}: analyse one report for its critical path")


def _of_report(r: Report, chip: KPUConfig | None, workload: Op | Workload | None, mapping: Mapping | None) -> Analysis:
    tables: dict[str, list[Row]] = {
        "summary": _summary(r), "where the cycles go": time_table(r), "time by engine class": _busy(r), "energy": _energy(r),
        "traffic": _traffic(r), "slowest operations": slowest(r) if r.per_op is not None else [],
    }  # fmt: skip
    advice = _advice(r)
    if (chip is None) != (workload is None) or (mapping is not None and chip is None):
        raise KPUError("bounds need chip and workload, the critical path also the mapping: give both, or all three, or none")
    if chip is not None and workload is not None:
        least = bounds(chip, workload, r)
        named = [{"row": row["row"], "operation": least.names[row["row"]], **row} for row in tables["slowest operations"]]
        tables["slowest operations"] = named
        tables["against the least possible"] = _bound_rows(least)
        if mapping is not None:
            tables[CRITICAL] = what_if(chip, workload, mapping)
            advice += advice_of(tables[CRITICAL])
    if CRITICAL not in tables:
        advice += _class_advice(r)
    return Analysis(f"{float(r.cycles):,.0f} cycles, bound by {r.bound_by}", tables, _ranked(advice))


def _of_run(program: Program | None, timeline: Timeline, given: dict[str, Any]) -> Analysis:
    check_run("the run", timeline, program)
    if given["workload"] is not None or given["mapping"] is not None:
        raise KPUError("a program holds its own operation and mapping: give only the chip")
    tables = run_tables(timeline, program)
    advice = run_advice(timeline)
    if given["chip"] is not None:
        if program is None:
            raise KPUError("the critical path of a timeline needs its program: analyse (program, timeline)")
        tables[CRITICAL] = what_if(given["chip"], program.op, program.mapping)
        advice += _ranked(advice_of(tables[CRITICAL]))
    busy = timeline.busy_by_engine()
    return Analysis(f"{float(timeline.makespan):,.10g} cycles, {max(busy, key=lambda name: busy[name])} works longest", tables, advice)


def _of_several(results: Any) -> Analysis:
    named = results if isinstance(results, MappingType) else dict(enumerate(results))
    if not named:
        raise KPUError("nothing to analyse: there are no results")
    reports = {name: check_report(f"result {name}", report) for name, report in named.items()}
    fastest = min(reports, key=lambda name: float(reports[name].seconds))
    alike = len({float(r.macs) for r in reports.values()}) == 1
    rows = [
        {
            "result": name, "time [us]": float(r.seconds) * 1e6, "x fastest": float(r.seconds) / float(reports[fastest].seconds),
            "energy [uJ]": float(r.energy_pj) * 1e-6, "EDP [J s]": float(r.edp), "utilization %": 100 * float(r.utilization),
            "MACs": float(r.macs), "bound by": str(r.bound_by),
        }
        for name, r in reports.items()
    ]  # fmt: skip
    advice = [] if alike else ["these are of different workloads (their MACs differ): compare rates and utilization, not times"]
    return Analysis(f"{len(rows):,} results, the fastest is {fastest!r}", {"results": rows}, advice)


def _summary(r: Report) -> list[Row]:
    achieved, used = 2 * float(r.macs) / float(r.seconds) * 1e-12, float(r.utilization)
    rows = [
        ("cycles", float(r.cycles), "fabric cycles"), ("time", float(r.seconds) * 1e6, "us"), ("energy", float(r.energy_pj) * 1e-6, "uJ"),
        ("power", float(r.power_w), "W"), ("EDP", float(r.edp), "J s"), ("utilization", 100 * used, "% of peak"),
        ("achieved", achieved, "TOPS"), ("peak", achieved / used if used else None, "TOPS"),
        ("over the lower bound", float(r.cycles) / float(r.cycles_bound), "x"),
    ]  # fmt: skip
    return [{"quantity": name, "value": value, "unit": unit} for name, value, unit in rows]


def _busy(r: Report) -> list[Row]:
    rows = [{"class": n, "held [cycles]": float(v), "of the makespan %": 100 * float(v) / float(r.cycles)} for n, v in r.busy.items()]
    return sorted(rows, key=lambda row: -row["held [cycles]"])


def _energy(r: Report) -> list[Row]:
    total = float(r.energy_pj)
    rows = [{"component": n, "uJ": float(v) * 1e-6, "share %": 100 * float(v) / total} for n, v in r.energy.items() if float(v)]
    return sorted(rows, key=lambda row: -row["uJ"])


def _traffic(r: Report) -> list[Row]:
    """Bytes by level; reuse: multiply-adds per byte moved there."""
    rows = []
    for level, operands in r.traffic.items():
        size = float(sum(operands.values()))
        if size:
            over = size / float(r.compulsory) if level == "dram" and float(r.compulsory) else None
            rows.append({"level": level, "byte": size, "MACs per byte": float(r.macs) / size, "x compulsory": over})
    return rows


def _bound_rows(found: Bounds) -> list[Row]:
    """External bytes and cycles next to their lower bounds, of the operations that take longest."""
    return [
        {
            "operation": found.names[i], "external [byte]": float(found.external_bytes[i]),
            "compulsory [byte]": float(found.compulsory_bytes[i]), "I/O bound [byte]": float(found.io_bytes[i]),
            "x least bytes": float(found.traffic_ratio[i]), "cycles": float(found.cycles[i]),
            "compute bound": float(found.compute_cycles[i]), "memory bound": float(found.memory_cycles[i]),
            "x least cycles": float(found.time_ratio[i]),
        }
        for i in np.argsort(-found.cycles, kind="stable")[:MOST_BOUNDS]
    ]  # fmt: skip


def _ranked(found: list[tuple[float, str]]) -> list[str]:
    return [text for _, text in sorted(found, key=lambda item: -item[0])]


def _class_advice(r: Report) -> list[tuple[float, str]]:
    """Which engine class to speed up, where no critical path says it better."""
    shares = {term.split()[0]: value / float(r.cycles) for term, value in time_terms(r).items() if term.endswith("beyond the fabric")}
    return [
        (share, f"speed up the {engine}, or move less through it: for {share:.0%} of the time it is held beyond what the fabric needs")
        for engine, share in shares.items() if share > 0.05
    ]  # fmt: skip


def _advice(r: Report) -> list[tuple[float, str]]:
    """(what a remedy could save at most, of time or energy; the remedy in words)."""
    found: list[tuple[float, str]] = []
    cycles, energy = float(r.cycles), float(r.energy_pj)
    for term, value in time_terms(r).items():
        share = value / cycles
        if term == UNUSED and share > 0.1:
            remedy = "fill the array (tiles that are multiples of it, more compute tiles in the partition)"
            found.append((share, f"{remedy}: for {share:.0%} of the time the fabric is held beyond the multiply-adds at its peak"))
        elif term == WAITING and share > 0.1:
            remedy = "overlap more (double buffering, longer passes, smaller first and last blocks)"
            found.append((share, f"{remedy}: the busiest class waits for {share:.0%} of the time"))
    moved = float(sum(r.traffic["dram"].values()))
    if float(r.compulsory) and (ratio := moved / float(r.compulsory)) > 1.1:
        saved = float(r.energy.get("dram", 0.0)) * (1 - 1 / ratio) / energy
        found.append((saved, f"keep more on chip (L3, tiles): external traffic is {ratio:.2f} times compulsory, {saved:.0%} of the energy"))
    if moved and (waste := float(r.overfetch) / (moved + float(r.overfetch))) > 0.05:
        found.append((waste, f"make blocks span whole rows: {waste:.0%} of the external bytes are burst padding"))
    name, most = max(((n, float(v)) for n, v in r.energy.items()), key=lambda item: item[1])
    if most > 0.5 * energy:
        found.append((most / energy / 2, f"look at {name} first for energy: it takes {most / energy:.0%}"))
    return found
