"""Products and convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.elementwise import library
from kpu_jax.frontends.onnx.operators.quantised import MATMUL, convolution, integer_product, takes_quantised
from kpu_jax.frontends.onnx.run import Quantised, Run, floats, operator


@operator("MatMul")
@takes_quantised
def _matmul(run: Run, node: Node, a: Any, b: Any) -> Any:
    if isinstance(a, Quantised) and isinstance(b, Quantised):
        y = integer_product(a, b, MATMUL)
        if y is not None:
            return y
    a, b = floats(a), floats(b)
    return library(a, b).matmul(a, b)


@operator("com.microsoft::FusedMatMul", "com.microsoft::TransposeMatMul")
def _fused_matmul(run: Run, node: Node, a: Any, b: Any) -> Any:
    a = jnp.swapaxes(a, -1, -2) if node.get("transA", 0) else a
    b = jnp.swapaxes(b, -1, -2) if node.get("transB", 0) else b
    a = jnp.moveaxis(a, 0, -2) if node.get("transBatchA", 0) else a
    b = jnp.moveaxis(b, 0, -2) if node.get("transBatchB", 0) else b
    return scaled(jnp.matmul(a, b), node.get("alpha", 1.0))


def scaled(x: Any, alpha: float) -> Any:
    """`x` times a number of its own dtype; itself for 1."""
    return x if alpha == 1 else x * np.asarray(alpha, x.dtype)


@operator("Gemm")
@takes_quantised
def _gemm(run: Run, node: Node, a: Any, b: Any, c: Any = None) -> Any:
    turn_a, turn_b = node.get("transA", 0), node.get("transB", 0)
    product = None
    if isinstance(a, Quantised) and isinstance(b, Quantised) and not turn_a:
        right = Quantised(b.q.T, b.scale, b.zero_point, 1 - b.axis % 2, b.value) if turn_b else b
        product = integer_product(a, right, MATMUL)
    if product is None:
        a, b = floats(a), floats(b)
        product = jnp.matmul(a.T if turn_a else a, b.T if turn_b else b)
    product = scaled(product, node.get("alpha", 1.0))
    return product if c is None else product + scaled(floats(c), node.get("beta", 1.0))


@operator("com.microsoft::FusedGemm", "com.microsoft::GemmFastGelu")
def _fused_gemm(run: Run, node: Node, a: Any, b: Any, c: Any = None) -> Any:
    from kpu_jax.frontends.onnx.operators.recurrent import ACTIVATIONS

    y = _gemm(run, node, a, b, c) if node.operator.endswith("FusedGemm") else jnp.matmul(a, b) + (0 if c is None else c)
    if node.operator.endswith("FastGelu"):
        return jax.nn.gelu(y)
    kind = node.get("activation", "")
    numbers = [node.get(f"activation_{name}") for name in ("alpha", "beta", "gamma")]
    return ACTIVATIONS[kind](y, *(v for v in numbers if v is not None)) if kind else y


@operator("com.microsoft::CDist")
def _distances(run: Run, node: Node, a: Any, b: Any) -> Any:
    """Distances of the rows of `a` and `b`, by the product of both."""
    squares = jnp.sum(a * a, -1)[:, None] + jnp.sum(b * b, -1)[None] - 2 * jnp.matmul(a, b.T)
    squares = jnp.maximum(squares, 0)
    return squares if node.get("metric", "sqeuclidean") == "sqeuclidean" else jnp.sqrt(squares)


@operator("com.microsoft::Inverse")
def _inverse(run: Run, node: Node, x: Any) -> Any:
    return jnp.linalg.inv(x)


@operator("Einsum")
def _einsum(run: Run, node: Node, *inputs: Any) -> Any:
    return jnp.einsum(node.get("equation"), *inputs)


# -- windows


def padding(
    node: Node, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """(before, after) [pixels] per axis from `pads` or `auto_pad`."""
    way = node.get("auto_pad", "NOTSET")
    if way in ("NOTSET", ""):
        pads = node.get("pads", [0] * 2 * len(size))
        return list(zip(pads[: len(size)], pads[len(size) :], strict=True))
    if way == "VALID":
        return [(0, 0)] * len(size)
    total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)]
    return [(t // 2, t - t // 2) if way == "SAME_UPPER" else (t - t // 2, t // 2) for t in total]


def dimension_numbers(rank: int) -> tuple[str, str, str]:
    """JAX's letters for ONNX's layouts."""
    space = "DHW"[-rank:] if rank <= 3 else "ABCDEFG"[:rank]
    return f"NC{space}", f"OI{space}", f"NC{space}"


def convolve(node: Node, x: Any, w: Any, **options: Any) -> Any:
    """ONNX's Conv without its bias."""
    rank = x.ndim - 2
    stride, dilation = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    return jax.lax.conv_general_dilated(
        x, w, stride, padding(node, x.shape[2:], w.shape[2:], stride, dilation), rhs_dilation=dilation,
        dimension_numbers=dimension_numbers(rank), feature_group_count=node.get("group", 1), **options,
    )  # fmt: skip


