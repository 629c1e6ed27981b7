"""Derivatives of the exact time and energy of a schedule by every continuous field of the chip."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.base.errors import InfeasibleError
from kpu_jax.base.pytree import get_path, replace_path
from kpu_jax.engines.rates import rates_of
from kpu_jax.hardware import KPUConfig
from kpu_jax.hardware.fields import FIELDS, Field
from kpu_jax.mapping import Mapping
from kpu_jax.mapping.legality import explain
from kpu_jax.model.batch import exact_cycles_of, problem_of
from kpu_jax.model.evaluate import floats
from kpu_jax.model.pricing import price
from kpu_jax.model.timing import ENGINES, by_engines, rate_slopes, sloped
from kpu_jax.workload import Op

Values = dict[str, Any]  # dotted path -> value
# Counts, capacities and widths of number formats have no slope worth the name: time and legality step at them.
_STEPS = ("KB", "MB", "MAC/cycle")


def _is_continuous(path: str, field: Field) -> bool:
    steps = field.integer or field.flag or (field.unit in _STEPS and not path.startswith("technology."))
    return not steps and path != "technology.node_nm"  # a label


CONTINUOUS: tuple[str, ...] = tuple(path for path, field in FIELDS.items() if _is_continuous(path, field))
STEPPED: tuple[str, ...] = tuple(
    path for path, field in FIELDS.items()
    if path not in CONTINUOUS and not field.flag and field.unit not in ("byte address", "nm")
)  # fmt: skip


class Cost(NamedTuple):
    """Seconds and energy of all executions of an operation, and how they follow from cycles and fields; float64."""

    status: np.ndarray  # code of `mapping.legality.STATUS`; 0 fits
    overflow: np.ndarray
    dynamic_pj: np.ndarray  # energy that does not depend on time [pJ]
    pj_per_cycle: np.ndarray
    seconds_per_cycle: np.ndarray
    slopes: dict[str, np.ndarray]  # by `CONTINUOUS` path: d (seconds, energy [pJ]) / d field [2]


class Slopes(NamedTuple):
    """Exact time and energy of a workload under given mappings, and their derivatives."""

    cycles: float
    seconds: float
    energy_pj: float
    parts: dict[str, float]  # fabric cycles of each engine class on the critical path; they add up to `cycles`
    by_field: dict[str, np.ndarray]  # `CONTINUOUS` path -> d (seconds, energy [pJ]) / d field [2], per unit of the field


@jax.jit
def _walk(cfg: Any, op: Any, mapping: Any) -> tuple[Any, Any, Any]:
    """(cycles, d cycles / d rate [leaf], parts of the engine classes [engine]) of one execution."""
    cfg, op, mapping = floats(cfg), floats(op), floats(mapping)
    problem = problem_of(cfg, op, mapping)
    cycles, by_rate = rate_slopes(*problem)
    scaled = by_engines(problem)
    along = jax.tree.leaves(jax.jacfwd(scaled.rates_at)(scaled.at))
    parts = sum(slope * along[i] for slope, i in zip(by_rate, sloped(problem.rates), strict=True))
    rest = cycles - jnp.sum(parts)  # time is homogeneous of degree one in the durations (Euler): this is the fabric's
    return cycles, by_rate, parts.at[ENGINES.index("fabric")].add(rest)


@jit_for(BATCH)
def _cost(cfg: Any, op: Any, mapping: Any, cycles: Any, by_rate: Any) -> Cost:
    cfg, op, mapping = floats(cfg), floats(op), floats(mapping)
    own = {path: get_path(cfg, path) for path in CONTINUOUS}

    def rates_at(chip: Any) -> list[Any]:
        rates = rates_of(chip, op, mapping.dataflow)
        leaves = jax.tree.leaves(rates)
        return [leaves[i] for i in sloped(rates)]

    at_rest = rates_at(cfg)

    def totals(values: Values) -> tuple[Any, Any]:
        chip = cfg
        for path, value in values.items():
            chip = replace_path(chip, path, value)
        found = price(chip, op, mapping)
        # The makespan is linear in the rates nearby: its value, with the slopes that the walk found.
        time = cycles + sum(s * (v - v0) for s, v, v0 in zip(by_rate, rates_at(chip), at_rest, strict=True))
        return jnp.stack([found.seconds(time), found.energy_pj(time)]), found

    _, pull, found = jax.vjp(totals, own, has_aux=True)
    slopes = jax.vmap(lambda unit: pull(unit)[0])(jnp.eye(2))
    return Cost(found.status, found.overflow, found.dynamic_pj, found.pj_per_cycle, found.seconds_per_cycle, slopes)


def _rates(cfg: Any, op: Any) -> Any:
    return rates_of(floats(cfg), floats(op), jnp.zeros(()))


def _leaves(tree: Any) -> Any:
    return jax.tree.map(lambda v: np.asarray(v, np.float64), tree)


def slopes_of(cfg: KPUConfig, ops: Op, mappings: Mapping) -> Slopes:
    """Time and energy of a table of operations (leaves [row]) under `mappings` [row], run one after the other.

    Exact, and so are the derivatives wherever the critical path is unique; counts behind a ceiling enter by the slope of
    what they divide. Raises `InfeasibleError` for a mapping that does not fit.
    """
    cfg, ops, mappings = _leaves((cfg, ops, mappings))
    cycles, totals = 0.0, np.zeros(2)
    parts, by_field = np.zeros(len(ENGINES)), {path: np.zeros(2) for path in CONTINUOUS}
    with jax.enable_x64(True):
        for i in range(len(ops.m)):
            op, mapping = jax.tree.map(lambda v, i=i: v[i], (ops, mappings))
            time, by_rate, share = _walk(cfg, op, mapping)
            cost = jax.tree.map(np.asarray, _cost(cfg, op, mapping, time, by_rate))
            if cost.status:
                raise InfeasibleError(f"the mapping does not fit: {explain(float(cost.status), float(cost.overflow))}")
            times, now = float(op.count), float(time)
            cycles += times * now
            totals += times * np.array([now * cost.seconds_per_cycle, cost.dynamic_pj + now * cost.pj_per_cycle])
            parts += times * np.asarray(share)
            for path in CONTINUOUS:
                by_field[path] += times * cost.slopes[path]
    seconds, energy = totals.tolist()
    return Slopes(cycles, seconds, energy, dict(zip(ENGINES, parts.tolist(), strict=True)), by_field)


def simulate_chips(chips: list[KPUConfig], ops: Op, mappings: Mapping) -> np.ndarray:
    """Exact (seconds, energy [pJ]) of a table under held `mappings` on each chip [chip, 2]; infinite where one does not fit."""
    ops, mappings = _leaves((ops, mappings))
    totals = np.zeros((len(chips), 2))
    if not chips:
        return totals
    flat = np.zeros(len(sloped(jax.eval_shape(_rates, chips[0], jax.tree.map(lambda v: v[0], ops)))))
    pairs = [(chip, row) for chip in range(len(chips)) for row in range(len(ops.m))]
    costs = []
    with jax.enable_x64(True):
        for chip, row in pairs:
            costs.append(_cost(_leaves(chips[chip]), *jax.tree.map(lambda v, i=row: v[i], (ops, mappings)), np.float64(0), flat))
    found = jax.tree.map(lambda *v: np.stack(v), *[cost._replace(slopes={}) for cost in costs])
    cycles, fits = np.full(len(pairs), np.inf), np.flatnonzero(found.status == 0)
    if len(fits):
        chip, row = np.array(pairs)[fits].T
        stacked = jax.tree.map(lambda *v: np.stack(v), *chips)
        cycles[fits] = exact_cycles_of(*(jax.tree.map(lambda v, i=i: v[i], t) for t, i in ((stacked, chip), (ops, row), (mappings, row))))
    each = np.stack([cycles * found.seconds_per_cycle, found.dynamic_pj + cycles * found.pj_per_cycle], axis=-1)
    for (chip, row), value in zip(pairs, each, strict=True):
        totals[chip] += float(ops.count[row]) * value
    return totals
