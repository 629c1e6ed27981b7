"""A walk that leaps over repeating loops arrives when one that makes every pass does, for durations of any kind."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from law_cases import MOST_PASSES, STEPPED, assert_all, bounded
from strategies import Triple, in_chunks, passes_of, random_triples, take

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.model.evaluate import floats, rate_of
from kpu_jax.model.exact import exact_cycles
from kpu_jax.model.moves import context
from kpu_jax.model.rates import rates_of


@jit_for(BATCH)
@jax.vmap
def both_walks(cfg: Any, op: Any, mapping: Any) -> Any:
    """((makespan, steps) with leaps, the same without)."""
    cfg, op, mapping = floats(cfg), floats(op), floats(mapping)
    array = cfg.compute.processor_array
    rates = rates_of(cfg, op, mapping.dataflow)
    c = context(op, mapping, rates, array.rows, array.cols, rate_of(cfg, op), cfg.buses.burst_bytes)
    return exact_cycles(c), exact_cycles(c, leap=False)


@pytest.mark.parametrize("count", STEPPED)
def test_leaps_change_nothing(count):
    triples = random_triples(40, 5 * count, fitting=1.0)
    passes = passes_of(triples)
    fits = in_chunks(bounded, *triples).status_code == 0
    kept = np.flatnonzero(fits & (passes > 4) & (passes <= MOST_PASSES / 3))[:count]
    assert len(kept) == count
    triples, passes = Triple(*(take(tree, kept) for tree in triples)), passes[kept]
    (leapt, steps), (walked, every) = in_chunks(both_walks, *triples)
    print(f"{np.sum(steps < every)} of {count} leapt; at most {100 * np.max(np.abs(leapt / walked - 1)):.2g} % apart")
    assert_all(every == passes, np.ones(count, bool), triples, every, passes)
    assert_all(np.isclose(leapt, walked, rtol=1e-12), np.ones(count, bool), triples, leapt, walked)
    assert np.mean(steps < every) > 0.2
