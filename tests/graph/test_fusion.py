"""Epilogues: what joins a product and what does not, and the traffic of a network counted by hand."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks_small import CHIP

import kpu_jax as kpu
from kpu_jax.graph.epilogue import fuse_epilogues
from kpu_jax.graph.pieces import pieces_of
from kpu_jax.graph.plan import plan_network
from kpu_jax.workload import ACTIVATIONS

X, W, V = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((8, 16), (16, 32), (32,)))


def always(*_):
    return True


def fused(fn, *args):
    """The pieces after joining all that may be, and what joined."""
    return fuse_epilogues(pieces_of(kpu.trace(fn)(*args)), always)


@pytest.mark.parametrize(
    ("fn", "activation"),
    [
        (jax.nn.relu, "relu"), (jax.nn.gelu, "gelu"), (lambda x: jax.nn.gelu(x, approximate=False), "gelu"), (jnp.tanh, "tanh"),
        (jax.nn.sigmoid, "sigmoid"), (jax.nn.silu, "silu"), (jax.nn.leaky_relu, "leaky_relu"), (lambda x: x * 0.5, "none"),
        (lambda x: x * jax.nn.sigmoid(1.702 * x), "silu"), (lambda x: 3 * jax.nn.sigmoid(2 * x), "sigmoid"), (jax.nn.relu6, "relu"),
        (lambda x: 0.5 * x * (1 + jnp.tanh(0.8 * (x + 0.044715 * x * x * x))), "gelu"), (lambda x: jnp.maximum(x, 0.1 * x), "leaky_relu"),
        (lambda x: jnp.clip(x, 0, 6), "relu"), (lambda x: x + x, "none"), (lambda x: jnp.where(x > 0, x, 0), "leaky_relu"),
    ],
)  # fmt: skip
def test_activations_and_biases_join_the_product(fn, activation):
    for function, args, bias in ((lambda x, w: fn(x @ w), (X, W), 0), (lambda x, w, v: fn(x @ w + v), (X, W, V), 1)):
        (piece,), done = fused(function, *args)
        assert (piece.op.has_bias, piece.op.activation, piece.op.macs) == (bias, ACTIVATIONS.index(activation), 8 * 16 * 32)
        assert done[0].activation == activation and piece.parts == (0, 1) and piece.leaves


def test_a_folded_normalisation_and_a_change_of_format_join():
    def normalised(x, w, mean, var, scale):
        y = x @ w
        return jax.nn.relu((y - mean) * jax.lax.rsqrt(var + 1e-5) * scale).astype(jnp.bfloat16)

    (piece,), _ = fused(normalised, X, W, V, V, V)
    assert (piece.op.has_bias, piece.op.c_bits, piece.op.activation) == (1, 16, ACTIVATIONS.index("relu"))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x, w, v, r: jax.nn.softmax(x @ w),  # reduces over rows
        lambda x, w, v, r: x @ w + r,  # a residual is as large as the result
        lambda x, w, v, r: jnp.exp(x @ w),  # no activation of the drain
        lambda x, w, v, r: jax.nn.relu(x @ w) * jax.nn.sigmoid(r @ w.T @ w),  # two products
        lambda x, w, v, r: (y := x @ w, jax.nn.relu(y)),  # the caller wants the product, too
        lambda x, w, v, r: (lambda y: (jax.nn.relu(y), jnp.sum(y)))(x @ w),  # two read it
        lambda x, w, v, r: jnp.tanh(jax.nn.relu(x @ w)),  # two activations
        lambda x, w, v, r: (lambda y: y * y)(x @ w),  # a square, and no scale
        lambda x, w, v, r: (x @ w + v) ** 2,
        lambda x, w, v, r: jnp.tanh(x @ w) ** 2,
        lambda x, w, v, r: (lambda y: y * y * jax.nn.sigmoid(y))(x @ w),
        lambda x, w, v, r: jax.lax.erf(x @ w),  # half a GELU
        lambda x, w, v, r: jnp.where(x @ w > 0, 1.0, 0.0),  # a step
        lambda x, w, v, r: jnp.where(v > 0, x @ w, 0.0),  # chosen by something else
        lambda x, w, v, r: jax.nn.relu((x @ w)[:4]),  # a part of it
    ],
)
def test_what_is_no_epilogue_stays(fn):
    pieces, done = fused(fn, X, W, V, jax.ShapeDtypeStruct((8, 32), jnp.float32))
    assert not done and len(pieces) >= 2


def test_by_hand_only_plain_activations_join():
    gemm = kpu.Gemm(8, 32, 16)
    for function, joins in (("relu", True), ("silu", True), ("scale", True), ("softmax", False), ("layernorm", False), ("exp", False)):
        net = kpu.Workload.from_ops([("product", gemm), ("then", kpu.VectorOp(8 * 32, function=function))])
        assert bool(fuse_epilogues(pieces_of(net), always)[1]) == joins, function
    biased = kpu.Workload.from_ops([gemm, kpu.VectorOp(8 * 32, function="add", inputs=1 + 1 / 8)])
    (piece,), _ = fuse_epilogues(pieces_of(biased), always)
    assert piece.op.has_bias
    assert not fuse_epilogues(pieces_of(biased), lambda *_: False)[1]
    twice = kpu.Workload.from_ops([kpu.Gemm(8, 32, 16, bias=True), kpu.VectorOp(8 * 32, function="add", inputs=1 + 1 / 8)])
    assert not fuse_epilogues(pieces_of(twice), always)[1]


def test_the_traffic_of_a_perceptron_by_hand():
    """Everything fits, so that each array moves once: counted from the sizes of the arrays alone."""
    rows, widths = 16, (48, 64, 32, 16)
    shapes = [jax.ShapeDtypeStruct((a, b), jnp.float32) for a, b in zip(widths, widths[1:], strict=False)]
    biases = [jax.ShapeDtypeStruct((n,), jnp.float32) for n in widths[1:]]

    def perceptron(x, weights, biases):
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            x = jax.nn.relu(x @ w + b)
        return x @ weights[-1] + biases[-1]

    net = kpu.trace(perceptron, dtype="int8")(jax.ShapeDtypeStruct((rows, widths[0]), jnp.float32), shapes, biases)
    weights = sum(a * b for a, b in zip(widths, widths[1:], strict=False))
    results = sum(rows * n for n in widths[1:])
    ends = rows * (widths[0] + widths[-1])
    between = rows * sum(widths[1:-1])
    # x and h in, C out, and in and out of the vector engine with the bias:
    none = weights + rows * widths[0] + between + results + 2 * results + sum(widths[1:])
    joined = weights + ends + 2 * between + 4 * sum(widths[1:])  # biases at the accumulator's width
    kept = weights + ends + 4 * sum(widths[1:])
    report = plan_network(CHIP, net)
    assert [t.external_bytes for t in report.savings.values()] == [none, joined, joined, kept]
    assert sum(report.traffic["dram"].values()) == kept == float(report.compulsory)
    assert [f.activation for f in report.plan.fused] == ["relu", "relu", "none"] and all(f.bias for f in report.plan.fused)
    assert [k.until for k in report.plan.kept] == [net.names[2], net.names[4]] and len(report.plan.workload) == 3
    table = report.table()
    assert sum(row["saved_bytes"] for row in table) == none - kept and sum(row["external_bytes"] for row in table) == kept
    np.testing.assert_allclose(sum(row["latency_ms"] for row in table), report.seconds * 1e3, rtol=1e-12)


@pytest.mark.parametrize("scanned", [True, False])
def test_layers_of_stacked_parameters_fuse_as_others_do(scanned):
    """A bias is one layer's part of the stack, and so are its bytes."""
    layers, rows, width = 5, 8, 16

    def network(x, weights, biases):
        if scanned:
            return jax.lax.scan(lambda h, p: (jax.nn.relu(h @ p[0] + p[1]), None), x, (weights, biases))[0]
        for i in range(layers):
            x = jax.nn.relu(x @ weights[i] + biases[i])
        return x

    shapes = ((rows, width), (layers, width, width), (layers, width))
    net = kpu.trace(network, dtype="int8")(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    one = [t for origin in net.origins[:2] for t in origin.reads]
    read = [(math.prod(t.shape), t.bytes) for t in one if t.name]
    assert read == [(n, n) for n in (rows * width, width**2, width)]
    pieces, done = fuse_epilogues(pieces_of(net), always)
    assert [f.activation for f in done] == ["relu"] * len(pieces) and all(f.bias for f in done)
    assert sum(p.repeats for p in pieces) == layers
