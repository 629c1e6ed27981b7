"""The best mapping of an operation among the stated set: screened by the bound, decided by exact time."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.base.errors import InfeasibleError, KPUError, check_choice
from kpu_jax.base.pytree import build, is_traced
from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.explore.mix import choose
from kpu_jax.explore.pins import pins_of
from kpu_jax.hardware import KPUConfig, check_config
from kpu_jax.mapping import Mapping
from kpu_jax.mapping.legality import explain
from kpu_jax.mapping.proposals import STRATEGIES, propose
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.pricing import Price, price
from kpu_jax.workload import Op, Workload, check_workload

FINALISTS = 16  # mappings per operation that are timed exactly
PAIRS = 32  # of a chip and an operation that are screened at once

Scalar = jax.Array


def best_mapping(
    cfg: KPUConfig,
    workload: Op | Workload,
    *,
    objective: str = "edp",
    fixed: dict[str, Any] | None = None,
    prove: bool = False,
) -> Mapping:
    """The best mapping among the stated set (`mapping.proposals.STRATEGIES`), by exact time; `prove`: of all mappings.

    For a `Workload`: one mapping per row, as a stacked `Mapping` with leaves [row], such that the whole network is
    best: for "edp" the product of total energy and total time. `fixed` pins fields of the mapping to a value, by the
    names of `Mapping`'s constructor or leaves ({"dataflow": "weight_stationary", "double_l3": 0}).
    `prove` searches the whole space (`search_mapping`, seconds to minutes per operation); not for the "edp" of several
    rows, whose mappings depend on one another.
    Raises `InfeasibleError` with what overflows if no mapping of the set fits; `KPUError` for bad arguments, and if
    the search ends without proof.
    """
    check_choice("objective", objective, OBJECTIVES)
    if is_traced(cfg, workload):
        raise KPUError("best_mapping needs a concrete chip and workload: call it outside of jit, vmap and grad")
    check_config(cfg)
    check_workload(workload)
    if np.ndim(cfg.compute.tile_count):
        raise KPUError("best_mapping takes one chip: call it for each, or sweep")
    if prove:
        return _proven(cfg, workload, objective, fixed)
    table = workload.ops if isinstance(workload, Workload) else jax.tree.map(lambda v: np.asarray(v)[None], workload.plain())
    chips = jax.tree.map(lambda v: np.asarray(v, np.float64)[None], cfg)
    found = search(chips, table, STRATEGIES, (objective,), pinned=pins_of(fixed))
    _check_feasible(workload, found)
    choice = choose(found.seconds[0], found.energy_pj[0], np.asarray(table.count), objective)
    rows = np.arange(len(choice))
    chosen = jax.tree.map(lambda v: v[0, rows, choice], found.mappings)
    return chosen if isinstance(workload, Workload) else jax.tree.map(lambda v: v[0], chosen)


def _proven(cfg: KPUConfig, workload: Op | Workload, objective: str, fixed: dict[str, Any] | None) -> Mapping:
    from kpu_jax.explore.optimal.search import search_mapping  # which itself begins with the best of the stated set

    whole = isinstance(workload, Workload)
    ops = [workload.row(i) for i in range(workload.rows)] if isinstance(workload, Workload) else [workload]
    if whole and objective == "edp" and len(ops) > 1:
        raise KPUError('best_mapping with prove=True takes one operation for "edp", or a workload for "latency" or "energy"')
    found = []
    for op in ops:
        mapping, _, certificate = search_mapping(cfg, op, objective=objective, fixed=fixed)
        if not certificate.certified:
            raise KPUError(
                f"{op!r}: not proven: another mapping may be {certificate.gap:.1%} better; "
                "pin parts with `fixed`, or call search_mapping with a larger budget or a gap"
            )
        found.append(mapping)
    return jax.tree.map(lambda *v: np.stack(v), *found) if whole else found[0]


class Found(NamedTuple):
    """The finalists of every operation on every chip, [chip, op, finalist]; NumPy float64."""

    strategy: np.ndarray  # row of the strategies that were screened
    mappings: Mapping
    seconds: np.ndarray  # exact; infinite where the mapping does not fit or cannot be best
    energy_pj: np.ndarray
    status: np.ndarray
    overflow: np.ndarray


def search(
    chips: KPUConfig,
    ops: Op,
    strategies: np.ndarray,
    objectives: tuple[str, ...],
    *,
    finalists: int = FINALISTS,
    pinned: dict[str, float] | None = None,
    chips_used: int | None = None,
) -> Found:
    """Screen `strategies` for a table of operations on chips (leaves [chip]); time the finalists exactly.

    The `finalists` with the least bound per objective are kept. Of these, the first of each objective is timed; then
    those whose bound is below the best exact cost so far. Only the first `chips_used` chips are timed (the others pad).
    """
    mappings, prices = _priced(chips, ops, strategies, pinned or {}, chips_used)
    fits = prices.status == 0
    if pinned and "dataflow" in pinned:
        fits &= strategies[:, 0] == pinned["dataflow"]  # the other strategies are shaped to another dataflow
    estimate = np.where(fits, prices.estimate, np.inf)
    count = np.asarray(ops.count, np.float64)[:, None]
    others = _others(prices.seconds(estimate), prices.energy_pj(estimate), count)
    strategy = _finalists(mappings, prices, estimate, others, objectives, min(finalists, len(strategies)))
    mappings, prices, fits = jax.tree.map(lambda v: np.take_along_axis(v, strategy, axis=-1), (mappings, prices, fits))
    cycles = np.full(prices.status.shape, np.inf)

    def costs(at: np.ndarray) -> dict[str, np.ndarray]:
        return {o: _cost(o, prices.seconds(at), prices.energy_pj(at), others) for o in objectives}

    first = np.zeros(cycles.shape, bool)
    first[..., :: strategy.shape[-1] // len(objectives)] = True
    possible = fits & _distinct(strategy)
    bounds = costs(prices.cycles)
    for wanted in (first, ~first):
        best = {o: cost.min(axis=-1, keepdims=True) for o, cost in costs(cycles).items()}
        can_win = np.any([bounds[o] <= best[o] for o in objectives], axis=0)
        picked = np.nonzero(possible & wanted & can_win)
        chip, op, _ = picked
        cycles[picked] = exact_cycles_of(
            jax.tree.map(lambda v, i=chip: v[i], chips),
            jax.tree.map(lambda v, i=op: np.asarray(v, np.float64)[i], ops),
            jax.tree.map(lambda v, i=picked: v[i], mappings),
        )
    return Found(strategy, mappings, prices.seconds(cycles), prices.energy_pj(cycles), prices.status, prices.overflow)


def _distinct(strategy: np.ndarray) -> np.ndarray:
    """Mask [..., finalist] of the first occurrence of each strategy."""
    same = strategy[..., :, None] == strategy[..., None, :]
    return ~np.any(same & np.tri(strategy.shape[-1], k=-1, dtype=bool), axis=-1)


class _Others(NamedTuple):
    """The rest of the workload at its least, for weighing one operation's energy against its time, [chip, op, 1]."""

    seconds: Any
    energy_pj: Any
    count: Any


