"""Integers that stand for numbers: (q - zero point) * scale.

Products of two quantised operands are products of their integers with int32 sums, as the fabric does them; the zero
points are taken out by the sums of rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.elementwise import converted, library
from kpu_jax.frontends.onnx.run import Quantised, Run, known, operator


def takes_quantised(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the operator wants `Quantised` operands as they are."""
    fn.takes_quantised = True  # type: ignore[attr-defined]
    return fn


def _along(value: Any, rank: int, axis: int) -> Any:
    """A scalar, or a value per index of `axis`, for broadcasting against an array of `rank`."""
    if value is None or np.size(value) == 1:
        return value if value is None else library(value).reshape(value, ())
    if np.ndim(value) == rank:
        return value
    return library(value).reshape(value, [-1 if i == axis % rank else 1 for i in range(rank)])


def signed(q: Any, zero: Any) -> tuple[Any, Any]:
    """Unsigned bytes as signed ones, with their zero point: the multipliers are signed."""
    zero = np.zeros((), np.int32) if zero is None else library(zero).asarray(zero).astype(np.int32)
    if q.dtype != np.uint8:
        return q, zero
    if known(q):
        return (np.asarray(q, np.int16) - 128).astype(np.int8), zero - 128
    return jax.lax.bitcast_convert_type(jnp.asarray(q) ^ np.uint8(128), jnp.int8), zero - 128


class Product(NamedTuple):
    """A matrix product or convolution of integers, and what the zero points of either side cost it."""

    multiply: Callable[[Any, Any], Any]  # int32
    sums_of_weights: Callable[[Any, Any], Any]  # per output: the weights that meet data
    sums_of_data: Callable[[Any, Any], Any]  # per output: the data under its window
    terms: Callable[[Any, Any], Any]  # per output: how many
    weight_axis: int  # of the right side, where its scale and zero point may vary
    output_axis: int  # the same in the product


def _matmul(a: Any, b: Any) -> Any:
    return jnp.matmul(a, b, preferred_element_type=jnp.int32)


MATMUL = Product(
    _matmul,
    lambda x, w: library(w).sum(w.astype(np.int32), -2, keepdims=np.ndim(w) > 2, dtype=np.int32),
    lambda x, w: jnp.sum(x.astype(np.int32), -1, keepdims=True, dtype=jnp.int32),
    lambda x, w: np.int32(x.shape[-1]),
    -1,
    -1,
)


