"""The best mapping of an operation among the stated set: screened by the bound, decided by exact time."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.base.errors import InfeasibleError, KPUError, check_choice, nearest
from kpu_jax.base.pytree import is_traced
from kpu_jax.hardware import KPUConfig
from kpu_jax.mapping import Mapping
from kpu_jax.mapping.legality import explain
from kpu_jax.mapping.proposals import STRATEGIES, propose
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.pricing import Price, price
from kpu_jax.workload import Op, Workload

OBJECTIVES = ("latency", "energy", "edp")
FINALISTS = 16  # mappings per operation that are timed exactly
ROUNDS = 3  # of weighing energy against time over a whole workload

Scalar = jax.Array


def best_mapping(
    cfg: KPUConfig, workload: Op | Workload, *, objective: str = "edp", fixed: dict[str, Any] | None = None
) -> Mapping:
    """The best mapping among the stated set (`mapping.proposals.STRATEGIES`), by exact time.

    For a `Workload`: one mapping per row, as a stacked `Mapping` with leaves [row]; for "edp" each minimises
    E_l D + D_l E at the network's totals. `fixed` pins fields of the mapping to a value, by the names of
    `Mapping`'s constructor or leaves ({"dataflow": "weight_stationary", "double_l3": 0}).
    Raises `InfeasibleError` with what overflows if no mapping of the set fits; `KPUError` for bad arguments.
    """
    check_choice("objective", objective, OBJECTIVES)
    if is_traced(cfg, workload):
        raise KPUError("best_mapping needs a concrete chip and workload: call it outside of jit, vmap and grad")
    table = workload.ops if isinstance(workload, Workload) else jax.tree.map(lambda v: np.asarray(v)[None], workload.plain())
    keep = _allowed(fixed)
    pinned = {k: v for k, v in _pins(fixed).items() if k != "dataflow"}
    chips = jax.tree.map(lambda v: np.asarray(v, np.float64)[None], cfg)
    found = search(chips, table, STRATEGIES[keep], objective, pinned=pinned)
    _check_feasible(workload, found)
    choice = choose(found.seconds[0], found.energy_pj[0], np.asarray(table.count), objective)
    rows = np.arange(len(choice))
    chosen = jax.tree.map(lambda v: v[0, rows, choice], found.mappings)
    return chosen if isinstance(workload, Workload) else jax.tree.map(lambda v: v[0], chosen)


class Found(NamedTuple):
    """The finalists of every operation on every chip, [chip, op, finalist]; NumPy float64."""

    strategy: np.ndarray  # row of the strategies that were screened
    mappings: Mapping
    seconds: np.ndarray  # exact; infinite where the mapping does not fit
    energy_pj: np.ndarray
    status: np.ndarray
    overflow: np.ndarray


def search(
    chips: KPUConfig,
    ops: Op,
    strategies: np.ndarray,
    objective: str,
    *,
    finalists: int = FINALISTS,
    pinned: dict[str, float] | None = None,
) -> Found:
    """Screen `strategies` for a table of operations on chips (leaves [chip]); time the finalists exactly."""
    chips, ops = jax.tree.map(lambda v: np.asarray(v, np.float64), (chips, ops))
    pins = {name: np.float64(value) for name, value in (pinned or {}).items()}
    keep = min(finalists, len(strategies))
    with jax.enable_x64(True):
        screened = _screen(chips, ops, strategies, pins, objective=objective, keep=keep)
    strategy, mappings, prices = jax.tree.map(np.asarray, screened)
    fits = np.flatnonzero(prices.status.ravel() == 0)
    chip, op, _ = np.unravel_index(fits, prices.status.shape)
    cycles = np.full(prices.status.size, np.inf)
    cycles[fits] = exact_cycles_of(
        jax.tree.map(lambda v: v[chip], chips),
        jax.tree.map(lambda v: v[op], ops),
        jax.tree.map(lambda v: v.reshape(-1)[fits], mappings),
    )
    cycles = cycles.reshape(prices.status.shape)
    return Found(strategy, mappings, prices.seconds(cycles), prices.energy_pj(cycles), prices.status, prices.overflow)


def choose(seconds: np.ndarray, energy: np.ndarray, count: np.ndarray, objective: str) -> np.ndarray:
    """Index of the best candidate per operation, [op], of seconds and energies [op, candidate]."""
    finite = np.isfinite(seconds)
    if objective != "edp":
        cost = seconds if objective == "latency" else energy
        return np.argmin(np.where(finite, cost, np.inf), axis=1)
    rows = np.arange(len(seconds))
    best = np.argmin(np.where(finite, seconds * energy, np.inf), axis=1)
    total = np.inf
    for _ in range(ROUNDS):
        d, e = (np.sum(np.where(count > 0, v[rows, best] * count, 0.0)) for v in (seconds, energy))
        if not d * e < total:
            break
        total, kept = d * e, best
        best = np.argmin(np.where(finite, energy * d + seconds * e, np.inf), axis=1)
    return kept


@jit_for(BATCH, static_argnames=("objective", "keep"))
def _screen(chips: Any, ops: Any, strategies: Scalar, pinned: dict[str, Scalar], *, objective: str, keep: int) -> Any:
    """(rows of strategies, mappings, prices) [chip, op, finalist]: the `keep` that promise most."""
    salt = jnp.asarray(np.random.default_rng(0).random(len(Mapping.__dataclass_fields__)))

    def one(cfg: Any, op: Any) -> Any:
        def candidate(strategy: Scalar) -> tuple[Mapping, Price]:
            mapping = _pin(propose(cfg, op, strategy), pinned)
            return mapping, price(cfg, op, mapping)

        mappings, prices = jax.vmap(candidate)(strategies)
        time = prices.seconds(prices.estimate)
        energy = prices.energy_pj(prices.estimate)
        cost = {"latency": time, "energy": energy, "edp": time * energy}[objective]
        cost = jnp.where(prices.status == 0, cost, jnp.inf)
        # Strategies often coincide: only the first of equal mappings stays.
        key = sum(leaf * s for leaf, s in zip(jax.tree.leaves(mappings), salt, strict=True))
        order = jnp.argsort(key)
        again = jnp.concatenate([jnp.zeros(1, bool), key[order][1:] == key[order][:-1]])
        _, best = jax.lax.top_k(-jnp.where(jnp.zeros_like(again).at[order].set(again), jnp.inf, cost), keep)
        return best, *jax.tree.map(lambda v: v[best], (mappings, prices))

    return jax.vmap(lambda cfg: jax.vmap(lambda op: one(cfg, op))(ops))(chips)


def _pin(mapping: Mapping, pinned: dict[str, Scalar]) -> Mapping:
    leaves, tree = jax.tree_util.tree_flatten(mapping)
    names = list(Mapping.__dataclass_fields__)
    return jax.tree_util.tree_unflatten(tree, [pinned.get(n, v) for n, v in zip(names, leaves, strict=True)])


def _pins(fixed: dict[str, Any] | None) -> dict[str, float]:
    """`fixed` as leaves of `Mapping`, checked by its constructor."""
    if not fixed:
        return {}
    leaves = list(Mapping.__dataclass_fields__)
    named = ("dataflow", "l3_tile", "l2_tile", "l3_order", "l2_order", "pass_order", "buffering", "partition")
    for key in fixed:
        if key not in leaves and key not in named:
            raise KPUError(f"fixed: Mapping has no field {key!r}: {nearest(key, [*leaves, *named])}")
    checked = Mapping(**{"l3_tile": (1, 1, 1), "l2_tile": (1, 1, 1), **{k: v for k, v in fixed.items() if k in named}})
    groups = {
        "l3_tile": ("l3_m", "l3_n", "l3_k"),
        "l2_tile": ("l2_m", "l2_n", "l2_k"),
        "buffering": ("double_l3", "double_l2", "double_l1"),
        "partition": ("partition_b", "partition_m", "partition_n", "partition_k"),
    }
    pins: dict[str, float] = {}
    for key, value in fixed.items():
        if key in named:
            pins.update({leaf: float(getattr(checked, leaf)) for leaf in groups.get(key, (key,))})
        else:
            pins[key] = float(value)
    return pins


def _allowed(fixed: dict[str, Any] | None) -> np.ndarray:
    """Rows of the stated set that a pinned dataflow leaves."""
    flow = _pins(fixed).get("dataflow")
    return np.ones(len(STRATEGIES), bool) if flow is None else STRATEGIES[:, 0] == flow


def _check_feasible(workload: Op | Workload, found: Found) -> None:
    status, overflow = found.status[0], found.overflow[0]
    for row in range(len(status)):
        if not np.isfinite(found.seconds[0, row]).any():
            name = workload.row_names[row] if isinstance(workload, Workload) else repr(workload)
            raise InfeasibleError(
                f"{name}: no mapping of the stated set fits this chip; the nearest: {explain(status[row][0], overflow[row][0])}"
            )



