"""The mappings of measured operations that promise most on one chip, timed exactly; what calibration predicts with."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.base.errors import InfeasibleError
from kpu_jax.engines.rates import rates_of
from kpu_jax.explore.mapping_rules import MappingRules
from kpu_jax.explore.quick_mapping import priced_proposals
from kpu_jax.hardware import KPUConfig
from kpu_jax.mapping import Mapping
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.bound import bound_of
from kpu_jax.model.evaluate import screen
from kpu_jax.model.pricing import Price
from kpu_jax.model.work import Work
from kpu_jax.workload import Workload

FINALISTS = 12  # mappings per operation that are timed exactly
NEVER = 1e30  # beyond the bound: the mapping does not fit; finite, so that nothing times it is NaN


class Finalists(NamedTuple):
    """Mappings [finalist, row], with what exact time is beyond their bounds."""

    mapping: Mapping
    work: Work
    beyond: Any  # exact time over bound on the chip that they were timed on


def finalists_on(cfg: KPUConfig, workload: Workload, rules: MappingRules) -> Finalists:
    """The `FINALISTS` different mappings of each operation with the least estimates on this chip, timed exactly.

    Raises `InfeasibleError` naming an operation of which no mapping fits.
    """
    ops = wide(workload.ops)
    with jax.enable_x64(True):
        mapping, prices = jax.tree.map(np.asarray, _proposed(wide(cfg), ops, rules.strategies()))
    estimate = np.where((prices.status == 0) & rules.admitted(workload), prices.estimate, np.inf)
    nowhere = np.flatnonzero(~np.any(np.isfinite(estimate), axis=1))
    if nowhere.size:
        raise InfeasibleError(f"{workload.row_names[nowhere[0]]}: no mapping of the stated strategies fits this chip")
    kept, rows = _different(mapping, estimate), np.arange(workload.rows)
    mapping, estimate = jax.tree.map(lambda v: v[rows, kept], (mapping, estimate))
    possible = np.nonzero(np.isfinite(estimate))
    cycles = exact_cycles_of(
        jax.tree.map(lambda v: np.full(len(possible[0]), float(v)), cfg),
        jax.tree.map(lambda v: v[possible[1]], ops),
        jax.tree.map(lambda v: v[possible], mapping),
    )
    with jax.enable_x64(True):
        work = jax.tree.map(np.asarray, _works(wide(cfg), ops, mapping))
        bound = np.asarray(_bounds(wide(cfg), ops, work, mapping.dataflow))
    beyond = np.full(kept.shape, NEVER)
    beyond[possible] = cycles / bound[possible]
    return Finalists(mapping, work, beyond)


def _different(mapping: Mapping, estimate: np.ndarray) -> np.ndarray:
    """[finalist, row]: the strategies of least estimate; of those that propose the same mapping the first one only."""
    leaves = np.stack([np.broadcast_to(v, estimate.shape) for v in jax.tree.leaves(mapping)], axis=-1)
    first = np.full(estimate.shape, np.inf)
    for row, proposed in enumerate(leaves):
        once = np.unique(proposed, axis=0, return_index=True)[1]
        first[row, once] = estimate[row, once]
    kept = np.argsort(first, axis=1, kind="stable")[:, :FINALISTS]
    estimate[:] = first  # a repeated mapping is no finalist, where there are fewer
    return kept.T


def least_seconds(cfg: Any, ops: Any, finalists: Finalists) -> Any:
    """The least seconds [row] of the finalists' bounds on `cfg`, times what exact time was beyond them.

    Exact on the chip that they were timed on; near it a surrogate, differentiable in the speeds of its engines.
    """
    cycles = _bounds(cfg, ops, finalists.work, finalists.mapping.dataflow) * finalists.beyond
    least = jnp.argmin(cycles, axis=0)
    return jnp.take_along_axis(cycles, least[None], axis=0)[0] / (cfg.clocks.fabric_mhz * 1e6)


def timed(cfg: KPUConfig, workload: Workload, finalists: Finalists) -> np.ndarray:
    """The least exact seconds [row], on the chip that the finalists were timed on."""
    with jax.enable_x64(True):
        return np.asarray(least_seconds(wide(cfg), wide(workload.ops), finalists))


def wide(tree: Any) -> Any:
    """The same with float64 NumPy leaves."""
    return jax.tree.map(lambda v: np.asarray(v, np.float64), tree)


@jit_for(BATCH)
def _proposed(cfg: Any, ops: Any, strategies: Any) -> tuple[Mapping, Price]:
    """(mappings, prices) [row, strategy]."""
    return jax.vmap(lambda op: priced_proposals(cfg, op, strategies))(ops)


@jit_for(BATCH)
def _works(cfg: Any, ops: Any, mappings: Mapping) -> Work:
    """What the engines do [finalist, row]."""
    return jax.vmap(jax.vmap(lambda op, mapping: screen(cfg, op, mapping).work), in_axes=(None, 0))(ops, mappings)


@jax.jit
def _bounds(cfg: Any, ops: Any, work: Work, dataflow: Any) -> Any:
    """Lower bounds [finalist, row] in cycles."""

    def bound(op: Any, each: Work, flow: Any) -> Any:
        return bound_of(each, rates_of(cfg, op, flow)).cycles

    return jax.vmap(jax.vmap(bound), in_axes=(None, 0, 0))(ops, work, dataflow)
