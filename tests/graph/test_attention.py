"""Attention by row blocks: its traffic walked in plain Python, its steps summed, and where it may run."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks_small import CHIP

import kpu_jax as kpu
from kpu_jax.graph.attention import Block, blocks_of, find_sites
from kpu_jax.graph.pieces import EXTERNAL, L3, Places, pieces_of
from kpu_jax.graph.plan import plan_network

HEADS, QUERIES, KEYS, DEPTH = 4, 96, 128, 32


def attention(q, k, v):
    """Arrays [head, token, depth]."""
    return jax.nn.softmax(q @ k.transpose(0, 2, 1)) @ v


def traced(fn=attention, heads=HEADS, queries=QUERIES, keys=KEYS):
    sizes = ((heads, n, DEPTH) for n in (queries, keys, keys))
    return kpu.trace(fn, dtype="int8")(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in sizes))


def site_of(net):
    pieces = pieces_of(net)
    (site,) = find_sites(pieces)
    return pieces, site


def walk(heads, rows):
    """Bytes that cross the external interface: what is not yet in L3 comes in, results go out, scores never move."""
    moved, there = 0, set()
    for group in range(HEADS // heads):
        for start in range(0, QUERIES, rows):
            these = min(rows, QUERIES - start)
            moved += heads * these * DEPTH  # Q's rows
            for name in ("k", "v"):
                if (name, group) not in there:
                    moved += heads * KEYS * DEPTH
                    there.add((name, group))
            moved += heads * these * DEPTH  # the result's rows
        there.clear()
    return moved


def external_bytes(steps):
    """Of what these steps read and write outside L3, each array once: as they do where blocks of L3 hold them."""
    total = 0.0
    for step in steps:
        op = step.op
        sizes = (op.m * op.k, op.k * op.n, op.m * op.n)
        places = (op.loc_a, op.loc_b, op.loc_c)
        if op.kind == 2:
            assert places[0] == places[2] == L3
            continue
        total += step.times * float(op.batch) * sum(float(s) for s, place in zip(sizes, places, strict=True) if place == EXTERNAL)
    return total


@pytest.mark.parametrize("block", [Block(1, 96), Block(2, 32), Block(4, 40), Block(1, 7), Block(4, 96)])
def test_the_steps_move_what_a_walk_moves(block):
    pieces, site = site_of(traced())
    (piece,) = site.replace(pieces, block)
    steps = piece.work.steps("attention", Places())
    assert external_bytes(steps) == walk(*block)
    assert sum(step.times * float(step.op.macs) for step in steps) == 2 * HEADS * QUERIES * KEYS * DEPTH == piece.work.macs
    assert sum(step.times * float(step.op.m) for step in steps if step.op.kind == 2) == HEADS * QUERIES * KEYS
    assert [piece.work.held_bytes(x) for x in "ABC"] == [HEADS * QUERIES * DEPTH, 2 * HEADS * KEYS * DEPTH, HEADS * QUERIES * DEPTH]


def test_what_the_others_keep_is_reserved():
    """Every step leaves room for K, V and whatever of Q and the result is in L3, and counts none of it twice."""
    pieces, site = site_of(traced())
    (piece,) = site.replace(pieces, Block(2, 32))
    q, kv, out = (piece.work.held_bytes(x) for x in "ABC")
    for places, beside in ((Places(), kv / 2), (Places(True, True, False, 5.0), q + kv + 5), (Places(False, True, True), kv + out)):
        for step in piece.work.steps("attention", places):
            op = step.op
            size = {"A": op.m * op.k, "B": op.k * op.n, "C": op.m * op.n}
            in_l3 = sum(float(op.batch * s) for x, s in size.items() if getattr(op, f"loc_{x.lower()}") == L3)
            scores = 2 * float(op.m) if op.kind == 2 else float(op.batch * 32 * KEYS)  # read and written, or one of these
            assert float(op.reserved_l3_bytes) + in_l3 - scores == beside


def test_the_network_takes_it_where_it_is_cheaper_and_says_what_it_saves():
    tight = CHIP.replace({"on_chip_memory.l3.tile_capacity_kb": 24})  # 48 KiB; scores and probabilities have 96
    net = traced()
    report = plan_network(tight, net)
    (found,) = report.plan.attention
    assert found.chosen and found.blocked is not None and found.block is not None
    assert found.blocked.external_bytes == walk(*found.block) < found.apart.external_bytes
    assert sum(report.traffic["dram"].values()) == walk(*found.block)
    assert report.savings["attention"].energy_pj < report.savings["fusion"].energy_pj
    assert report.macs == net.macs.sum() and len(report.table()) == 1
    without = plan_network(tight, net, attention="none", residency="none")
    assert sum(without.traffic["dram"].values()) >= 4 * HEADS * QUERIES * KEYS + walk(HEADS, QUERIES)
    tiny = plan_network(CHIP.replace({"on_chip_memory.l3.tile_capacity_kb": 1}), traced(keys=4096, heads=1, queries=8))
    assert tiny.plan.attention[0].block is None and not tiny.plan.attention[0].chosen


def grouped(q, k, v):
    """Grouped queries: the einsum makes K the first operand."""
    q = q.reshape(2, 2, QUERIES, DEPTH)
    scores = jnp.einsum("gkd,ghqd->gkhq", k[:2], q).transpose(0, 2, 3, 1)
    return jnp.einsum("ghqk,gkd->ghqd", jax.nn.softmax(scores), v[:2])


MASKS = {  # shape of an array besides the scores -> bytes that all blocks copy of it, at one byte each
    "of all": ((HEADS, QUERIES, KEYS), lambda heads, rows: HEADS * QUERIES * KEYS),
    "shared by heads": ((QUERIES, KEYS), lambda heads, rows: HEADS // heads * QUERIES * KEYS),
    "of keys": ((KEYS,), lambda heads, rows: HEADS // heads * math.ceil(QUERIES / rows) * KEYS),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("block", [Block(1, 96), Block(2, 32), Block(4, 40)])
def test_a_mask_is_copied_block_by_block(name, block):
    shape, copied = MASKS[name]
    net = kpu.trace(lambda q, k, v, mask: jax.nn.softmax(q @ k.transpose(0, 2, 1) + mask) @ v, dtype="int8")(
        *(jax.ShapeDtypeStruct(s, jnp.float32) for s in ((HEADS, QUERIES, DEPTH), (HEADS, KEYS, DEPTH), (HEADS, KEYS, DEPTH), shape))
    )
    pieces, site = site_of(net)
    (piece,) = site.replace(pieces, block)
    steps = piece.work.steps("attention", Places())
    copies = [step for step in steps if step.name.endswith("besides")]
    assert sum(s.times * float(s.op.m * s.op.a_bits) / 8 for s in copies) == copied(*block)
    assert all((s.op.loc_a, s.op.loc_c) == (EXTERNAL, L3) for s in copies)
    assert external_bytes([s for s in steps if s not in copies]) == walk(*block)
    softmax = [step.op for step in steps if step.op.kind == 2 and step not in copies]
    assert sum(float(op.m) for op in softmax) <= HEADS * QUERIES * KEYS and softmax[0].a_bits >= 8 + 8 * (name == "of all")


def test_a_masked_network_runs_by_row_blocks():
    """What the network moves is the mask, and what attention without one moves."""
    tight = CHIP.replace({"on_chip_memory.l3.tile_capacity_kb": 24})
    shapes = [(HEADS, n, DEPTH) for n in (QUERIES, KEYS, KEYS)] + [(QUERIES, KEYS)]
    for mask in (lambda m: m, jnp.tanh):  # an argument, and a result of other vector work
        net = kpu.trace(lambda q, k, v, m, mask=mask: jax.nn.softmax(q @ k.transpose(0, 2, 1) + mask(m)) @ v, dtype="int8")(
            *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
        )
        report = plan_network(tight, net)
        (found,) = report.plan.attention
        assert found.chosen and found.blocked.external_bytes == walk(*found.block) + MASKS["shared by heads"][1](*found.block)


def masked(q, k, v):
    return jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((QUERIES, KEYS), bool)), q @ k.transpose(0, 2, 1), -1e9)) @ v


@pytest.mark.parametrize(("fn", "heads", "rows"), [(attention, 4, 96), (grouped, 2, 192), (masked, 4, 96)])
def test_attention_is_found_however_it_is_written(fn, heads, rows):
    _, site = site_of(traced(fn))
    assert (site.whole.heads, site.whole.rows, site.whole.keys) == (heads, rows, KEYS)


@pytest.mark.parametrize(
    "fn",
    [
        lambda q, k, v: (w := jax.nn.softmax(q @ k.transpose(0, 2, 1)), w @ v),  # the weights leave
        lambda q, k, v: (q @ k.transpose(0, 2, 1)) @ v,  # nothing between
        lambda q, k, v: jnp.cumsum(q @ k.transpose(0, 2, 1), axis=1) @ v,  # rows that need the rows before
        lambda q, k, v: jax.lax.associative_scan(jnp.maximum, q @ k.transpose(0, 2, 1), axis=1) @ v,
        lambda q, k, v: jnp.roll(q @ k.transpose(0, 2, 1), 1, axis=1) @ v,
        lambda q, k, v: jax.nn.softmax(q @ k.transpose(0, 2, 1)).sum(0) @ v[0],  # another batch
        lambda q, k, v: jax.nn.softmax(q @ k.transpose(0, 2, 1) + (k @ q.transpose(0, 2, 1)).transpose(0, 2, 1)) @ v,  # two arrays
    ],
)
def test_what_is_no_attention_stays(fn):
    assert find_sites(pieces_of(traced(fn))) == []


def test_blocks_fit_and_divide_the_heads():
    _, site = site_of(traced())
    for capacity in (100, 1 << 14, 1 << 20):
        for block in blocks_of(site.whole, capacity, 16):
            assert HEADS % block.heads == 0 and 1 <= block.rows <= QUERIES
            assert site.whole.score_bytes(block) == 2 * block.heads * block.rows * KEYS <= capacity
    assert blocks_of(site.whole, 1 << 20, 16)[-1] == Block(HEADS, QUERIES) and not blocks_of(site.whole, 100, 16)
    assert all(math.gcd(b.rows, 16) == 16 or b.rows < 16 for b in blocks_of(site.whole, 1 << 14, 16))


def test_networks_made_by_hand_have_their_attention():
    net = kpu.networks.transformer(kpu.networks.TransformerSpec(2, 64, 4, 128), new_tokens=32, vector_ops=True)
    sites = find_sites(pieces_of(net))
    assert [s.whole.heads for s in sites] == [4, 4] and np.isclose(sites[0].whole.macs, 2 * 32 * 32 * 64)
