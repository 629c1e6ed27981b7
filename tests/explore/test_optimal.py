"""The proven search against timing every mapping of a space listed in plain loops; its bounds; certificates; bad input."""

from __future__ import annotations

import brute_force
import jax
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.explore.optimal.branch import Branch, bounds_of, split
from kpu_jax.explore.optimal.objective import objective_of
from kpu_jax.explore.optimal.orders import Choices
from kpu_jax.explore.optimal.problem import Problem
from kpu_jax.explore.optimal.ranges import LEVELS, AxisTree
from kpu_jax.explore.optimal.space import branches_of
from kpu_jax.explore.optimal.traffic_bound import Partition
from kpu_jax.explore.pins import pins_of
from kpu_jax.mapping.sampling import random_mappings

CHIP = kpu.preset("minimal")
TWO_TILES = CHIP.replace({"compute.tile_count": 2})
SMALL = 4  # problems that every run solves
OBJECTIVES = ("latency", "energy", "edp", {"energy": 1, "latency": 2})


def numbers(cfg, op):
    return jax.tree.map(lambda v: np.asarray(v, np.float64), (cfg, op.plain()))


def random_problem(seed):
    """(chip, operation, objective, fixed): small enough to time every mapping, with arrays and memories that bind."""
    rng = np.random.default_rng(seed)
    tiles, side = (int(rng.integers(1, 3)) for _ in range(2))
    chip = CHIP.replace(
        {
            "compute.tile_count": tiles,
            "compute.processor_array.rows": side,
            "compute.processor_array.cols": int(rng.integers(1, 3)),
            "compute.fold_overlap": seed % 5 > 0,
            "on_chip_memory.l3.tile_capacity_kb": float(rng.choice([2**-6, 2**-5, 1])),
            "on_chip_memory.l2.bank_capacity_kb": float(rng.choice([2**-8, 2**-6, 1])),
            "latency.external_ns": float(rng.choice([0, 4, 100])),
            "buses.dma_bytes": float(rng.choice([1, 8, 64])),
            "buses.streamer_bytes": float(rng.choice([1, 8])),
            "buses.block_mover_bytes": float(rng.choice([1, 8])),
        }
    )
    m, n, k = (int(v) for v in rng.integers(1, 3 if seed < SMALL else 5, 3))
    where = ("external", "host")[seed % 7 == 0]
    gemm = kpu.Gemm(m, n, k, bias=bool(seed % 2), batch=1 + seed % 3 // 2, data_on=where, activation="relu" if seed % 5 == 1 else "none")
    op = kpu.Conv(1, m + 1, n + 1, 2, k, 2) if seed % 4 == 0 else gemm
    fixed = {
        "l3_order": int(rng.integers(6)), "double_l1": int(rng.integers(2)), "partition_b": 1, "dataflow": int(rng.integers(3)),
        f"double_l{2 + seed % 2}": int(rng.integers(2)), "l2_order": int(rng.integers(6)), "partition_n": 1,
    }  # fmt: skip
    return chip, op, OBJECTIVES[seed // 4 % 4], fixed


def check(seed):
    chip, op, objective, fixed = random_problem(seed)
    best, count = brute_force.least(*numbers(chip, op), objective_of(objective), fixed)
    if best == np.inf:
        with pytest.raises(kpu.InfeasibleError):
            kpu.search_mapping(chip, op, objective=objective, fixed=fixed)
        return
    mapping, report, certificate = kpu.search_mapping(chip, op, objective=objective, fixed=fixed)
    assert certificate.value == pytest.approx(best, rel=1e-12)
    assert certificate.certified and certificate.gap <= 1e-8
    assert report.cycles == kpu.simulate(chip, op, mapping).cycles
    assert certificate.space == count


@pytest.mark.parametrize("seed", range(SMALL))
def test_equals_brute_force(seed):
    check(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SMALL, 300))
def test_equals_brute_force_on_random_problems(seed):
    check(seed)


def as_nodes(p, plain, goal, mappings, row):
    """The mapping of this row as a branch of one single node."""
    one = jax.tree.map(lambda v: float(v[row]), mappings)
    steps = np.ceil(p.batch / one.partition_b)
    parts = Partition(*one.partition, steps, np.ceil(p.batch / steps))
    flow = int(one.dataflow)
    trees, ranges = [], []
    for axis, extent in enumerate(p.extents(flow)):
        tree = AxisTree(p, plain, axis, one.partition[1 + axis], extent, (None, None))
        trees.append(tree)
        l3 = np.array([min(one.l3_tile[axis], p.sizes[axis])])
        ranges.append(tree.pairs(l3, np.minimum(one.l2_tile[axis], l3)))
    nodes = np.array([0, 0, 0, *(int(getattr(one, name)) for name in Choices._fields)])[:, None]
    return Branch(p, goal, flow, parts, tuple(trees), {}, (LEVELS,) * 3, tuple(ranges), nodes, np.zeros(1))


OPS = [
    kpu.Gemm(37, 50, 61, batch=3, bias=True), kpu.Conv(2, 14, 14, 8, 12, 3, padding=1),
    kpu.Gemm(1, 70, 300, dtype="bf16", activation="gelu"),
    kpu.Gemm(64, 20, 90, data_on="host"), kpu.Conv(1, 15, 13, 6, 20, 3, padding=1, stride=2),
]  # fmt: skip


def check_bounds(op, seed, count):
    """Of single mappings: no bound beyond the exact cost; energy and what fits exact (but for parts of K)."""
    cfg, plain = numbers(TWO_TILES, op)
    p = Problem(cfg, plain)
    mappings = random_mappings(np.random.default_rng(seed), plain, 2, count)
    prices, fitting, cycles = brute_force.timed(cfg, plain, mappings)
    for name in ("latency", "energy"):
        goal = objective_of(name)
        exact = goal.of(prices, cycles)
        for row in range(len(cycles)):
            branch = as_nodes(p, plain, goal, fitting, row)
            bound = bounds_of(branch, branch.nodes)[0]
            assert bound <= exact[row], (name, row)
            if name == "energy" and fitting.partition_k[row] == 1 and plain.loc_a == 1:
                dynamic = bound / (1 - 1e-9) * 1e12
                assert dynamic >= prices.dynamic_pj[row] * (1 - 1e-2)


@pytest.mark.parametrize("op", OPS, ids=repr)
def test_no_bound_of_a_mapping_exceeds_its_cost(op):
    check_bounds(op, 0, 25)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 9))
