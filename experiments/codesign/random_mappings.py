"""Random legal mappings of every layer of a network on one chip, evaluated by the bound, and the best of them exactly."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import kpu_jax as kpu
from kpu_jax.mapping.sampling import random_mappings
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.pricing import Price, price

POOL = 4096  # drawn and priced at once
POOLS = 40  # drawn before a layer is given up


@jax.jit
def _prices(cfg: Any, op: Any, mappings: Any) -> Price:
    return jax.vmap(lambda m: price(cfg, op, m))(mappings)


def legal(rng: np.random.Generator, cfg: kpu.KPUConfig, op: kpu.Op, count: int) -> tuple[Any, Price]:
    """`count` random legal mappings of `op` and their prices, leaves [mapping]; fewer where hardly any is legal."""
    parts, found = [], 0
    for _ in range(POOLS):
        drawn = random_mappings(rng, op, int(cfg.compute.tile_count), POOL)
        with jax.enable_x64(True):
            prices = jax.tree.map(np.asarray, _prices(cfg, op, drawn))
        fits = np.flatnonzero(prices.status == 0)[: count - found]
        found += len(fits)
        parts.append(taken((drawn, prices), fits))
        if found >= count:
            break
    return jax.tree.map(lambda *v: np.concatenate(v), *parts)


def taken(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda v: v[index], tree)


def edp(prices: Price) -> np.ndarray:
    """By the bound [J s]."""
    return prices.seconds(prices.cycles) * prices.energy_pj(prices.cycles) * 1e-12


def network_edp(cfg: kpu.KPUConfig, net: kpu.Workload, chosen: list[tuple[Any, Price]], power_w: float, exact: bool) -> float:
    """EDP [J s] of the network with one mapping of each layer; infinite above `power_w`."""
    prices = jax.tree.map(lambda *v: np.stack(v), *(p for _, p in chosen))
    cycles = prices.cycles
    if exact:
        mappings = jax.tree.map(lambda *v: np.stack(v), *(m for m, _ in chosen))
        chips = jax.tree.map(lambda v: np.full(len(chosen), v), cfg)
        cycles = exact_cycles_of(chips, net.ops, mappings)
    count = np.asarray(net.ops.count, float)
    seconds, joules = count @ prices.seconds(cycles), count @ prices.energy_pj(cycles) * 1e-12
    return float(seconds * joules) if joules <= power_w * seconds else np.inf
