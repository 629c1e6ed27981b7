"""What a result says: where time, energy and bytes go, what binds, and what would help, in numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kpu_jax.analysis.critical_path import critical_path
from kpu_jax.analysis.tables import Row, cell, sweep_table, text_table
from kpu_jax.base.errors import InfeasibleError, KPUError
from kpu_jax.base.pytree import get_path, is_traced
from kpu_jax.explore.sweep import SweepResult
from kpu_jax.hardware import KPUConfig
from kpu_jax.hardware.fields import FIELDS
from kpu_jax.mapping import Mapping
from kpu_jax.model.report import Report
from kpu_jax.workload import Op

SHOWN = 12  # rows of operations that are listed, the slowest first
FASTER = {  # engine class: what is doubled to make it twice as fast
    "dma": ("external_memory.bandwidth_gbps", "memory_controller.page_buffer_count", "clocks.dma_mhz"),
    "block_mover": ("clocks.block_mover_mhz",),
    "streamer": ("clocks.streamer_mhz",),
    "fabric": ("clocks.fabric_mhz",),
}


@dataclass(frozen=True)
class Analysis:
    """Tables of one result; prints as text."""

    title: str
    tables: dict[str, list[Row]]  # by heading, the rows in order
    advice: list[str] = field(default_factory=list)  # most promising first

    def __str__(self) -> str:
        parts = [self.title]
        parts += [f"\n{heading}\n{text_table(rows)}" for heading, rows in self.tables.items() if rows]
        if self.advice:
            parts.append("\nadvice\n" + "\n".join(f"{i}. {line}" for i, line in enumerate(self.advice, 1)))
        return "\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, text, lists and dicts."""
        return {"title": self.title, "tables": self.tables, "advice": self.advice}

    def to_json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    def to_markdown(self) -> str:
        """Headings, pipe tables and a numbered list."""
        parts = [f"# {self.title}"]
        for heading, rows in self.tables.items():
            if rows:
                lines = [list(rows[0]), ["---"] * len(rows[0]), *([cell(v) for v in row.values()] for row in rows)]
                parts.append(f"## {heading}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
        if self.advice:
            parts.append("## advice\n\n" + "\n".join(f"{i}. {line}" for i, line in enumerate(self.advice, 1)))
        return "\n\n".join(parts) + "\n"

    def to_pandas(self, heading: str) -> Any:
        """One of the tables as a DataFrame (extra `dataframe`)."""
        if heading not in self.tables:
            raise KPUError(f"the analysis has no table {heading!r}; it has {', '.join(self.tables)}")
        try:
            import pandas
        except ImportError:
            raise KPUError("to_pandas needs pandas: pip install 'kpu_jax[dataframe]'") from None
        return pandas.DataFrame(self.tables[heading])


class PerformanceAnalyzer:
    """`PerformanceAnalyzer().analyze(result)`."""

    def analyze(
        self, result: Any, *, chip: KPUConfig | None = None, workload: Op | None = None, mapping: Mapping | None = None
    ) -> Analysis:
        """The analysis of a `Report` (of an operation or a network), a `SweepResult`, or a list of reports.

        With `chip`, `workload` (one operation) and `mapping` of a report also its critical path, and what doubling each
        engine class would give: predicted by the gradient of the exact time, and simulated again.
        Raises `InfeasibleError` for a report of a mapping that does not fit, `KPUError` for anything else.
        """
        if isinstance(result, SweepResult):
            return _of_sweep(result)
        if isinstance(result, (list, tuple)):
            return _of_several(result)
        report = _checked("the result", result)
        tables = {
            "summary": _summary(report), "time by engine class": _busy(report), "energy": _energy(report),
            "traffic": _traffic(report), "slowest operations": _operations(report),
        }  # fmt: skip
        advice = _advice(report)
        given = [x is not None for x in (chip, workload, mapping)]
        if any(given):
            if not all(given):
                raise KPUError("the critical path needs chip, workload and mapping: give all three, or none")
            tables["critical path, and each class twice as fast"] = what_if(chip, workload, mapping)  # type: ignore[arg-type]
        return Analysis(f"{float(report.cycles):,.0f} cycles, bound by {report.bound_by}", tables, advice)


def compare_reports(a: Report, b: Report) -> Analysis:
    """Why does `b` cost more or less than `a`? Energy by component and bytes by level, each adding up to the whole.

    For time: the least time for which each engine class is held, and the rest of the makespan that no busiest class
    explains (waiting); the busiest class and the waiting add up to the cycles.
    """
    _checked("a", a), _checked("b", b)
    energy = [_difference(name, a.energy[name], b.energy[name], 1e-6) for name in a.energy]
    energy.append(_difference("total", a.energy_pj, b.energy_pj, 1e-6))
    time = [_difference(f"{name} held", a.busy[name], b.busy[name]) for name in a.busy]
    most = [max(float(v) for v in r.busy.values()) for r in (a, b)]
    time.append(_difference("waiting", float(a.cycles) - most[0], float(b.cycles) - most[1]))
    time.append(_difference("makespan", a.cycles, b.cycles))
    moved = [_difference(level, sum(a.traffic[level].values()), sum(b.traffic[level].values())) for level in a.traffic]
    moved.append(_difference("total", *(sum(sum(t.values()) for t in r.traffic.values()) for r in (a, b))))
    ratio = float(b.seconds) / float(a.seconds)
    return Analysis(
        f"b takes {ratio:.3g} times the time and {float(b.energy_pj) / float(a.energy_pj):.3g} times the energy of a",
        {"energy [uJ]": energy, "time [fabric cycles]": time, "traffic [byte]": moved},
    )


def what_if(chip: KPUConfig, op: Op, mapping: Mapping) -> list[Row]:
    """Per engine class: cycles on the critical path, and the change of time [%] if it were twice as fast.

    Predicted: half of the part, by the gradient. The exact time is convex in the scale of a class, so this is the most that
    can be won. Simulated: the exact time of the changed chip, fields doubled as `FASTER` says.
    """
    parts = critical_path(chip, op, mapping)
    total, hz = sum(map(float, parts.values())), float(chip.clocks.fabric_mhz)
    rows = []
    for name, cycles in sorted(parts.items(), key=lambda item: -float(item[1])):
        row: Row = {"class": name, "cycles": float(cycles), "share %": 100 * float(cycles) / total, "predicted %": "", "simulated %": ""}
        fields = FASTER.get(name, ())
        changed = {path: 2 * float(get_path(chip, path)) for path in fields}
        if changed and cycles > 0 and all(value <= FIELDS[path].high for path, value in changed.items()):
            faster = chip.replace(changed)
            again = sum(map(float, critical_path(faster, op, mapping).values())) / float(faster.clocks.fabric_mhz)
            row["predicted %"] = f"{-50 * float(cycles) / total:.1f}"
            row["simulated %"] = f"{100 * (again / (total / hz) - 1):.1f}"
        rows.append(row)
    return rows


def _checked(name: str, report: Any) -> Report:
    if not isinstance(report, Report):
        raise KPUError(f"{name} must be a Report, a SweepResult or a list of reports, got {type(report).__name__}")
    if is_traced(report.cycles) or np.ndim(report.cycles):
        raise KPUError(f"{name} is traced or stacked: analyse one concrete report at a time")
    if float(report.status_code):
        raise InfeasibleError(f"{name} is of a mapping that does not fit: {report.status}")
    return report


def _summary(r: Report) -> list[Row]:
    ops = 2 * float(r.macs) / float(r.seconds)
    rows = [
        ("cycles", float(r.cycles), "fabric cycles"), ("time", float(r.seconds) * 1e6, "us"), ("energy", float(r.energy_pj) * 1e-6, "uJ"),
        ("power", float(r.power_w), "W"), ("EDP", float(r.edp), "J s"), ("utilization", 100 * float(r.utilization), "% of peak"),
        ("achieved", ops * 1e-12, "TOPS"), ("over the lower bound", float(r.cycles) / float(r.cycles_bound), "x"),
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
            over = f"{size / float(r.compulsory):.2f}" if level == "dram" and float(r.compulsory) else ""
            rows.append({"level": level, "byte": size, "MACs per byte": float(r.macs) / size, "x compulsory": over})
    return rows


def _operations(r: Report) -> list[Row]:
    if r.per_op is None:
        return []
    each = r.per_op
    slowest = np.argsort(-np.asarray(each.cycles), kind="stable")[:SHOWN]
    return [
        {
            "row": int(i), "time %": 100 * float(each.cycles[i] / r.cycles), "energy %": 100 * float(each.energy_pj[i] / r.energy_pj),
            "utilization %": 100 * float(each.utilization[i]), "bound by": str(each.bound_by[i]),
        }
        for i in slowest if each.cycles[i] > 0
    ]  # fmt: skip


def _advice(r: Report) -> list[str]:
    """What each remedy could save at most, of time or energy, the largest first."""
    found: list[tuple[float, str]] = []
    held = sorted(((float(v), name) for name, v in r.busy.items()), reverse=True)
    cycles, energy = float(r.cycles), float(r.energy_pj)
    if (gain := 1 - held[1][0] / held[0][0]) > 0.05 and held[0][0] > 0.5 * cycles:
        first, second = held[0][0] / cycles, held[1][0] / cycles
        found.append((gain * first, f"speed up the {held[0][1]}: it is held for {first:.0%} of the time, the next class {second:.0%}"))
    if (waiting := 1 - held[0][0] / cycles) > 0.1:
        remedy = "overlap more (double buffering, smaller first and last blocks)"
        found.append((waiting, f"{remedy}: the busiest class waits for {waiting:.0%} of the time"))
    moved = float(sum(r.traffic["dram"].values()))
    if float(r.compulsory) and (ratio := moved / float(r.compulsory)) > 1.1:
        saved = float(r.energy.get("dram", 0.0)) * (1 - 1 / ratio) / energy
        found.append((saved, f"keep more on chip (L3, tiles): external traffic is {ratio:.2f} times compulsory, {saved:.0%} of the energy"))
    if moved and (waste := float(r.overfetch) / (moved + float(r.overfetch))) > 0.05:
        found.append((waste, f"make blocks span whole rows: {waste:.0%} of the external bytes are burst padding"))
    name, most = max(((n, float(v)) for n, v in r.energy.items()), key=lambda item: item[1])
    if most > 0.5 * energy:
        found.append((most / energy / 2, f"look at {name} first for energy: it takes {most / energy:.0%}"))
    return [text for _, text in sorted(found, reverse=True)]


def _of_sweep(result: SweepResult) -> Analysis:
    rows = sweep_table(result)
    front = [row for row in rows if row["pareto"]]
    advice = []
    for name in result.certified:
        point, value = result.retimed.best(name)
        floor = f"others cannot fall below {result.floor[name]:.4g}"
        known = "no other chip of the space can be better" if result.certified[name] else floor
        advice.append(f"best {name}: chip {int(result.retimed.ids[point])}, {value:.4g}; {known}")
    title = f"{result.summary.chips:,} chips screened, {result.retimed.chips} timed exactly"
    return Analysis(title, {"Pareto set": front[:SHOWN], "best": rows[:SHOWN]}, advice)


def _of_several(reports: Sequence[Any]) -> Analysis:
    if not reports:
        raise KPUError("nothing to analyse: the list is empty")
    checked = [_checked(f"result {i}", r) for i, r in enumerate(reports)]
    fastest = min(range(len(checked)), key=lambda i: float(checked[i].seconds))
    rows = [
        {
            "result": i, "time [us]": float(r.seconds) * 1e6, "x fastest": float(r.seconds) / float(checked[fastest].seconds),
            "energy [uJ]": float(r.energy_pj) * 1e-6, "EDP [J s]": float(r.edp), "utilization %": 100 * float(r.utilization),
            "bound by": str(r.bound_by),
        }
        for i, r in enumerate(checked)
    ]  # fmt: skip
    return Analysis(f"{len(rows)} results, number {fastest} the fastest", {"results": rows})


def _difference(name: str, a: Any, b: Any, scale: float = 1.0) -> Row:
    a, b = float(a) * scale, float(b) * scale
    return {"term": name, "a": a, "b": b, "b - a": b - a}