@pytest.mark.parametrize("op", OPS, ids=repr)
def test_no_bound_of_many_mappings_exceeds_their_cost(op, seed):
    check_bounds(op, seed, 1000)


def test_a_set_is_bounded_by_the_least_of_its_parts():
    """Along every split, no part has a lower bound than the set that it came from."""
    cfg, plain = numbers(TWO_TILES, kpu.Gemm(20, 12, 40, bias=True))
    for branch in branches_of(Problem(cfg, plain), plain, objective_of("edp"), {}):
        for by in ("l3_order", 0, 1, 2, 0, 1, 2, 0, 1, 2, "l2_order", "double_l3", "double_l2", 1, 2, 0, 1, 2, 0):
            few = branch.where(np.random.default_rng(0).permutation(len(branch.bounds))[:3])
            for at in range(len(few.bounds)):
                parts = split(few.where(np.array([at])), by, np.inf).branch
                assert np.all(parts.bounds >= few.bounds[at] * (1 - 1e-12))
            branch = split(few, by, np.inf).branch


def test_a_budget_states_the_gap_that_is_left():
    _, _, certificate = kpu.search_mapping(CHIP, kpu.Gemm(64, 64, 64), budget=1000)
    assert not certificate.certified and 0 < certificate.gap < 1 and certificate.space > 1000


def test_a_gap_that_is_allowed_ends_the_search_sooner():
    loose, tight = (kpu.search_mapping(CHIP, kpu.Gemm(24, 24, 24), gap=gap)[2] for gap in (0.1, 0.0))
    assert loose.certified and tight.certified and tight.gap <= 1e-8
    assert loose.bounded < tight.bounded and tight.value >= loose.lower_bound


def test_pins_are_kept():
    fixed = {"dataflow": "weight_stationary", "l2_tile": (16, 3, 64), "double_l3": 0, "pass_order": "nk"}
    mapping = kpu.search_mapping(CHIP, kpu.Gemm(24, 24, 24), fixed=fixed)[0]
    assert all(float(getattr(mapping, leaf)) == value for leaf, value in pins_of(fixed).items())


def test_best_mapping_proves_each_operation_or_says_why_not():
    ops = kpu.Workload.from_ops([kpu.Gemm(16, 8, 16), kpu.Gemm(8, 8, 8)])
    found = kpu.best_mapping(CHIP, ops, objective="latency", prove=True, fixed={"dataflow": "output_stationary"})
    for row in range(2):
        _, report, certificate = kpu.search_mapping(CHIP, ops.row(row), objective="latency", fixed={"dataflow": 0})
        own = kpu.simulate(CHIP, ops.row(row), jax.tree.map(lambda v, i=row: v[i], found))
        assert certificate.certified and own.cycles == report.cycles
    with pytest.raises(kpu.KPUError, match="takes one operation"):
        kpu.best_mapping(CHIP, ops, prove=True)


@pytest.mark.parametrize("bad", [{"objective": {"power": 1}}, {"objective": {}}, {"gap": -1}, {"fixed": {"tile": 3}}])
def test_bad_input(bad):
    with pytest.raises(kpu.KPUError):
        kpu.search_mapping(CHIP, kpu.Gemm(2, 2, 2), **bad)
