"""A good mapping at once: the least lower bound among the strategies of a sweep, without timing any exactly."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.base.errors import InfeasibleError
from kpu_jax.hardware import KPUConfig
from kpu_jax.mapping import Mapping
from kpu_jax.mapping.legality import explain
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES, propose
from kpu_jax.model.pricing import Price, price
from kpu_jax.workload import Op


def priced_proposals(cfg: Any, op: Any, strategies: Any) -> tuple[Mapping, Price]:
    """(mappings, prices) [strategy] of one operation. Pure and traceable."""

    def one(strategy: Any) -> tuple[Mapping, Price]:
        mapping = propose(cfg, op, strategy)
        return mapping, price(cfg, op, mapping)

    return jax.vmap(one)(strategies)


_proposed = jit_for(BATCH)(priced_proposals)


def quick_mapping(cfg: KPUConfig, op: Op) -> Mapping:
    """The mapping of one concrete operation whose estimated energy-delay product is least; milliseconds once compiled.

    `best_mapping` decides among more by exact time. Raises `InfeasibleError` with what overflows if none fits.
    """
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        mappings, prices = jax.tree.map(np.asarray, _proposed(cfg, op.plain(), SWEEP_STRATEGIES))
    fits = prices.status == 0
    if not fits.any():
        reason = explain(float(prices.status[0]), float(prices.overflow[0]))
        raise InfeasibleError(f"{op!r}: no mapping of the sweep's strategies fits this chip; the first: {reason}")
    product = prices.seconds(prices.estimate) * prices.energy_pj(prices.estimate)
    best = int(np.argmin(np.where(fits, product, np.inf)))
    return jax.tree.map(lambda v: v[best], mappings)
