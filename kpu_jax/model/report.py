"""What a simulation answers, as a pytree."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import InfeasibleError, KPUError
from kpu_jax.base.pytree import build, is_traced, record
from kpu_jax.mapping.legality import explain
from kpu_jax.model.bound import ENGINES
from kpu_jax.model.traffic import LEVELS, OPERANDS


@record
class Report:
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
    busy: Any  # {engine class: least time it is held [fabric cycles]}
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
        """The engine class that is held longest, by name (an array of names for stacked reports)."""
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

    def __repr__(self) -> str:
        if is_traced(self) or np.ndim(self.cycles):
            return f"Report(stacked or traced, leaves of shape {np.shape(self.cycles)})"
        if float(self.status_code):
            return f"Report(infeasible: {self.status})"
        rows = [
            ("cycles", f"{self.cycles:,.0f}", f"at least {self.cycles_bound:,.0f}"),
            ("time", f"{self.seconds * 1e6:,.3f} us", f"held longest: {self.bound_by}"),
            ("energy", f"{self.energy_pj * 1e-6:,.3f} uJ", f"{self.power_w:,.3f} W"),
            ("EDP", f"{self.edp:.4g} J s", f"utilization {100 * self.utilization:.1f} %"),
            ("MACs", f"{self.macs:,.0f}", f"{self.area_mm2:,.4g} mm^2, TDP {self.tdp_w:,.4g} W"),
        ]
        for level, operands in self.traffic.items():
            parts = ", ".join(f"{x} {size:,.0f}" for x, size in operands.items() if size)
            rows.append((level, f"{sum(operands.values()):,.0f} B", parts))
        return "\n".join(f"{a:<8}{b:>22}  {c}" for a, b, c in rows)


def to_host(tree: Any) -> Any:
    """The same pytree with NumPy float64 leaves."""
    return jax.tree.map(lambda v: np.asarray(v, np.float64)[()], tree)
