"""Operators that work on each element."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.run import Run, known, operator


def library(*values: Any) -> Any:
    """NumPy for known values, else JAX."""
    return np if known(*values) else jnp


def _same(name: str) -> Callable[..., Any]:
    def apply(run: Run, node: Node, *inputs: Any) -> Any:
        return getattr(library(*inputs), name)(*inputs)

    return apply


for _onnx, _name in {
    "Add": "add", "Sub": "subtract", "Mul": "multiply", "Abs": "abs", "Neg": "negative", "Ceil": "ceil", "Floor": "floor",
    "Round": "rint", "Sign": "sign", "Sqrt": "sqrt", "Exp": "exp", "Log": "log", "Sin": "sin", "Cos": "cos", "Tan": "tan",
    "Asin": "arcsin", "Acos": "arccos", "Atan": "arctan", "Sinh": "sinh", "Cosh": "cosh", "Tanh": "tanh", "Asinh": "arcsinh",
    "Acosh": "arccosh", "Atanh": "arctanh", "IsNaN": "isnan", "Not": "logical_not", "And": "logical_and", "Or": "logical_or",
    "Xor": "logical_xor", "Equal": "equal", "Greater": "greater", "GreaterOrEqual": "greater_equal", "Less": "less",
    "LessOrEqual": "less_equal", "Where": "where", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor", "BitwiseNot": "bitwise_not",
}.items():  # fmt: skip
    operator(_onnx)(_same(_name))


def _activation(fn: Callable[..., Any], **attributes: float) -> Callable[..., Any]:
    """An operator of one input and numbers for attributes."""

    def apply(run: Run, node: Node, x: Any) -> Any:
        return fn(jnp.asarray(x), **{name: node.get(name, default) for name, default in attributes.items()}).astype(x.dtype)

    return apply


for _onnx, _fn in {
    "Sigmoid": _activation(jax.nn.sigmoid),
    "Relu": _activation(lambda x: jnp.maximum(x, 0)),
    "LeakyRelu": _activation(lambda x, alpha: jnp.where(x >= 0, x, alpha * x), alpha=0.01),
    "Elu": _activation(lambda x, alpha: jnp.where(x >= 0, x, alpha * jnp.expm1(x)), alpha=1.0),
    "Celu": _activation(lambda x, alpha: jnp.maximum(x, 0) + jnp.minimum(0, alpha * jnp.expm1(x / alpha)), alpha=1.0),
    "Selu": _activation(
        lambda x, alpha, gamma: gamma * jnp.where(x > 0, x, alpha * jnp.expm1(x)),
        alpha=1.67326319217681884765625,
        gamma=1.05070102214813232421875,
    ),
    "ThresholdedRelu": _activation(lambda x, alpha: jnp.where(x > alpha, x, 0), alpha=1.0),
    "HardSigmoid": _activation(lambda x, alpha, beta: jnp.clip(alpha * x + beta, 0, 1), alpha=0.2, beta=0.5),
    "HardSwish": _activation(lambda x: x * jnp.clip(x / 6 + 0.5, 0, 1)),
    "Softplus": _activation(jax.nn.softplus),
    "Softsign": _activation(lambda x: x / (1 + jnp.abs(x))),
    "Mish": _activation(lambda x: x * jnp.tanh(jax.nn.softplus(x))),
    "Swish": _activation(lambda x, alpha: x * jax.nn.sigmoid(alpha * x), alpha=1.0),
    "Erf": _activation(erf),
    "Reciprocal": _activation(lambda x: 1 / x),
    "Shrink": _activation(
        lambda x, bias, lambd: jnp.where(x < -lambd, x + bias, jnp.where(x > lambd, x - bias, 0)), bias=0.0, lambd=0.5
    ),
    "com.microsoft::QuickGelu": _activation(lambda x, alpha: x * jax.nn.sigmoid(alpha * x), alpha=1.702),
    "com.microsoft::Gelu": _activation(lambda x: jax.nn.gelu(x, approximate=False)),
}.items():  # fmt: skip
    operator(_onnx)(_fn)


@operator("Gelu")
def _gelu(run: Run, node: Node, x: Any) -> Any:
    return jax.nn.gelu(x, approximate=node.get("approximate", "none") == "tanh")


@operator("com.microsoft::BiasGelu", "com.microsoft::FastGelu")
def _bias_gelu(run: Run, node: Node, x: Any, bias: Any = None) -> Any:
    return jax.nn.gelu(x if bias is None else x + bias, approximate=node.operator.endswith("FastGelu"))


@operator("PRelu")
def _prelu(run: Run, node: Node, x: Any, slope: Any) -> Any:
    return jnp.where(x < 0, slope * x, x)


@operator("Div")
def _div(run: Run, node: Node, a: Any, b: Any) -> Any:
    if np.dtype(a.dtype).kind not in "iu":
        return library(a, b).divide(a, b)
    if known(a, b):
        return (np.sign(a) * np.sign(b) * (np.abs(a) // np.maximum(np.abs(b), 1))).astype(a.dtype)  # towards zero
    return jax.lax.div(*jnp.broadcast_arrays(a, b))


@operator("Mod")
def _mod(run: Run, node: Node, a: Any, b: Any) -> Any:
    return library(a, b).fmod(a, b) if node.get("fmod", 0) else library(a, b).mod(a, b)


@operator("Pow")
def _pow(run: Run, node: Node, a: Any, b: Any) -> Any:
    if known(b) and np.size(b) == 1 and not known(a) and float(np.ravel(b)[0]).is_integer():
        return jnp.asarray(a) ** int(np.ravel(b)[0])
    return library(a, b).power(a, b).astype(a.dtype)


@operator("BitShift")
def _shift(run: Run, node: Node, a: Any, b: Any) -> Any:
    xp = library(a, b)
    return xp.left_shift(a, b) if node.get("direction") == "LEFT" else xp.right_shift(a, b)


@operator("Max", "Min", "Sum", "Mean")
def _variadic(run: Run, node: Node, *inputs: Any) -> Any:
    xp = library(*inputs)
    fold = {"Max": xp.maximum, "Min": xp.minimum}.get(node.operator, xp.add)
    total = functools.reduce(fold, inputs)
    return total / np.asarray(len(inputs), total.dtype) if node.operator == "Mean" else total


@operator("Clip")
def _clip(run: Run, node: Node, x: Any, low: Any = None, high: Any = None) -> Any:
    low, high = (node.get(name) if given is None else given for name, given in (("min", low), ("max", high)))
    xp = library(x, low, high)
    x = x if low is None else xp.maximum(x, np.asarray(low, x.dtype) if known(low) else low)
    return x if high is None else xp.minimum(x, np.asarray(high, x.dtype) if known(high) else high)


@operator("Identity", "Dropout", "com.microsoft::BiasDropout")
def _identity(run: Run, node: Node, x: Any, *_: Any) -> Any:
    if len(node.outputs) > 1:
        return x, np.ones(np.shape(x), bool)
    return x


@operator("IsInf")
def _is_inf(run: Run, node: Node, x: Any) -> Any:
    xp = library(x)
    up, down = node.get("detect_positive", 1), node.get("detect_negative", 1)
    return xp.isinf(x) & ((x > 0) if not down else (x < 0) if not up else True)


def converted(x: Any, dtype: Any, *, saturate: bool = True) -> Any:
    """`x` in another type; eight-bit floats saturate where they would overflow."""
    if x.dtype == dtype:
        return x
    y: Any = np.asarray(x) if known(x) else jnp.asarray(x)
    if saturate and np.dtype(dtype).name.startswith("float8") and not np.dtype(dtype).name.endswith("e8m0fnu"):
        most = float(jnp.finfo(dtype).max)
        y = library(y).clip(y, -most, most)
    return y.astype(dtype)


@operator("Cast")
def _cast(run: Run, node: Node, x: Any) -> Any:
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(node.get("to"))
    if dtype.kind == "O":
        raise NotImplementedError("text")
    return converted(x, dtype, saturate=bool(node.get("saturate", 1)))


@operator("CastLike")
def _cast_like(run: Run, node: Node, x: Any, like: Any) -> Any:
    return converted(x, like.dtype, saturate=bool(node.get("saturate", 1)))


@operator("BitCast")
def _bit_cast(run: Run, node: Node, x: Any) -> Any:
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(node.get("to"))
    if known(x):
        return np.ascontiguousarray(x).view(dtype).reshape(np.shape(x))
    return jax.lax.bitcast_convert_type(x.astype(np.uint8) if x.dtype == bool else x, dtype)
