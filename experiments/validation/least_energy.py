"""The mapping of least energy that can be found: the stated set, then random mappings, then changes of the best one.

Energies here are a price per byte read and written at each level, so that a study can give a level the price of another
tool's, or none.
"""

from __future__ import annotations

from collections.abc import Mapping as Prices
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import kpu_jax as kpu
from kpu_jax.base.errors import InfeasibleError
from kpu_jax.base.pytree import build
from kpu_jax.mapping.legality import needs
from kpu_jax.mapping.proposals import STRATEGIES, propose
from kpu_jax.mapping.rate import rate_of
from kpu_jax.mapping.visits import lay_out
from kpu_jax.model.traffic import LEVELS, OPERANDS, count_traffic
from kpu_jax.workload.op import CONV, Op

BLOCK = 4096  # mappings evaluated at once


class Least(NamedTuple):
    """A mapping and what it moves."""

    mapping: kpu.Mapping
    pj: float
    report: kpu.Report
    stated_pj: float  # of the best of the stated set


@jax.jit
def _prices(cfg: Any, op: Any, mappings: Any, prices: Any) -> Any:
    array, rate = cfg.compute.processor_array, rate_of(cfg, op)

    def one(mapping: Any) -> Any:
        layout = lay_out(op, mapping, array.rows, array.cols, rate)
        t = count_traffic(op, mapping, layout, cfg.buses.burst_bytes)
        moved = sum(pj * sum(t.reads[level][x] + t.writes[level][x] for x in OPERANDS) for level, pj in prices.items())
        return jnp.where(needs(cfg, op, mapping, layout).status == 0, moved, jnp.inf)

    return jax.vmap(one)(mappings)


@jax.jit
def _stated(cfg: Any, op: Any) -> Any:
    return jax.vmap(lambda strategy: propose(cfg, op, strategy))(STRATEGIES)


def _priced(cfg: kpu.KPUConfig, op: Op, mappings: kpu.Mapping, prices: Prices[str, float]) -> np.ndarray:
    """pJ [mapping], infinite where one does not fit."""
    count = len(mappings.dataflow)
    found = []
    with jax.enable_x64(True):
        for first in range(0, count, BLOCK):
            at = np.minimum(np.arange(first, first + BLOCK), count - 1)
            found.append(np.asarray(_prices(cfg, op, jax.tree.map(lambda v, i=at: v[i], mappings), prices)))
    return np.concatenate(found)[:count]


def _sizes(rng: np.random.Generator, most: int, count: int) -> np.ndarray:
    """Tile sizes: half of them the dimension cut into equal parts, half log-uniform."""
    parts = np.ceil(most / np.floor(np.exp(rng.uniform(0, np.log(most + 1), count))))
    free = np.ceil(np.exp(rng.uniform(0, np.log(most), count)))
    return np.clip(np.where(rng.random(count) < 0.5, parts, free), 1, most)


