"""What a simulation answers, as a pytree."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import InfeasibleError, KPUError, shown
from kpu_jax.base.pytree import build, is_traced, record
from kpu_jax.base.tables import Row, Sheet, Shown
from kpu_jax.base.units import quantity
from kpu_jax.mapping.legality import explain
from kpu_jax.model.bound import ENGINES
from kpu_jax.model.traffic import LEVELS, OPERANDS

SLOWEST = 12  # operations of a workload that print


@record
class Report(Shown):
    """Result of `kpu.simulate`. Leaves are NumPy float64 outside of JAX transformations.

    All quantities include the operation's `count`. For a workload they are the network's totals, and `per_op` holds a
    report whose leaves have a leading [row] axis, one per distinct operation (`workload.row_names`). An infeasible
    mapping has infinite cycles and energy.
    """

    cycles: Any  # makespan in cycles of the fabric clock, exact unless timing="bound"
    cycles_bound: Any  # lower bound on it
    seconds: Any  # [s]
    energy_pj: Any  # [pJ]
    edp: Any  # energy-delay product [J s]
    power_w: Any  # energy / seconds [W]
    utilization: Any  # multiply-adds / (peak multiply-adds in `cycles`), 0..1
    macs: Any  # multiply-adds
    reads: Any  # {level: {operand: bytes read there}}
    writes: Any  # {level: {operand: bytes written there}}
    overfetch: Any  # external burst padding [byte]
    compulsory: Any  # bytes of the external operands, each once; of a convolution the whole input rows its windows span
    energy: Any  # {memory level or kind of action: pJ}
    busy: Any  # {engine class: least time it is held [fabric cycles]}; streamers also while the vector engine works on drains
    bound_by_code: Any  # index into `model.bound.ENGINES`
    area_mm2: Any  # of the chip [mm^2]
    tdp_w: Any  # of the chip, by the technology's estimate [W]
    status_code: Any  # index into `mapping.legality.STATUS`; 0 is ok
    overflow: Any  # by how much the first thing that does not fit overflows
    per_op: Any = None

    @property
    def traffic(self) -> dict[str, dict[str, Any]]:
        """Bytes read plus written, by memory level and operand."""
        return {lv: {x: self.reads[lv][x] + self.writes[lv][x] for x in OPERANDS} for lv in LEVELS}

    @property
    def bound_by(self) -> Any:
        """The engine class that is held longest, by name (an array of names for stacked reports).

        "vector" where streamers are held longest, mostly by drains that wait for the vector engine. Of a workload: the
        class that binds its operations for the longest time.
        """
        if is_traced(self.bound_by_code):
            return self.bound_by_code
        names = np.asarray(ENGINES)[np.asarray(self.bound_by_code, int)]
        return str(names) if names.ndim == 0 else names

    @property
    def status(self) -> Any:
        """"ok", or what does not fit, by how much, and the remedy."""
        if is_traced(self.status_code):
            return self.status_code
        if np.ndim(self.status_code) == 0:
            return explain(float(self.status_code), float(self.overflow))
        pairs = zip(np.ravel(self.status_code), np.ravel(self.overflow), strict=True)
        return np.asarray([explain(c, o) for c, o in pairs]).reshape(np.shape(self.status_code))

    def first_rows(self, rows: int) -> Report:
        """This report of a padded table, with `per_op` cut to its first rows."""
        each = jax.tree.map(lambda v: v[:rows], self.per_op)
        return build(Report, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {"per_op": each})

    def check(self) -> Report:
        """This report, or `InfeasibleError` with what does not fit. Concrete reports only."""
        if is_traced(self.status_code):
            raise KPUError("report.check() needs a concrete report: call it outside of jit, vmap and grad")
        if np.any(np.asarray(self.status_code) > 0):
            raise InfeasibleError(f"the mapping does not fit: {self.status}")
        return self

    def sheet(self) -> Sheet:
        """What prints: totals, bytes by memory level, and of a workload the operations that take longest."""
        if is_traced(self) or np.ndim(self.cycles):
            return Sheet(f"Report (stacked or traced, leaves of shape {np.shape(self.cycles)})")
        if float(self.status_code):
            return Sheet(f"Report (infeasible: {self.status})")
        totals = [
            ("time", quantity(self.seconds, "s"), f"{self.cycles:,.0f} cycles of the fabric, at least {self.cycles_bound:,.0f}"),
            ("energy", quantity(self.energy_pj * 1e-12, "J"), f"{quantity(self.power_w, 'W')} on the average"),
            ("energy x delay", quantity(self.edp, "J s"), ""),
            ("utilization", f"{100 * self.utilization:.1f} %", f"of the peak, {self.macs:,.0f} MACs; bound by {self.bound_by}"),
            ("area", f"{float(self.area_mm2):,.4g} mm^2", f"TDP {quantity(self.tdp_w, 'W')}"),
        ]
        moved = [
            {"level": level, **{x: quantity(size, "B") if size else "" for x, size in (operands | {"all": sum(operands.values())}).items()}}
            for level, operands in self.traffic.items() if sum(operands.values())
        ]  # fmt: skip
        tables: dict[str, list[Row]] = {
            "": [{"total": name, "value": value, "": more} for name, value, more in totals],
            "read and written": moved,
        }
        if self.per_op is not None:
            tables["slowest operations"] = slowest(self)
        return Sheet("Report", tables)


def slowest(report: Report) -> list[Row]:
    """The rows of a workload's report that take longest, and their shares of time and energy."""
    each = report.per_op
    order = np.argsort(-np.asarray(each.cycles), kind="stable")[:SLOWEST]
    return [
        {
            "row": int(i), "time %": 100 * float(each.cycles[i] / report.cycles),
            "energy %": 100 * float(each.energy_pj[i] / report.energy_pj),
            "utilization %": 100 * float(each.utilization[i]), "bound by": str(each.bound_by[i]),
        }
        for i in order if each.cycles[i] > 0
    ]  # fmt: skip


_NUMBERS = [field for field in dataclasses.fields(Report) if field.name != "per_op"]


def check_report(what: str, report: Any) -> Report:
    """`report` if it is a concrete one of one simulation that fits, of finite numbers; else a `KPUError` that begins with `what`."""
    if not isinstance(report, Report):
        raise KPUError(f"{what} needs a report of kpu.simulate, got {type(report).__name__} {shown(report)}")
    if is_traced(report) or np.ndim(report.cycles):
        raise KPUError(f"{what}: the report is stacked or traced; give one concrete report, such as jax.tree.map(lambda v: v[0], report)")
    if float(report.status_code):
        raise InfeasibleError(f"{what}: the report is of a mapping that does not fit: {report.status}; leave it out, or change the mapping")
    for rows, where in ((report, ""), (report.per_op, "per_op.")):
        for path, leaf in jax.tree.leaves_with_path({f.name: getattr(rows, f.name) for f in _NUMBERS} if rows is not None else {}):
            if not np.all(np.isfinite(leaf)):
                name = jax.tree_util.keystr(path, simple=True, separator=".")
                raise KPUError(f"{what}: {where}{name} of the report is not finite: give the report as kpu.simulate made it")
    for name in ("cycles", "seconds", "energy_pj"):
        if not float(getattr(report, name)) > 0:
            raise KPUError(f"{what}: {name} of the report is {float(getattr(report, name)):g}: there is nothing to look at")
    return report


def to_host(tree: Any) -> Any:
    """The same pytree with NumPy float64 leaves."""
    return jax.tree.map(lambda v: np.asarray(v, np.float64)[()], tree)