def with_bias(y: Any, bias: Any) -> Any:
    """`y` plus a value per channel, axis 1."""
    return y if bias is None else y + bias.reshape(-1, *[1] * (y.ndim - 2))


@operator("Conv")
@takes_quantised
def _conv(run: Run, node: Node, x: Any, w: Any, bias: Any = None) -> Any:
    if isinstance(x, Quantised) and isinstance(w, Quantised):
        y = integer_product(x, w, convolution(node))
        if y is not None:
            return with_bias(y, floats(bias))
    return with_bias(convolve(node, jnp.asarray(floats(x)), jnp.asarray(floats(w))), floats(bias))


@operator("com.microsoft::FusedConv")
def _fused_conv(run: Run, node: Node, x: Any, w: Any, bias: Any = None, addend: Any = None) -> Any:
    from kpu_jax.frontends.onnx.operators.recurrent import ACTIVATIONS

    y = with_bias(convolve(node, x, w), bias)
    y = y if addend is None else y + addend
    kind = node.get("activation", "")
    return ACTIVATIONS[kind](y, *node.get("activation_params", ())) if kind else y


@operator("com.microsoft::NhwcConv")
def _nhwc_conv(run: Run, node: Node, x: Any, w: Any, bias: Any = None) -> Any:
    """Channels last on both sides."""
    turned = (jnp.moveaxis(jnp.asarray(v), -1, 1) for v in (x, w))
    return jnp.moveaxis(with_bias(convolve(node, *turned), bias), 1, -1)


@operator("ConvTranspose")
def _conv_transpose(run: Run, node: Node, x: Any, w: Any, bias: Any = None) -> Any:
    rank, groups = x.ndim - 2, node.get("group", 1)
    stride, dilation = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    more = node.get("output_padding", [0] * rank)
    spans = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilation, strict=True)]
    full = [s * (n - 1) + m + span for s, n, m, span in zip(stride, x.shape[2:], more, spans, strict=True)]
    way = node.get("auto_pad", "NOTSET")
    wanted = node.get("output_shape") or ([n * s for n, s in zip(x.shape[2:], stride, strict=True)] if way.startswith("SAME") else None)
    if wanted is not None:
        lost = [max(f - n, 0) for f, n in zip(full, wanted, strict=True)]
        pads = [(t - t // 2, t // 2) if way == "SAME_LOWER" else (t // 2, t - t // 2) for t in lost]
        more = [m + max(n - f, 0) for m, n, f in zip(more, wanted, full, strict=True)]
    else:
        pads = padding(node, x.shape[2:], w.shape[2:], stride, dilation)
    sides = [(span - 1 - a, span - 1 - b + m) for span, (a, b), m in zip(spans, pads, more, strict=True)]
    per_group = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    turned = library(w).flip(library(w).swapaxes(per_group, 1, 2), tuple(range(3, 3 + rank)))
    kernel = turned.reshape(-1, w.shape[0] // groups, *w.shape[2:])
    y = jax.lax.conv_general_dilated(
        x, kernel, [1] * rank, sides, lhs_dilation=stride, rhs_dilation=dilation,
        dimension_numbers=dimension_numbers(rank), feature_group_count=groups,
    )  # fmt: skip
    return with_bias(y, bias)


@operator("Det")
def _determinant(run: Run, node: Node, x: Any) -> Any:
    return jnp.linalg.det(x)
