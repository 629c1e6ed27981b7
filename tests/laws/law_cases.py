"""Random triples with their reports, shared by the laws, and how a broken law is reported."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from strategies import Triple, in_chunks, passes_of, random_triples, take

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.evaluate import evaluate

STEPPED = [200, pytest.param(3000, marks=pytest.mark.long)]
MOST_PASSES = 1500  # of a schedule that is timed exactly
ROUNDING = 1e-9  # of quotients and sums in float64


@jit_for(BATCH)
@jax.vmap
def bounded(cfg: Any, op: Any, mapping: Any) -> Any:
    """Reports by the bound [case]."""
    return evaluate(cfg, op, mapping, exact=False)


class Case(NamedTuple):
    """Random triples and what is said of them; unpacks in this order."""

    triples: Triple
    report: Any  # by the bound
    fits: np.ndarray  # bool


def drawn(seed: int, count: int) -> Case:
    """`count` triples of any size."""
    triples = random_triples(seed, count)
    report = in_chunks(bounded, *triples)
    return Case(triples, report, report.status_code == 0)


@functools.lru_cache(maxsize=2)
def stepped(count: int) -> tuple[Triple, np.ndarray, np.ndarray]:
    """(feasible triples of at most `MOST_PASSES` passes, their exact cycles, the bound)."""
    triples = random_triples(8, 3 * count, fitting=1.0)
    report = in_chunks(bounded, *triples)
    kept = np.flatnonzero((report.status_code == 0) & (passes_of(triples) <= MOST_PASSES))[:count]
    assert len(kept) == count
    triples = Triple(*(take(tree, kept) for tree in triples))
    return triples, exact_cycles_of(*triples), report.cycles_bound[kept]


def assert_all(law: Any, chosen: Any, triples: Triple, *values: Any, about: str = "") -> None:
    """Every `chosen` case obeys the `law`; else fail with the smallest that does not, and the `values` it gave."""
    broken = np.flatnonzero(np.asarray(chosen) & ~np.asarray(law))
    if len(broken):
        sizes = np.asarray(triples.op.batch * triples.op.m * triples.op.n * triples.op.k)
        first = broken[np.argmin(sizes[broken])]
        cfg, op, mapping = (take(tree, first) for tree in triples)
        given = [float(np.asarray(v)[first]) for v in values]
        many = f"{len(broken)} of {len(law)} cases break the law {about}"
        pytest.fail(f"{many}, the smallest is case {first}: {given}\n{op}\n{mapping}\n{cfg}")
