"""Which results stay in L3: against every way of keeping them, walked in plain Python."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.graph.pieces import Piece, Places, Single, placed, readers_of
from kpu_jax.graph.plan import plan_network
from kpu_jax.graph.residency import keep_results, nothing_stays

INFINITE = math.inf


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Work of which only the bytes are known."""

    a: float
    b: float
    c: float
    macs: float = 0.0

    def held_bytes(self, operand):
        return getattr(self, operand.lower())

    def steps(self, name, places):
        raise AssertionError("its price is given")


def random_graph(rng, count):
    """Pieces that read one or two earlier ones as A, as B or besides; some results leave, some are read in part."""
    pieces = []
    for i in range(count):
        operands, extra = {}, ()
        if i:
            for x, chance in (("A", 0.9), ("B", 0.4)):
                if rng.random() < chance:
                    few = rng.choice(i, size=min(i, int(rng.integers(1, 3))), replace=False)
                    operands[x] = tuple(int(p) for p in few)
            if rng.random() < 0.15:
                extra = (int(rng.integers(i)),)
        reads = tuple(dict.fromkeys([p for made in operands.values() for p in made])) + extra
        own = {x: sum(pieces[p].result_bytes for p in operands.get(x, ())) or 8.0 for x in "AB"}
        part = rng.choice([1.0, 0.5])
        sizes = Sizes(own["A"] * part, own["B"], float(rng.integers(1, 20)))
        pieces.append(Piece(f"op{i}", sizes, reads, operands, bool(rng.random() < 0.2), repeats=1.0))
    return pieces


def random_cost(seed, capacity, pieces):
    """A price for every operation in every place; none where more is there than fits."""

    @functools.cache
    def one(i, places):
        own = sum(pieces[i].work.held_bytes(x) for x, there in zip("ABC", places[:3], strict=True) if there)
        if own + places.reserved > capacity:
            return INFINITE
        draw = np.random.default_rng([seed, i, *map(int, places[:3])]).uniform(1, 10)
        return draw + places.reserved / capacity * 3

    return lambda asked: [one(i, places) for i, places in asked]


def every_way(pieces):
    """(written, until) of every result: until the reader that is the last to find it in L3, or None."""
    readers = readers_of(pieces)
    choices = []
    for i, piece in enumerate(pieces):
        near = []
        for r in readers[i]:
            within = sum(made.count(i) for made in pieces[r].operands.values())
            if within and pieces[r].reads.count(i) <= within:
                near.append(r)
        both = piece.leaves or len(readers[i]) > 1  # else what is kept need not be written
        options = [(True, None), *((True, r) for r in near if both)]
        if near and near == readers[i] and not piece.leaves:  # nobody needs it in external memory
            options.append((False, readers[i][-1]))
        choices.append(options)
    return itertools.product(*choices)


def price_of(pieces, way, cost):
    """What one way costs, by walking the operations; infinite where a reader finds its operand nowhere."""
    total = 0.0
    for i, piece in enumerate(pieces):
        there = {t for t, (_, until) in enumerate(way[:i]) if until is not None and until >= i}
        taken = {x: made for x, made in piece.operands.items() if set(made) <= there}
        from_l3 = {p for made in taken.values() for p in made}
        if any(p not in from_l3 and not way[p][0] for p in piece.reads):
            return INFINITE
        reserved = sum(pieces[t].result_bytes for t in there - from_l3)
        for made in set(taken.values()):  # both operands may be parts of one result
            read = sum(piece.work.held_bytes(x) for x, own in taken.items() if own == made)
            reserved += max(0.0, sum(pieces[p].result_bytes for p in made) - read)
        written, until = way[i]
        if written and until is not None:
            reserved += piece.result_bytes
        places = Places("A" in taken, "B" in taken, not written and until is not None, reserved)
        total += cost([(i, places)])[0]
    return total


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.long)])
def test_the_placement_is_the_best_of_all(count):
    rng = np.random.default_rng(3)
    kept = written_too = 0
    for seed in range(count):
        pieces = random_graph(rng, int(rng.integers(1, 7)))
        cost = random_cost(seed, float(rng.integers(10, 60)), pieces)
        found = keep_results(pieces, cost, lambda reserved: reserved)
        best = min(price_of(pieces, way, cost) for way in every_way(pieces))
        if found.cost != pytest.approx(best, rel=1e-12):
            pytest.fail(f"seed {seed}: found {found.cost}, the best of all ways costs {best}\n{pieces}")
        assert found.optimal and found.cost <= nothing_stays(pieces, cost).cost + 1e-9
        assert found.cost == pytest.approx(sum(cost(list(enumerate(found.places)))), rel=1e-12)
        way = [(True, None)] * len(pieces)
        for k in found.kept:
            way[k.piece] = (k.written, k.until)
        assert price_of(pieces, way, cost) == pytest.approx(best, rel=1e-12)
        kept += len(found.kept)
        written_too += sum(k.written for k in found.kept)
    assert kept > count / 2 and written_too > 0


def test_a_narrow_beam_says_so_and_still_finds_a_way():
    rng = np.random.default_rng(5)
    said = 0
    for seed in range(40):
        pieces = random_graph(rng, 8)
        cost = random_cost(seed, 60.0, pieces)
        narrow = keep_results(pieces, cost, lambda reserved: reserved, beam=1)
        wide = keep_results(pieces, cost, lambda reserved: reserved)
        assert wide.cost - 1e-9 <= narrow.cost < INFINITE
        assert narrow.optimal <= (narrow.cost <= wide.cost + 1e-9)
        said += not narrow.optimal
    assert said > 20