def convolution(node: Node) -> Product:
    """A `Conv` node's product; sums over windows leave padding out."""
    from kpu_jax.frontends.onnx.operators.linear import convolve

    groups = node.get("group", 1)

    def multiply(x: Any, w: Any) -> Any:
        return convolve(node, jnp.asarray(x), jnp.asarray(w), preferred_element_type=jnp.int32)

    def over_data(shape: tuple[int, ...], w: Any) -> Any:
        """Sums of w [out, 1, *window] over the pixels that are data, [1, out, *pixels]."""
        single = Node(node.operator, node.name, (), (), {**node.attributes, "group": 1})
        pixels = np.ones((1, 1, *shape[2:]), np.float32)
        return convolve(single, jnp.asarray(pixels), jnp.asarray(w).astype(jnp.float32)).astype(jnp.int32)

    def of_weights(x: Any, w: Any) -> Any:
        summed = library(w).sum(w.astype(np.int32), 1, keepdims=True, dtype=np.int32)
        if not known(w):
            return over_data(x.shape, summed)
        with jax.ensure_compile_time_eval():
            return np.asarray(over_data(x.shape, summed))

    def of_data(x: Any, w: Any) -> Any:
        each = jnp.sum(x.astype(jnp.int32).reshape(x.shape[0], groups, -1, *x.shape[2:]), 2, dtype=jnp.int32)
        window = convolve(node, each, np.ones((groups, 1, *w.shape[2:]), np.int32))
        return jnp.repeat(window, w.shape[0] // groups, 1)

    def terms(x: Any, w: Any) -> Any:
        return of_weights(x, np.ones((1, *w.shape[1:]), np.int8))

    return Product(multiply, of_weights, of_data, terms, 0, 1)


def product_sums(x: Any, x_zero: Any, w: Any, w_zero: Any, product: Product) -> Any:
    """int32 sums of (x - x_zero) (w - w_zero): the product of the integers, less the shares of the zero points."""
    x, x_zero = signed(x, x_zero)
    w, w_zero = signed(w, w_zero)
    acc = product.multiply(x, w)
    shifted = not known(x_zero) or np.any(x_zero)
    if shifted:
        acc = acc - product.sums_of_weights(x, w) * x_zero
    if not known(w_zero) or np.any(w_zero):
        spread = _along(w_zero, acc.ndim, product.output_axis)
        acc = acc - product.sums_of_data(x, w) * spread
        acc = acc + product.terms(x, w) * x_zero * spread if shifted else acc
    return acc


def integer_product(a: Quantised, b: Quantised, product: Product) -> Any:
    """Floats: the product of two quantised operands, `b` with a scale per output at most; None if that is not so."""
    per_channel = np.size(b.scale) > 1
    if np.size(a.scale) > 1 or (per_channel and b.axis % b.q.ndim != product.weight_axis % b.q.ndim):
        return None
    acc = product_sums(a.q, a.zero_point, b.q, b.zero_point, product)
    scale = a.scale.reshape(()) * (_along(b.scale, acc.ndim, product.output_axis) if per_channel else b.scale.reshape(()))
    return acc.astype(b.scale.dtype) * scale


@operator("DequantizeLinear", "com.microsoft::DequantizeLinear")
def _dequantise(run: Run, node: Node, q: Any, scale: Any, zero: Any = None) -> Any:
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    if block:
        spread, zeros = (None if v is None else library(v).repeat(v, block, axis) for v in (scale, zero))
        return (q.astype(scale.dtype) - (0 if zeros is None else zeros.astype(scale.dtype))) * spread

    def value() -> Any:
        wide = q.astype(scale.dtype)
        shift = _along(zero, np.ndim(q), axis) if zero is not None else None
        return (wide if shift is None else wide - shift.astype(scale.dtype)) * _along(scale, np.ndim(q), axis)

    whole = q.dtype in (np.int8, np.uint8) and np.ndim(q) >= 2 and np.ndim(scale) <= 1
    return Quantised(q, scale, zero, axis, value) if whole else value()


def quantise(x: Any, scale: Any, zero: Any, dtype: Any) -> Any:
    """round(x / scale) + zero point, saturated."""
    limits = jnp.iinfo(dtype)
    shift = np.zeros((), np.int32) if zero is None else zero.astype(np.int32)
    xp = library(x, scale, shift)
    return xp.clip(xp.rint(x / scale).astype(np.int32) + shift, limits.min, limits.max).astype(dtype)


@operator("QuantizeLinear", "com.microsoft::QuantizeLinear")
def _quantise(run: Run, node: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    import onnx

    given = node.get("output_dtype", 0)
    plain = onnx.helper.tensor_dtype_to_np_dtype(given) if given else np.dtype(np.uint8)
    dtype = plain if zero is None else np.dtype(zero.dtype)
    axis = node.get("axis", 1)
    if node.get("block_size", 0):
        spread = [None if v is None else library(v).repeat(v, node.get("block_size"), axis) for v in (scale, zero)]
        scale, zero = (None if v is None else v[tuple(slice(n) for n in np.shape(x))] for v in spread)
    if not jnp.issubdtype(dtype, jnp.integer):
        return converted(x / _along(scale, np.ndim(x), axis), dtype)
    return quantise(x, _along(scale, np.ndim(x), axis), _along(zero, np.ndim(x), axis), dtype)


def dynamically_quantised(x: Any) -> tuple[Any, Any, Any]:
    """(bytes, scale, zero point) over the range of `x` and zero."""
    low, high = jnp.minimum(jnp.min(x), 0), jnp.maximum(jnp.max(x), 0)
    scale = (high - low) / np.asarray(255, x.dtype)
    scale = jnp.where(scale == 0, 1, scale)
    zero = jnp.clip(jnp.rint(-low / scale), 0, 255).astype(jnp.uint8)
    return quantise(x, scale, zero, np.dtype(np.uint8)), scale, zero


@operator("DynamicQuantizeLinear")
def _dynamic(run: Run, node: Node, x: Any) -> Any:
    return dynamically_quantised(x)


@operator("MatMulInteger")
def _matmul_integer(run: Run, node: Node, a: Any, b: Any, a_zero: Any = None, b_zero: Any = None) -> Any:
    if a_zero is not None and np.size(a_zero) > 1:
        raise NotImplementedError("a zero point per row")
    return product_sums(a, a_zero, b, b_zero, MATMUL)


@operator("com.microsoft::MatMulIntegerToFloat", "com.microsoft::DynamicQuantizeMatMul")
def _matmul_to_float(run: Run, node: Node, a: Any, b: Any, *rest: Any) -> Any:
    rest = (*rest, *[None] * 6)
    if "Dynamic" in node.operator:
        a, a_scale, a_zero = dynamically_quantised(a)
        b_scale, b_zero, bias = rest[:3]
    else:
        a_scale, b_scale, a_zero, b_zero, bias = rest[:5]
    acc = product_sums(a, a_zero, b, b_zero, MATMUL)
    y = acc.astype(b_scale.dtype) * (a_scale * b_scale)
    return y if bias is None else y + bias


@operator("QLinearMatMul")
def _qlinear_matmul(run: Run, node: Node, a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, s: Any, z: Any) -> Any:
    acc = product_sums(a, a_zero, b, b_zero, MATMUL)
    return quantise(acc.astype(s.dtype) * (a_scale * b_scale), s, z, np.dtype(z.dtype))


@operator("ConvInteger")
def _conv_integer(run: Run, node: Node, x: Any, w: Any, x_zero: Any = None, w_zero: Any = None) -> Any:
    return product_sums(x, x_zero, w, w_zero, convolution(node))


@operator("QLinearConv", "com.microsoft::QLinearConv")
def _qlinear_conv(
    run: Run, node: Node, x: Any, x_scale: Any, x_zero: Any, w: Any, w_scale: Any, w_zero: Any, s: Any, z: Any, bias: Any = None
) -> Any:
    if node.get("channels_last", 0):
        first = Node(node.operator, node.name, (), (), {**node.attributes, "channels_last": 0})
        turned = jnp.moveaxis(jnp.asarray(x), -1, 1)
        return jnp.moveaxis(_qlinear_conv(run, first, turned, x_scale, x_zero, w, w_scale, w_zero, s, z, bias), 1, -1)
    acc = product_sums(x, x_zero, w, w_zero, convolution(node))
    acc = acc if bias is None else acc + _along(bias, acc.ndim, 1)
    return quantise(acc.astype(s.dtype) * (x_scale * _along(w_scale, acc.ndim, 1)), s, z, np.dtype(z.dtype))


@operator("com.microsoft::QGemm")
def _qgemm(
    run: Run, node: Node, a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, c: Any = None, s: Any = None, z: Any = None
) -> Any:
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    acc = product_sums(a, a_zero, b, b_zero, MATMUL)
    acc = acc if c is None else acc + c
    y = acc.astype(a_scale.dtype) * (a_scale * b_scale * np.asarray(node.get("alpha", 1.0), a_scale.dtype))
    return y if s is None else quantise(y, s, z, np.dtype(z.dtype))


@operator("com.microsoft::QLinearAdd", "com.microsoft::QLinearMul")
def _qlinear_binary(
    run: Run, node: Node, a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, s: Any, z: Any = None
) -> Any:
    x, y = (number(q, scale, zero) for q, scale, zero in ((a, a_scale, a_zero), (b, b_scale, b_zero)))
    return quantise(x + y if node.operator.endswith("Add") else x * y, s, z, a.dtype)


@operator("com.microsoft::QLinearSigmoid", "com.microsoft::QLinearLeakyRelu", "com.microsoft::QLinearGlobalAveragePool")
def _qlinear_unary(run: Run, node: Node, q: Any, scale: Any, zero: Any, s: Any, z: Any = None) -> Any:
    x = number(q, scale, zero)
    if node.operator.endswith("Sigmoid"):
        y = jax.nn.sigmoid(x)
    elif node.operator.endswith("LeakyRelu"):
        y = jnp.where(x >= 0, x, x * np.asarray(node.get("alpha", 0.01), x.dtype))
    else:
        y = jnp.mean(x, (1, 2) if node.get("channels_last", 0) else tuple(range(2, x.ndim)), keepdims=True)
    return quantise(y, s, z, q.dtype)


@operator("com.microsoft::QLinearConcat")
def _qlinear_concat(run: Run, node: Node, s: Any, z: Any, *rest: Any) -> Any:
    parts = [number(*rest[i : i + 3]) for i in range(0, len(rest), 3)]
    return quantise(jnp.concatenate(parts, node.get("axis")), s, z, z.dtype)


def number(q: Any, scale: Any, zero: Any) -> Any:
    """(q - zero) * scale."""
    wide = q.astype(scale.dtype)
    return (wide if zero is None else wide - zero.astype(scale.dtype)) * scale


@operator("com.microsoft::QLinearSoftmax")
def _qlinear_softmax(run: Run, node: Node, q: Any, scale: Any, zero: Any, s: Any, z: Any) -> Any:
    axis = node.get("axis", -1) % np.ndim(q)
    x = number(q, scale, zero)
    flat = node.get("opset", run.opset) < 13  # the tensor as a matrix, cut at the axis
    y = jax.nn.softmax(x.reshape(*x.shape[:axis], -1), -1).reshape(x.shape) if flat else jax.nn.softmax(x, axis)
    return quantise(y, s, z, q.dtype)


@operator("com.microsoft::QLinearWhere")
def _qlinear_where(
    run: Run, node: Node, test: Any, a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, s: Any, z: Any
) -> Any:
    return quantise(jnp.where(test, number(a, a_scale, a_zero), number(b, b_scale, b_zero)), s, z, a.dtype)


@operator("com.microsoft::QLinearReduceMean")
def _qlinear_mean(run: Run, node: Node, q: Any, scale: Any, zero: Any, s: Any, z: Any) -> Any:
    axes = tuple(node.get("axes") or range(np.ndim(q)))
    return quantise(jnp.mean(number(q, scale, zero), axes, keepdims=bool(node.get("keepdims", 1))), s, z, q.dtype)