def _legal(op: Op, leaves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with L3 tiles within the operation, whole rows and windows for a convolution, and L2 tiles within them."""
    for axis in "mnk":
        leaves[f"l3_{axis}"] = np.minimum(leaves[f"l3_{axis}"], float(getattr(op, axis)))
    if op.kind == CONV:
        row, image, kernel = float(op.out_w), float(op.out_h * op.out_w), float(op.kernel_h * op.kernel_w)
        unit = np.where(leaves["l3_m"] < image, row, image)
        leaves["l3_m"] = np.ceil(leaves["l3_m"] / unit) * unit
        leaves["l3_k"] = np.ceil(leaves["l3_k"] / kernel) * kernel
    for axis in "mnk":
        leaves[f"l2_{axis}"] = np.minimum(leaves[f"l2_{axis}"], leaves[f"l3_{axis}"])
    leaves["dataflow"] = np.floor(leaves["pass_order"] / 2)
    return leaves


def _random(rng: np.random.Generator, op: Op, count: int) -> dict[str, np.ndarray]:
    leaves: dict[str, np.ndarray] = {}
    for axis in "mnk":
        leaves[f"l3_{axis}"] = _sizes(rng, int(getattr(op, axis)), count)
        outer = leaves[f"l3_{axis}"]
        leaves[f"l2_{axis}"] = np.ceil(outer / np.floor(np.exp(rng.uniform(0, np.log(outer + 1)))))
    leaves["pass_order"] = rng.integers(0, 6, count).astype(float)
    for level in ("l3", "l2"):
        leaves[f"{level}_order"] = rng.integers(0, 6, count).astype(float)
    return _legal(op, leaves)


def _mutated(rng: np.random.Generator, op: Op, best: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Some leaves of the best mappings drawn anew, or its sizes changed by a little."""
    parent = rng.integers(0, len(best["dataflow"]), count)
    new, leaves = _random(rng, op, count), {}
    for name, values in best.items():
        old = values[parent]
        if name[:3] in ("l3_", "l2_") and name[-1] in "mnk":
            most = leaves[f"l3_{name[-1]}"] if name[:3] == "l2_" else float(getattr(op, name[-1]))
            parts = np.maximum(np.ceil(most / old) + rng.integers(-1, 2, count), 1)
            scaled = np.maximum(np.round(old * np.exp(rng.normal(0, 0.3, count))), 1)
            kind = rng.random(count)
            new[name] = np.where(kind < 0.4, np.ceil(most / parts), np.where(kind < 0.7, scaled, new[name]))
        leaves[name] = np.where(rng.random(count) < 0.3, new[name], old)
    return _legal(op, leaves)


def _mapping(leaves: dict[str, np.ndarray]) -> kpu.Mapping:
    """Memories buffered singly and one compute tile: what moves the fewest bytes."""
    count = len(leaves["dataflow"])
    alone = {f"partition_{axis}": np.ones(count) for axis in "bmnk"}
    single = {f"double_{level}": np.zeros(count) for level in ("l3", "l2", "l1")}
    return build(kpu.Mapping, **leaves, **alone, **single)


def least_energy(
    cfg: kpu.KPUConfig, op: Op, prices: Prices[str, float], *, blocks: int = 16, rounds: int = 12, seed: int = 0
) -> Least:
    """Search for the mapping of `op` on `cfg` that costs least at `prices` [pJ/byte] by level (levels left out cost nothing).

    A heuristic: `blocks` x 4,096 random mappings beside the stated set, then `rounds` x 4,096 changes of the 64 best.
    """
    rng = np.random.default_rng(seed)
    plain = jax.tree.map(np.float64, op.plain())
    prices = {level: np.float64(prices.get(level, 0.0)) for level in LEVELS}
    with jax.enable_x64(True):
        stated = jax.tree.map(np.asarray, _stated(cfg, plain))
    stated_pj = _priced(cfg, plain, stated, prices)
    names = list(_random(rng, op, 1))
    pool = {name: np.asarray(getattr(stated, name)) for name in names}
    drawn = _random(rng, op, blocks * BLOCK)
    pool = {name: np.concatenate([pool[name], drawn[name]]) for name in names}
    pj = _priced(cfg, plain, _mapping(pool), prices)
    for _ in range(rounds):
        kept = np.argsort(pj, kind="stable")[:64]
        best = {name: v[kept] for name, v in pool.items()}
        if not np.isfinite(pj[kept[0]]):
            raise InfeasibleError(f"{op!r}: no mapping was found that fits this chip")
        changed = _mutated(rng, op, best, BLOCK)
        pool = {name: np.concatenate([best[name], changed[name]]) for name in names}
        pj = np.concatenate([pj[kept], _priced(cfg, plain, _mapping(changed), prices)])
    winner = int(np.argmin(pj))
    mapping = jax.tree.map(lambda v: np.float64(v[winner]), _mapping(pool))
    return Least(mapping, float(pj[winner]), kpu.simulate(cfg, op, mapping, timing="bound"), float(stated_pj.min()))
