"""What the plots accept as results: reports, lists of them, dicts of benchmark results; checked, with names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kpu_jax.base.errors import KPUError, check_choice, is_number, shown
from kpu_jax.model.report import Report, check_report
from kpu_jax.visualization.style import LARGEST, check_drawable


class Measure(NamedTuple):
    """A column of results: what it is called on an axis, its SI unit, and the factor that brings it there."""

    title: str
    unit: str  # "" for a plain ratio
    factor: float = 1.0


MEASURES = {
    "seconds": Measure("time", "s"),
    "cycles": Measure("time", "cycles"),
    "energy_pj": Measure("energy", "J", 1e-12),
    "edp": Measure("energy x delay", "J s"),
    "power_w": Measure("power", "W"),
    "utilization": Measure("utilization", "%", 100.0),
    "gflops": Measure("rate", "FLOP/s", 1e9),
}
ACCEPTED = (
    "a report of kpu.simulate, a list of reports, or a dict {name: report, seconds, {measure: number} or {size: any of these}}"
)


def entries_of(what: str, results: Any, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Name -> entry of `results`; `names` in place of the dict's or the numbers of a list."""
    if isinstance(results, Report):
        results = [results]
    if isinstance(results, Mapping):
        given, entries = list(map(str, results)), list(results.values())
    elif isinstance(results, (list, tuple)):
        given, entries = [str(i + 1) for i in range(len(results))], list(results)
        if names is None and len({float(r.macs) for r in entries if isinstance(r, Report) and not np.ndim(r.macs)}) > 1:
            raise KPUError(f"{what}: the reports are of different workloads (their MACs differ): name them, as a dict or by names=")
    else:
        raise KPUError(f"{what} needs {ACCEPTED}, got {type(results).__name__}")
    if not entries:
        raise KPUError(f"{what}: there are no results to plot; give {ACCEPTED}")
    labels = given if names is None else names_of(what, names)
    if len(labels) != len(entries):
        raise KPUError(f"{what}: there are {len(entries)} results, but {len(labels)} names were given")
    if len(set(labels)) != len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise KPUError(f"{what}: two results are named {shown(twice)}: give each a name of its own")
    return dict(zip(labels, entries, strict=True))


def names_of(what: str, names: Any) -> list[str]:
    """A list of names as text, or a `KPUError`."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise KPUError(f"{what}: names must be a list of names, one per result, got {shown(names)}")
    return list(map(str, names))


def value_of(what: str, name: str, entry: Any, measure: str) -> float:
    """The measure of one entry, in its SI unit."""
    check_choice("measure", measure, MEASURES)
    if isinstance(entry, Mapping):
        if measure not in entry:
            has = ", ".join(map(str, list(entry)[:8])) or "nothing"
            raise KPUError(f"{what}: entry {shown(name)} has no {measure!r}, only {has}: choose another measure=, of {', '.join(MEASURES)}")
        number = entry[measure]
    elif isinstance(entry, Report):
        check_report(f"{what}: entry {shown(name)}", entry)
        number = 2e-9 * entry.macs / entry.seconds if measure == "gflops" else getattr(entry, measure)
    elif is_number(entry) and measure == "seconds":
        number = entry
    else:
        raise KPUError(f"{what}: entry {shown(name)} must be a report, seconds or {{measure: number}}, got {shown(entry)}")
    return check_drawable(f"{what}: {measure} of {shown(name)}", number, MEASURES[measure].unit) * MEASURES[measure].factor


def curve_of(entry: Any) -> list[tuple[float, Any]] | None:
    """[(size, entry)] in ascending size, if this is a dict over sizes; None otherwise."""
    if not isinstance(entry, Mapping) or not entry or not all(is_number(x) for x in entry):
        return None
    sizes = {check_drawable("the size of a result", x, "as given", low=-LARGEST): value for x, value in entry.items()}
    return sorted(sizes.items(), key=lambda pair: pair[0])
