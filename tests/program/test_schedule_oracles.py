"""The closed forms against the schedule walked block by block in plain Python."""

import random

import jax
import pytest

from kpu_jax.mapping import DATAFLOWS, ORDERS, PASS_ORDERS, Mapping
from kpu_jax.mapping.visits import lay_out
from kpu_jax.model.traffic import LEVELS, OPERANDS, count_traffic
from kpu_jax.program import expand
from kpu_jax.workload import Gemm


@jax.jit
def closed_form(op, mapping, rows, cols, rate):
    return count_traffic(op, mapping, lay_out(op, mapping, rows, cols, rate), 64.0)


@pytest.mark.parametrize("seed", range(100))
def test_traffic_equals_the_walked_schedule(seed):
    rng = random.Random(seed)
    m, n, k = (rng.randint(1, 12) for _ in range(3))
    flow = rng.randrange(3)
    l3 = tuple(rng.randint(1, x) for x in (m, n, k))
    mapping = Mapping(
        dataflow=DATAFLOWS[flow],
        l3_tile=l3,
        l2_tile=tuple(rng.randint(1, x) for x in l3),
        l3_order=rng.choice(ORDERS),
        l2_order=rng.choice(ORDERS),
        pass_order=PASS_ORDERS[2 * flow + rng.randrange(2)],
        partition=tuple(rng.choice([1, 1, 2, 3]) for _ in range(4)),
    )
    op = Gemm(m, n, k, batch=rng.randint(1, 3), bias=rng.random() < 0.3).plain()
    rows, cols, rate = rng.randint(1, 4), rng.randint(1, 4), rng.choice([1, 2])
    walked = expand(op, mapping, rows=rows, cols=cols, macs_per_pe=rate).traffic()
    with jax.enable_x64(True):
        counted = closed_form(op, mapping, float(rows), float(cols), float(rate))
    for kind, table in (("read", counted.reads), ("write", counted.writes)):
        for level in LEVELS:
            for x in OPERANDS:
                assert float(table[level][x]) == walked.get((kind, level, x), 0.0), (kind, level, x)
