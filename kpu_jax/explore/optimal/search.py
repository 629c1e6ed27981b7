"""A mapping proven best over the whole space, by branch and bound: what is not timed exactly lies in a set bounded away.

First the best of the stated set, and a narrow descent, which keeps only the most promising sets, find a good mapping.
Then all sets are split down to numbers of blocks, loop orders and bufferings, and dropped where their bound is no
better; those that remain are split into single mappings, least bound first, and these timed exactly, least bound first,
until the least bound left is no better than the best mapping.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kpu_jax.base.compilation import BATCH, ONCE, jit_for
from kpu_jax.base.errors import InfeasibleError, KPUError, check_number
from kpu_jax.base.pytree import is_traced
from kpu_jax.explore.mapping_search import best_mapping
from kpu_jax.explore.optimal.branch import TO_BLOCKS, TO_PAIRS, Branch, likely, mappings_of, split
from kpu_jax.explore.optimal.certificate import Certificate
from kpu_jax.explore.optimal.objective import Objective, objective_of
from kpu_jax.explore.optimal.problem import Problem
from kpu_jax.explore.optimal.space import branches_of, space_size
from kpu_jax.explore.pins import pins_of
from kpu_jax.hardware import KPUConfig, check_config
from kpu_jax.mapping import Mapping
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.evaluate import evaluate
from kpu_jax.model.pricing import Price, price
from kpu_jax.model.report import Report
from kpu_jax.workload import Op, Workload, check_workload

NARROW = 1024  # sets kept after every split of the first descent
PROBED = 64  # promising mappings timed after a descent
BLOCK = 512  # sets split into single mappings together
TIMED = 64  # mappings timed at once
PRICED = 1024  # mappings priced at once
TIMING = 1000  # sets that are bounded in the time that it takes to time a mapping exactly
ROUNDING = 1e-9  # relative: bounds are lowered by it, as they round otherwise than exact times


def search_mapping(
    cfg: KPUConfig,
    op: Op,
    *,
    objective: Any = "edp",
    fixed: dict[str, Any] | None = None,
    gap: float = 0.0,
    budget: int = 6_000_000,
) -> tuple[Mapping, Report, Certificate]:
    """The best mapping of one operation over the whole space, by exact time, with its report and what is proven of it.

    The space: all integer tiles at L3 and L2, loop orders, dataflows, bufferings and partitions that keep `fixed`
    (as for `best_mapping`). `objective`: "latency", "energy", "edp", or exponents {"energy": 1, "latency": 2}.
    The search ends when nothing unseen can be better by more than the fraction `gap`, or when `budget` sets of mappings
    have been bounded (a mapping that is timed counts for `TIMING`): then the certificate states what gap is left.
    Raises `InfeasibleError` if no mapping fits; `KPUError` for bad arguments.
    """
    goal = objective_of(objective)
    gap = float(check_number("gap", gap, "fraction", low=0, high=1))
    budget = int(check_number("budget", budget, "sets of mappings", low=0, integer=True))
    if is_traced(cfg, op):
        raise KPUError("search_mapping needs a concrete chip and operation: call it outside of jit, vmap and grad")
    check_config(cfg)
    check_workload(op)
    if isinstance(op, Workload) or np.ndim(op.m) or np.ndim(cfg.compute.tile_count):
        raise KPUError("search_mapping takes one chip and one operation: call it for each row(i) of a workload")
    cfg, plain = jax.tree.map(lambda v: np.asarray(v, np.float64), (cfg, op.plain()))
    search = _Search(cfg, plain, goal, pins_of(fixed), 1 - gap, budget)
    try:
        search.take(jax.tree.map(lambda v: v[None], best_mapping(cfg, op, objective=goal.nearest_name, fixed=fixed)))
    except InfeasibleError:  # none of the stated set; perhaps another one
        pass
    lower = search.run()
    if search.best is None:
        none = f"none of the {search.space:,} mappings fits"
        why = none if lower == np.inf else f"no mapping was found within budget = {budget:,} that fits"
        raise InfeasibleError(f"{op!r}: {why} this chip: enlarge its memories or free `fixed`")
    with jax.enable_x64(True):
        report = jax.tree.map(np.asarray, _report(cfg, plain, search.best, np.float64(search.cycles)))
    closed_by = "bound" if lower >= search.below else "budget"
    certificate = Certificate(search.space, search.bounded, search.timed, search.value, min(lower, search.value), closed_by)
    return search.best, report, certificate


class _Search:
    """The best mapping so far, and what it has cost to find it."""

    def __init__(self, cfg: Any, op: Any, goal: Objective, pins: dict[str, float], share: float, budget: int) -> None:
        self._cfg, self._op, self._goal, self._pins = cfg, op, goal, pins
        self._share, self._budget = share, budget
        self._problem = Problem(cfg, op)
        self.space = space_size(self._problem, pins)
        self.best: Any = None
        self.value = self.cycles = np.inf
        self.bounded = self.timed = 0
        self._left = np.inf  # the least bound of mappings that the budget left untimed

    @property
    def _spent(self) -> bool:
        return self.bounded + TIMING * self.timed > self._budget

    @property
    def below(self) -> float:
        """What a bound must be below for its set to be searched."""
        return self.value * self._share

    def run(self) -> float:
        """Search; returns a lower bound on the objective of all that was not timed."""
        branches = branches_of(self._problem, self._op, self._goal, self._pins)
        narrow = branches
        for by in TO_BLOCKS:
            narrow = _least([self._split(b, by) for b in narrow], NARROW)
        self._probe(narrow)
        for by in TO_BLOCKS:
            for i, branch in enumerate(branches):
                if self._spent:
                    return _lowest(branches)
                branches[i] = self._split(branch, by)
        self._probe(branches)
        return self._finish(branches)

    def _split(self, branch: Branch, by: Any) -> Branch:
        step = split(branch, by, self.below)
        self.bounded += step.bounded
        return step.branch

    def _probe(self, branches: list[Branch]) -> None:
        """Time the most promising of one likely mapping of every set."""
        probes = [likely(b) for b in branches]
        self.bounded += sum(b.nodes.shape[1] for b in branches)
        self.time(_least([b.where(b.bounds < self.below) for b in probes], PROBED))

    def _finish(self, branches: list[Branch]) -> float:
        """Split ranges into single mappings and time these, least bound first."""
        while True:
            branches = [b.where(b.bounds < self.below) for b in branches]
            if self._spent or not sum(len(b.bounds) for b in branches):
                return min(self.below, self._left, _lowest(branches))
            cut = _threshold(branches, BLOCK)
            pairs = [b.where(b.bounds <= cut) for b in branches]
            branches = [b.where(b.bounds > cut) for b in branches]
            for by in TO_PAIRS:
                pairs = [self._split(b, by) for b in pairs]
            self.time(pairs)

    def time(self, branches: list[Branch]) -> None:
        """Time single mappings exactly, least bound first, as long as one may be the best."""
        found = [mappings_of(b, np.arange(len(b.bounds))) for b in branches if len(b.bounds)]
        if not found:
            return
        bounds = np.concatenate([b.bounds for b in branches if len(b.bounds)])
        mappings = jax.tree.map(lambda *v: np.concatenate(v), *found)
        order = np.argsort(bounds, kind="stable")
        for start in range(0, len(order), PRICED):
            picked = order[start : start + PRICED]
            picked = picked[bounds[picked] < self.below]
            if self._stops(bounds[picked]):
                return
            self.take(jax.tree.map(lambda v, i=picked: v[i], mappings), bounds[picked])

    def take(self, mappings: Mapping, bounds: np.ndarray | float = 0.0) -> None:
        """Time those of some mappings [mapping] that may be the best, and keep the best."""
        prices = _priced(self._cfg, self._op, mappings)
        least = np.maximum(bounds, self._goal.of(prices, prices.cycles) * (1 - ROUNDING))
        least = np.where(prices.status == 0, least, np.inf)
        order = np.argsort(least, kind="stable")
        for start in range(0, len(order), TIMED):
            picked = order[start : start + TIMED]
            picked = picked[least[picked] < self.below]
            if self._stops(least[picked]):
                return
            chips, ops = jax.tree.map(lambda v, n=len(picked): np.full(n, v), (self._cfg, self._op))
            some, costs = jax.tree.map(lambda v, i=picked: v[i], (mappings, prices))
            cycles = exact_cycles_of(chips, ops, some)
            values = self._goal.of(costs, cycles)
            self.timed += len(picked)
            at = int(np.argmin(values))
            if values[at] < self.value:
                self.best, self.value, self.cycles = jax.tree.map(lambda v, i=at: v[i], some), float(values[at]), float(cycles[at])

    def _stops(self, bounds: np.ndarray) -> bool:
        """Is nothing left to be timed, or no budget to time what has these bounds, least first?"""
        if len(bounds) and self._spent:
            self._left = min(self._left, float(bounds[0]))
        return not len(bounds) or self._spent


def _threshold(branches: list[Branch], count: int) -> float:
    """The largest of the `count` least bounds."""
    bounds = np.concatenate([b.bounds for b in branches])
    return float(np.partition(bounds, count - 1)[count - 1]) if len(bounds) > count else np.inf


def _least(branches: list[Branch], count: int) -> list[Branch]:
    """About `count` nodes of least bound; none that is infinite."""
    cut = min(_threshold(branches, count), np.finfo(float).max)
    kept = [b.where(b.bounds <= cut) for b in branches]
    if sum(len(b.bounds) for b in kept) <= 2 * count:
        return kept
    left, few = count, []  # many share the bound at the cut
    for b in kept:
        few.append(b.where(np.argsort(b.bounds, kind="stable")[:left]))
        left -= len(few[-1].bounds)
    return few


def _lowest(branches: list[Branch]) -> float:
    return min((float(b.bounds.min()) for b in branches if len(b.bounds)), default=np.inf)


@jit_for(BATCH)
def _prices(cfg: Any, op: Any, mappings: Mapping) -> Price:
    return jax.vmap(lambda mapping: price(cfg, op, mapping))(mappings)


@jit_for(ONCE)
def _report(cfg: Any, op: Any, mapping: Mapping, cycles: Any) -> Report:
    return evaluate(cfg, op, mapping, exact=False, cycles=cycles)


def _priced(cfg: Any, op: Any, mappings: Mapping) -> Price:
    """Prices [mapping], at most `PRICED` of them, NumPy; padded to one size, so that one compilation serves all."""
    count = len(mappings.dataflow)
    padded = jax.tree.map(lambda v: np.pad(v, (0, PRICED - count), mode="edge"), mappings)
    with jax.enable_x64(True):
        return jax.tree.map(lambda v: np.asarray(v)[:count], _prices(cfg, op, padded))