def _cost(objective: str, seconds: Any, energy_pj: Any, others: _Others) -> Any:
    """What one operation's mapping contributes to the objective, the others at their least. NumPy or jax."""
    if objective != "edp":
        return seconds if objective == "latency" else energy_pj
    return (others.seconds + others.count * seconds) * (others.energy_pj + others.count * energy_pj)


@jit_for(BATCH)
def _price_pairs(chips: Any, ops: Any, strategies: Scalar, pinned: Mapping) -> tuple[Mapping, Price]:
    """(mappings, prices) [pair, strategy] of chips and operations [pair]; `pinned`: leaves that stay, NaN for those that are free."""

    def one(cfg: Any, op: Any, strategy: Scalar) -> tuple[Mapping, Price]:
        proposed = propose(cfg, op, strategy)
        mapping = jax.tree.map(lambda pin, free: jnp.where(jnp.isnan(pin), free, pin), pinned, proposed)
        return mapping, price(cfg, op, mapping)

    return jax.vmap(lambda cfg, op: jax.vmap(lambda s: one(cfg, op, s))(strategies))(chips, ops)


def _priced(chips: Any, ops: Any, strategies: np.ndarray, pinned: dict[str, float], chips_used: int | None) -> tuple[Mapping, Price]:
    """(mappings, prices) [chip, op, strategy], NumPy, in blocks of one size, so that one compilation serves all."""
    chips, ops = jax.tree.map(lambda v: np.asarray(v, np.float64), (chips, ops))
    shape = len(chips.compute.tile_count[:chips_used]), len(ops.m)
    pins = build(Mapping, **{name: np.float64(pinned.get(name, np.nan)) for name in Mapping.__dataclass_fields__})
    blocks = []
    for first in range(0, shape[0] * shape[1], PAIRS):
        pair = np.minimum(np.arange(first, first + PAIRS), shape[0] * shape[1] - 1)
        chip, op = np.divmod(pair, shape[1])
        with jax.enable_x64(True):
            block = _price_pairs(*(jax.tree.map(lambda v, i=i: v[i], t) for t, i in ((chips, chip), (ops, op))), strategies, pins)
        blocks.append(jax.tree.map(np.asarray, block))
    whole = jax.tree.map(lambda *v: np.concatenate(v)[: shape[0] * shape[1]], *blocks)
    return jax.tree.map(lambda v: v.reshape(*shape, -1), whole)


