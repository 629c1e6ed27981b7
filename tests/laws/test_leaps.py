"""A walk that leaps over repeating loops arrives when one that makes every pass does, for durations of any kind."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from law_cases import MOST_PASSES, STEPPED, assert_all, bounded
from strategies import Triple, in_chunks, passes_of, random_triples, stack, take

from kpu_jax.base.pytree import get_path, replace_path
from kpu_jax.engines.rates import rates_of
from kpu_jax.hardware import preset
from kpu_jax.mapping import Mapping
from kpu_jax.model.batch import exact_cycles_of, problem_of
from kpu_jax.model.evaluate import evaluate, floats, rate_of
from kpu_jax.model.exact import exact_cycles, exact_slopes
from kpu_jax.model.moves import context
from kpu_jax.model.timing import by_engines
from kpu_jax.workload import Gemm


@jax.jit
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


@pytest.mark.parametrize(
    ("field", "value"),
    [("op.m", np.nan), ("op.k", 0), ("op.n", -3), ("op.batch", 0), ("mapping.l3_m", 0), ("mapping.l2_n", 0),
     ("mapping.partition_k", np.nan), ("cfg.clocks.dma_mhz", np.nan), ("cfg.external_memory.bandwidth_gbps", 0),
     ("cfg.compute.processor_array.rows", 0), ("cfg.compute.processor_array.cols", np.inf)],
)  # fmt: skip
def test_a_walk_that_cannot_end_ends_at_once(field, value):
    """A lane without a meaning takes infinitely long, in cycles only: the lanes beside it are timed as ever."""
    mapping = Mapping(l3_tile=(64, 64, 64), l2_tile=(16, 16, 64))
    good = stack([Triple(preset("edge_ai"), Gemm(4096, 4096, 64).plain(), mapping)] * 2)
    tree, path = field.split(".", 1)
    leaf = get_path(getattr(good, tree), path).copy()
    leaf[1] = value
    bad = good._replace(**{tree: replace_path(getattr(good, tree), path, leaf)})
    with np.errstate(all="ignore"):
        cycles = exact_cycles_of(*bad)
    assert cycles[0] == exact_cycles_of(*good)[0]
    assert cycles[1] == np.inf


@jax.jit
@jax.vmap
def both_slopes(cfg: Any, op: Any, mapping: Any) -> Any:
    """((makespan, parts of the engine classes) with leaps, the same without)."""
    problem = problem_of(floats(cfg), floats(op), floats(mapping))
    c, along = context(problem.op, problem.mapping, problem.rates, *problem[3:]), by_engines(problem)
    return exact_slopes(c, along), exact_slopes(c, along, leap=False)


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_leaps_carry_the_slopes_along(count):
    """Each split is that of a critical path; away from ties they are the same one."""
    triples = random_triples(41, 6 * count, fitting=1.0)
    passes = passes_of(triples)
    fits = in_chunks(bounded, *triples).status_code == 0
    kept = np.flatnonzero(fits & (passes > 20) & (passes <= MOST_PASSES / 3))[:count]
    triples = Triple(*(take(tree, kept) for tree in triples))
    (leapt, by_leaps), (walked, by_walking) = in_chunks(both_slopes, *triples)
    np.testing.assert_allclose(leapt, walked, rtol=1e-12)
    for split in (by_leaps, by_walking):
        np.testing.assert_allclose(split.sum(axis=1), walked, rtol=1e-12)
    apart = np.max(np.abs(by_leaps - by_walking), axis=1) / walked
    print(f"{np.mean(apart < 1e-9):.3f} of {count} splits agree")
    assert np.mean(apart < 1e-9) > 0.9


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_float32_keeps_a_millionth(count):
    """In the ambient precision of a user's own jit, over schedules of any length."""
    triples = random_triples(42, 3 * count, fitting=1.0)
    kept = np.flatnonzero(in_chunks(bounded, *triples).status_code == 0)[:count]
    triples = Triple(*(take(tree, kept) for tree in triples))
    expected = exact_cycles_of(*triples)
    got = np.asarray(jax.jit(jax.vmap(lambda *t: evaluate(*t, exact=True).cycles))(*triples), np.float64) / triples.op.count
    compared = np.isfinite(got)  # float32 may lose a byte of a capacity
    print(f"at most {np.max(np.abs(got / expected - 1)[compared]):.2g} apart, up to {np.max(passes_of(triples)):.2g} passes")
    assert np.mean(compared) > 0.99
    np.testing.assert_allclose(got[compared], expected[compared], rtol=1e-6)
