"""A mapping proven best over the whole space: every other is bounded, and timed exactly where its bound allows it to win."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kpu_jax.base.compilation import BATCH, ONCE, jit_for
from kpu_jax.base.errors import InfeasibleError, KPUError, check_number
from kpu_jax.base.pytree import is_traced
from kpu_jax.explore.mapping_search import best_mapping
from kpu_jax.explore.optimal.certificate import Certificate
from kpu_jax.explore.optimal.enumeration import Enumeration
from kpu_jax.explore.optimal.floor import floor_of
from kpu_jax.explore.optimal.objective import Objective, objective_of
from kpu_jax.explore.pins import pins_of
from kpu_jax.hardware import KPUConfig, check_config
from kpu_jax.mapping import Mapping
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.evaluate import evaluate
from kpu_jax.model.pricing import Price, price
from kpu_jax.model.report import Report
from kpu_jax.workload import Op, Workload, check_workload

CHUNK = 16384  # mappings bounded at once
TIMED = 512  # mappings timed at once, most promising first
ROUNDING = 1e-9  # relative: bounds are lowered by it, as they round otherwise than exact times


def search_mapping(
    cfg: KPUConfig,
    op: Op,
    *,
    objective: Any = "edp",
    fixed: dict[str, Any] | None = None,
    gap: float = 0.0,
    budget: int = 4_000_000,
) -> tuple[Mapping, Report, Certificate]:
    """The best mapping of one operation over the whole space, by exact time, with its report and what is proven of it.

    The space: all integer tiles at L3 and L2, loop orders, dataflows, bufferings and partitions that keep `fixed`
    (as for `best_mapping`). `objective`: "latency", "energy", "edp", or exponents {"energy": 1, "latency": 2}.
    The search ends when nothing unseen can be better by more than the fraction `gap`. A space of more than `budget`
    mappings is not exhausted: then the mapping is the best of the stated set, and the certificate states its gap to a
    floor that holds for all. Raises `InfeasibleError` if no mapping fits; `KPUError` for bad arguments.
    """
    goal = objective_of(objective)
    gap = float(check_number("gap", gap, "fraction", low=0, high=1))
    budget = int(check_number("budget", budget, "mappings", low=0, integer=True))
    if is_traced(cfg, op):
        raise KPUError("search_mapping needs a concrete chip and operation: call it outside of jit, vmap and grad")
    check_config(cfg)
    check_workload(op)
    if isinstance(op, Workload) or np.ndim(op.m) or np.ndim(cfg.compute.tile_count):
        raise KPUError("search_mapping takes one chip and one operation: call it for each row(i) of a workload")
    cfg, plain = jax.tree.map(lambda v: np.asarray(v, np.float64), (cfg, op.plain()))
    space = Enumeration(cfg, plain, pins_of(fixed))
    floor = floor_of(cfg, plain, goal)
    try:
        best = best_mapping(cfg, op, objective=goal.nearest_name, fixed=fixed)
        best, cycles, value = _timed(cfg, plain, goal, jax.tree.map(lambda v: np.asarray(v, np.float64)[None], best))
    except InfeasibleError:
        if space.size > budget:
            raise
        best, cycles, value = None, np.inf, np.inf
    bounded = timed = 0
    if floor >= value * (1 - gap):
        lower, closed_by = floor, "floor"
    elif space.size > budget:
        lower, closed_by = floor, "budget"
    else:
        numbers, bounds = _possible(cfg, plain, goal, space, value)
        bounded, lower, closed_by = space.size, value, "exhaustion"
        for first in range(0, len(numbers), TIMED):
            if bounds[first] >= value * (1 - gap):
                lower = min(value, bounds[first])
                break
            picked = numbers[first : first + TIMED]
            found, took, reached = _timed(cfg, plain, goal, space.mappings(picked))
            timed += len(picked)
            if reached < value:
                best, cycles, value = found, took, reached
            lower = value
    if best is None:
        raise InfeasibleError(f"{op!r}: none of the {space.size:,} mappings fits this chip: enlarge its memories or free `fixed`")
    with jax.enable_x64(True):
        report = jax.tree.map(np.asarray, _report(cfg, plain, best, np.float64(cycles)))
    return best, report, Certificate(space.size, bounded, timed, value, lower, closed_by)


@jit_for(BATCH)
def _prices(cfg: Any, op: Any, mappings: Mapping) -> Price:
    return jax.vmap(lambda mapping: price(cfg, op, mapping))(mappings)


@jit_for(ONCE)
def _report(cfg: Any, op: Any, mapping: Mapping, cycles: Any) -> Report:
    return evaluate(cfg, op, mapping, exact=False, cycles=cycles)


def _priced(cfg: Any, op: Any, mappings: Mapping) -> Price:
    """Prices [mapping], NumPy; padded to one size, so that one compilation serves all."""
    count = len(mappings.dataflow)
    padded = jax.tree.map(lambda v: np.pad(v, (0, CHUNK - count), mode="edge"), mappings)
    with jax.enable_x64(True):
        return jax.tree.map(lambda v: np.asarray(v)[:count], _prices(cfg, op, padded))


def _possible(cfg: Any, op: Any, goal: Objective, space: Enumeration, value: float) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, bounds on the objective) of the legal mappings that may be better than `value`, least bound first."""
    numbers, bounds = [], []
    for start in range(0, space.size, CHUNK):
        prices = _priced(cfg, op, space.mappings(np.arange(start, min(start + CHUNK, space.size))))
        bound = goal.of(prices, prices.cycles) * (1 - ROUNDING)
        keep = np.flatnonzero((prices.status == 0) & (bound < value))
        numbers.append(start + keep)
        bounds.append(bound[keep])
    number, bound = np.concatenate(numbers), np.concatenate(bounds)
    order = np.argsort(bound, kind="stable")
    return number[order], bound[order]


def _timed(cfg: Any, op: Any, goal: Objective, mappings: Mapping) -> tuple[Mapping, float, float]:
    """(the best of the mappings [mapping] by exact time, its cycles, its objective)."""
    prices = _priced(cfg, op, mappings)
    chips, ops = jax.tree.map(lambda v: np.full(len(mappings.dataflow), v), (cfg, op))
    cycles = exact_cycles_of(chips, ops, mappings)
    values = goal.of(prices, cycles)
    best = int(np.argmin(values))
    return jax.tree.map(lambda v: v[best], mappings), float(cycles[best]), float(values[best])