def test_what_others_occupy_is_asked_rounded():
    pieces = random_graph(np.random.default_rng(0), 6)
    asked = []

    def cost(pairs):
        asked.extend(places.reserved for _, places in pairs)
        return [1.0] * len(pairs)

    keep_results(pieces, cost, lambda reserved: 100 * math.ceil(reserved / 100))
    assert set(asked) <= {0.0, 100.0} and 100.0 in asked


def test_the_best_of_a_chain_by_exact_time():
    """Every subset of the results of a chain, priced by `best_mapping` and `simulate`, in plain Python."""
    chip = kpu.presets.edge_ai().replace({"on_chip_memory.l3.tile_capacity_kb": 16})
    sizes = [(96, 128, 64), (96, 64, 128), (96, 96, 64), (96, 128, 96), (96, 64, 128)]
    chain = [kpu.Gemm(m, n, k).plain() for m, n, k in sizes]
    net = kpu.Workload.from_ops([(f"layer{i}", op) for i, op in enumerate(chain)])
    report = plan_network(chip, net, objective="latency", fusion="none", attention="none")
    flags = (False, True)
    keys = [(i, a, c) for i in range(len(chain)) for a in flags for c in flags]
    held = {key: sum(Single(chain[key[0]]).held_bytes(x) for x, there in zip("AC", key[1:], strict=True) if there) for key in keys}
    fits = [key for key in keys if held[key] < 32 * 1024 - 2048]
    every = kpu.Workload.from_ops([placed(chain[i], Places(a, False, c)) for i, a, c in fits])
    alone = kpu.simulate(chip, every, kpu.best_mapping(chip, every, objective="latency")).per_op.cycles / every.ops.count
    cycles = {key: float(alone[row]) for key, row in zip(fits, every.row_of, strict=True)}
    totals = {}
    for kept in itertools.product(flags, repeat=len(chain) - 1):
        ends = (False, *kept, False)
        totals[kept] = sum(cycles.get((i, ends[i], ends[i + 1]), INFINITE) for i in range(len(chain)))
    best = min(totals.values())
    assert float(report.cycles) == pytest.approx(best, rel=1e-12)
    assert best < totals[(False,) * (len(chain) - 1)] < INFINITE and report.plan.optimal
    assert len(set(totals.values())) > 4, "the choice matters"


def test_results_stay_only_within_one_iteration():
    """A scan's carry goes through external memory; what the body's next operation reads need not."""

    def network(x, weights):
        def layer(x, w):
            return jax.nn.relu(x @ w[0]) @ w[1], None

        return jax.lax.scan(layer, x, weights)[0]

    shapes = jax.ShapeDtypeStruct((32, 64), np.float32), jax.ShapeDtypeStruct((5, 2, 64, 64), np.float32)
    net = kpu.trace(network, dtype="int8")(*shapes)
    report = plan_network(kpu.presets.edge_ai(), net)
    assert [(k.name, k.until) for k in report.plan.kept] == [("dot", "dot_1")]
    assert [piece.repeats for piece in report.plan.pieces] == [5, 5]
    moved = sum(report.traffic["dram"].values())
    assert moved == 5 * (2 * 64 * 64 + 2 * 32 * 64)  # both weights, the carry in and out; nothing between


def test_the_parts_of_one_result_are_read_from_where_it_stays():
    """Q, K and V of one product."""
    heads, rows, depth = 2, 32, 16
    width = heads * depth

    def network(x, w):
        q, k, v = (jnp.swapaxes(part.reshape(rows, heads, depth), 0, 1) for part in jnp.split(x @ w, 3, axis=1))
        return jnp.tanh(q @ jnp.swapaxes(k, 1, 2)) @ v

    arrays = (rows, width), (width, 3 * width)
    net = kpu.trace(network, dtype="int8")(*(jax.ShapeDtypeStruct(s, np.float32) for s in arrays))
    report = plan_network(kpu.presets.edge_ai(), net, fusion="none", attention="none")
    assert [(k.name, k.until) for k in report.plan.kept] == [("dot", "dot_2"), ("dot_1", "tanh"), ("tanh", "dot_2")]
    assert sum(report.traffic["dram"].values()) == sum(map(math.prod, arrays)) + rows * width


def test_a_result_stays_though_its_reader_takes_other_arrays_too():
    """Gains, biases and residual streams come from external memory; the product before them need not."""

    def network(x, w, gain, v):
        y = x @ w
        y = y * jax.lax.rsqrt((y**2).mean(-1, keepdims=True) + 1e-5) * gain
        return y @ v

    rows, width = 32, 64
    arrays = ((rows, width), (width, width), (width,), (width, width))
    net = kpu.trace(network, dtype="int8")(*(jax.ShapeDtypeStruct(s, np.float32) for s in arrays))
    report = plan_network(kpu.presets.edge_ai(), net)
    assert [(k.name, k.until) for k in report.plan.kept] == [("dot", "rmsnorm"), ("rmsnorm", "dot_1")]
    assert sum(report.traffic["dram"].values()) == sum(map(math.prod, arrays)) + rows * width
    norm = [op for name, op in report.plan.workload if name.startswith("rmsnorm")]
    assert [float(op.m) for op in norm] == [width, rows * width], "the gain is copied to L3, then read from there"
