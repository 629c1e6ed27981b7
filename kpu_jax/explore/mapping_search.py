"""The best mapping of an operation among the stated set: screened by the bound, decided by exact time."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.errors import InfeasibleError, KPUError, check_choice, nearest
from kpu_jax.base.pytree import is_traced
from kpu_jax.hardware import KPUConfig
from kpu_jax.mapping import Mapping
from kpu_jax.mapping.legality import explain
from kpu_jax.mapping.proposals import STRATEGIES, propose
from kpu_jax.model.evaluate import evaluate, floats

from kpu_jax.workload import Op, Workload

OBJECTIVES = ("latency", "energy", "edp")
FINALISTS = 12  # mappings per operation that are timed exactly
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
    with jax.enable_x64(True):
        finalists, seconds, energy, status, overflow = to_host_all(_finalists(floats(cfg), floats(table), STRATEGIES[keep], pinned, objective))
    _check_feasible(workload, seconds, status, overflow)
    choice = choose(seconds, energy, np.asarray(table.count), objective)
    rows = np.arange(len(choice))
    chosen = jax.tree.map(lambda v: v[rows, choice], finalists)
    return chosen if isinstance(workload, Workload) else jax.tree.map(lambda v: v[0], chosen)


def to_host_all(tree: Any) -> Any:
    """NumPy float64 leaves, arrays kept."""
    return jax.tree.map(lambda v: np.asarray(v, np.float64), tree)


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


@partial(jax.jit, static_argnames="objective")
def _finalists(cfg: Any, ops: Any, strategies: Scalar, pinned: dict[str, Scalar], objective: str) -> Any:
    """(mappings, exact seconds, energy, status, overflow) of each operation's `FINALISTS` best by the bound."""

    def one(op: Any) -> Any:
        def mapping_of(strategy: Scalar) -> Mapping:
            return _pin(propose(cfg, op, strategy), pinned)

        screened = jax.vmap(lambda s: evaluate(cfg, op, mapping_of(s), exact=False))(strategies)
        cost = {"latency": screened.seconds, "energy": screened.energy_pj, "edp": screened.edp}[objective]
        _, best = jax.lax.top_k(-jnp.where(screened.status_code == 0, cost, jnp.inf), min(FINALISTS, len(strategies)))
        mappings = jax.vmap(mapping_of)(strategies[best])
        return mappings, screened.status_code[best], screened.overflow[best]

    mappings, status, overflow = jax.vmap(one)(ops)

    def timed(op: Any, row: Mapping) -> Any:
        r = jax.vmap(lambda m: evaluate(cfg, op, m, exact=True))(row)
        return r.seconds, r.energy_pj

    seconds, energy = jax.vmap(timed)(ops, mappings)
    return mappings, seconds, energy, status, overflow


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


def _check_feasible(workload: Op | Workload, seconds: np.ndarray, status: np.ndarray, overflow: np.ndarray) -> None:
    for row in range(len(seconds)):
        if not np.isfinite(seconds[row]).any():
            name = workload.names[row] if isinstance(workload, Workload) else repr(workload)
            raise InfeasibleError(
                f"{name}: no mapping of the stated set fits this chip; the nearest: {explain(status[row][0], overflow[row][0])}"
            )