def _others(time: np.ndarray, energy: np.ndarray, count: np.ndarray) -> _Others:
    """For each operation: the least time and energy of all the others; 0 where one of them has no mapping that fits."""

    def rest(v: np.ndarray) -> np.ndarray:
        least = np.min(v, axis=-1, keepdims=True)
        used = np.where((count > 0) & np.isfinite(least), least, 0.0) * count
        return np.sum(used, axis=-2, keepdims=True) - used

    return _Others(rest(time), rest(energy), count)


def _finalists(
    mappings: Mapping, prices: Price, estimate: np.ndarray, others: _Others, objectives: tuple[str, ...], keep: int
) -> np.ndarray:
    """[chip, op, objective x keep]: rows of the strategies that promise most; strategies that coincide count once."""
    salt = np.random.default_rng(0).random(len(Mapping.__dataclass_fields__))
    key = sum(leaf * s for leaf, s in zip(jax.tree.leaves(mappings), salt, strict=True))
    order = np.argsort(key, axis=-1, kind="stable")
    in_order = np.take_along_axis(key, order, axis=-1)
    repeated = np.zeros(key.shape, bool)
    np.put_along_axis(repeated, order[..., 1:], in_order[..., 1:] == in_order[..., :-1], axis=-1)
    once = np.where(repeated, np.inf, estimate)
    costs = (_cost(o, prices.seconds(once), prices.energy_pj(once), others) for o in objectives)
    return np.concatenate([np.argsort(cost, axis=-1, kind="stable")[..., :keep] for cost in costs], axis=-1)


def _check_feasible(workload: Op | Workload, found: Found) -> None:
    status, overflow = found.status[0], found.overflow[0]
    for row in range(len(status)):
        if not np.isfinite(found.seconds[0, row]).any():
            name = workload.row_names[row] if isinstance(workload, Workload) else repr(workload)
            raise InfeasibleError(
                f"{name}: no mapping of the stated set fits this chip; the nearest: {explain(status[row][0], overflow[row][0])}"
            )
