"""All mappings of a small operation on a chip, one by one in plain Python loops, and the best of them by exact time."""

from __future__ import annotations

import itertools

import jax
import numpy as np

from kpu_jax.base.pytree import build
from kpu_jax.explore.optimal.search import PRICED, _priced
from kpu_jax.mapping import Mapping
from kpu_jax.model.batch import exact_cycles_of

PASSES = {0: (0, 1), 1: (2, 3), 2: (4, 5)}  # pass orders by dataflow


def all_mappings(op, tiles, fixed):
    """Leaves of every mapping whose `fixed` leaves have the given numbers: nothing clipped, merged or left out."""

    def choices(leaf, free):
        return [fixed[leaf]] if leaf in fixed else free

    pairs = [
        [(t3, t2) for t3 in choices(f"l3_{a}", range(1, size + 1)) for t2 in choices(f"l2_{a}", range(1, t3 + 1))]
        for a, size in (("m", int(op.m)), ("n", int(op.n)), ("k", int(op.k)))
    ]
    flows = [(f, p) for f in choices("dataflow", range(3)) for p in choices("pass_order", PASSES[f])]
    codes = [choices(leaf, range(n)) for leaf, n in (("l3_order", 6), ("l2_order", 6))]
    doubles = [choices(f"double_{level}", range(2)) for level in ("l3", "l2", "l1")]
    counts = [choices(f"partition_{a}", range(1, tiles + 1)) for a in "bmnk"]
    for m, n, k in itertools.product(*pairs):
        for flow, o3, o2, d3, d2, d1 in itertools.product(flows, *codes, *doubles):
            for parts in itertools.product(*counts):
                if np.prod(parts) <= tiles:
                    yield (flow[0], m[0], n[0], k[0], m[1], n[1], k[1], o3, o2, flow[1], d3, d2, d1, *parts)


def timed(cfg, op, mappings):
    """(prices, exact cycles) [mapping] of those that fit."""
    starts = range(0, len(mappings.dataflow), PRICED)
    parts = [_priced(cfg, op, jax.tree.map(lambda v, i=start: v[i : i + PRICED], mappings)) for start in starts]
    prices = jax.tree.map(lambda *v: np.concatenate(v), *parts)
    fits = np.flatnonzero(prices.status == 0)
    prices, mappings = jax.tree.map(lambda v: v[fits], (prices, mappings))
    if not len(fits):
        return prices, mappings, np.zeros(0)
    chips = jax.tree.map(lambda v: np.full(len(fits), v), (cfg, op))
    return prices, mappings, exact_cycles_of(*chips, mappings)


def least(cfg, op, goal, fixed):
    """(the least objective of all mappings that fit, how many mappings there are); none is left out by a bound."""
    rows = np.array(list(all_mappings(op, int(cfg.compute.tile_count), fixed)), np.float64)
    names = Mapping.__dataclass_fields__
    prices, _, cycles = timed(cfg, op, build(Mapping, **dict(zip(names, rows.T, strict=True))))
    return min(goal.of(prices, cycles), default=np.inf), len(rows)
