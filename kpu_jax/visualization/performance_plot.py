"""Where the time of a workload goes."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from kpu_jax.base.errors import KPUError
from kpu_jax.model.bound import ENGINES
from kpu_jax.model.report import Report

COLOURS = dict(zip(ENGINES, ("tab:gray", "tab:red", "tab:orange", "tab:blue", "tab:green"), strict=True))


def plot_performance(report: Report, names: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Time of each row of a workload's report [ms]; colour: the engine class that is held longest.

    The figure at each bar is the utilization of the fabric. `names`: one per row (`workload.row_names`).
    """
    if not isinstance(report, Report) or report.per_op is None:
        raise KPUError("plot_performance needs the report of a Workload: kpu.simulate(cfg, kpu.networks.resnet50())")
    each = report.per_op
    rows = len(each.seconds)
    names = [str(i) for i in range(rows)] if names is None else list(names)
    if len(names) != rows:
        raise KPUError(f"plot_performance: the report has {rows} rows, but {len(names)} names were given")
    ax = plt.subplots(figsize=(8, 1.2 + 0.22 * rows))[1] if ax is None else ax
    held = [str(name) for name in np.atleast_1d(each.bound_by)]
    time = np.asarray(each.seconds) * 1e3
    ax.barh(np.arange(rows), time, color=[COLOURS[engine] for engine in held])
    for i, (t, u) in enumerate(zip(time, each.utilization, strict=True)):
        ax.annotate(f" {100 * u:.0f} %", (t, i), va="center", fontsize=7)
    ax.set_yticks(np.arange(rows), names, fontsize=7)
    ax.invert_yaxis()
    ax.set_xlabel("time, all occurrences [ms]; utilization at the bar")
    ax.set_title(f"{report.seconds * 1e3:,.2f} ms, {report.energy_pj * 1e-9:,.2f} mJ", fontsize=10)
    ax.legend(handles=[Patch(color=COLOURS[e], label=f"held longest: {e}") for e in ENGINES if e in held], fontsize=8)
    ax.margins(x=0.08)
    return ax
