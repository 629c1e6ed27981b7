"""Reductions, normalisations and what sorts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.elementwise import library
from kpu_jax.frontends.onnx.run import Run, known, operator

_REDUCE = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")


@operator(*(f"Reduce{name}" for name in _REDUCE))
def _reduce(run: Run, node: Node, x: Any, axes: Any = None) -> Any:
    given = node.get("axes") if axes is None else [int(a) for a in np.ravel(axes)]
    if given is None or not len(given):
        if node.get("noop_with_empty_axes", 0):
            return x
        given = list(range(np.ndim(x)))
    keep, axis = bool(node.get("keepdims", 1)), tuple(a % max(np.ndim(x), 1) for a in given)
    xp, name = library(x), node.operator.removeprefix("Reduce")
    if name in ("Max", "Min", "Sum", "Prod", "Mean"):
        out = getattr(xp, name.lower())(x, axis=axis, keepdims=keep)
    elif name == "L1":
        out = xp.sum(xp.abs(x), axis=axis, keepdims=keep)
    elif name in ("L2", "SumSquare"):
        out = xp.sum(x * x, axis=axis, keepdims=keep)
        out = xp.sqrt(out) if name == "L2" else out
    elif name == "LogSum":
        out = xp.log(xp.sum(x, axis=axis, keepdims=keep))
    else:
        out = jax.nn.logsumexp(x, axis=axis, keepdims=keep)
    return out.astype(x.dtype)


@operator("ArgMax", "ArgMin")
def _arg(run: Run, node: Node, x: Any) -> Any:
    axis, find = node.get("axis", 0), "argmax" if node.operator == "ArgMax" else "argmin"
    if node.get("select_last_index", 0):
        flipped = library(x).flip(x, axis)
        return (np.shape(x)[axis] - 1 - getattr(library(x), find)(flipped, axis=axis, keepdims=bool(node.get("keepdims", 1)))).astype(
            np.int64
        )
    return getattr(library(x), find)(x, axis=axis, keepdims=bool(node.get("keepdims", 1))).astype(np.int64)


@operator("Softmax", "LogSoftmax")
def _softmax(run: Run, node: Node, x: Any) -> Any:
    fn = jax.nn.softmax if node.operator == "Softmax" else jax.nn.log_softmax
    if run.opset >= 13:
        return fn(x, axis=node.get("axis", -1))
    axis = node.get("axis", 1) % max(np.ndim(x), 1)  # the tensor as a matrix, cut at the axis
    if axis == np.ndim(x) - 1:
        return fn(x, axis=-1)
    return fn(x.reshape(*x.shape[:axis], -1), axis=-1).reshape(x.shape)


@operator("Hardmax")
def _hardmax(run: Run, node: Node, x: Any) -> Any:
    axis = node.get("axis", -1 if run.opset >= 13 else 1)
    return jax.nn.one_hot(jnp.argmax(x, axis), x.shape[axis], axis=axis, dtype=x.dtype)


def _by_channel(x: Any, value: Any) -> Any:
    """[channel] laid along axis 1 of `x`."""
    return library(value).reshape(value, (-1,) + (1,) * (np.ndim(x) - 2))


@operator("BatchNormalization")
def _batch_norm(run: Run, node: Node, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    if node.get("training_mode", 0):
        raise NotImplementedError("training_mode = 1")
    epsilon = np.asarray(node.get("epsilon", 1e-5), np.float32)
    factor = scale / library(var).sqrt(var + epsilon)  # of weights: one product and one sum per element remain
    return (x * _by_channel(x, factor) + _by_channel(x, bias - mean * factor)).astype(x.dtype)


def _moments(x: Any, axes: tuple[int, ...], epsilon: float) -> tuple[Any, Any, Any]:
    """(mean, 1 / deviation, standardised)."""
    mean = jnp.mean(x, axes, keepdims=True)
    centred = x - mean
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axes, keepdims=True) + np.asarray(epsilon, x.dtype))
    return mean, inverse, centred * inverse


def _standardised(x: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    return _moments(x, axes, epsilon)[2]


@operator("InstanceNormalization")
def _instance_norm(run: Run, node: Node, x: Any, scale: Any, bias: Any) -> Any:
    y = _standardised(x, tuple(range(2, x.ndim)), node.get("epsilon", 1e-5))
    return y * _by_channel(x, scale) + _by_channel(x, bias)


@operator("GroupNormalization")
def _group_norm(run: Run, node: Node, x: Any, scale: Any, bias: Any) -> Any:
    groups = node.get("num_groups")
    y = _standardised(x.reshape(x.shape[0], groups, -1), (2,), node.get("epsilon", 1e-5)).reshape(x.shape)
    if scale.shape[0] != x.shape[1]:
        scale, bias = (library(v).repeat(v, x.shape[1] // groups) for v in (scale, bias))
    return y * _by_channel(x, scale) + _by_channel(x, bias)


@operator("LayerNormalization")
def _layer_norm(run: Run, node: Node, x: Any, scale: Any, bias: Any = None) -> Any:
    axis = node.get("axis", -1) % x.ndim
    mean, inverse, y = _moments(x, tuple(range(axis, x.ndim)), node.get("epsilon", 1e-5))
    y = y * scale if bias is None else y * scale + bias
    return y, mean, inverse


@operator("RMSNormalization", "SimplifiedLayerNormalization")
def _rms_norm(run: Run, node: Node, x: Any, scale: Any) -> Any:
    axes = tuple(range(node.get("axis", -1) % x.ndim, x.ndim))
    return x * jax.lax.rsqrt(jnp.mean(x * x, axes, keepdims=True) + np.asarray(node.get("epsilon", 1e-5), x.dtype)) * scale


@operator("com.microsoft::SkipLayerNormalization", "com.microsoft::SkipSimplifiedLayerNormalization")
def _skip_norm(run: Run, node: Node, x: Any, skip: Any, scale: Any, *rest: Any) -> Any:
    simple = "Simplified" in node.operator
    shift = None if simple or not rest else rest[0]
    bias = rest[0] if simple and rest else rest[1] if len(rest) > 1 else None
    total = x + skip if bias is None else x + skip + bias
    y = _rms_norm(run, node, total, scale) if simple else _layer_norm(run, node, total, scale, shift)[0]
    return (y, None, None, total) if len(node.outputs) > 1 else y


@operator("LpNormalization")
def _lp_norm(run: Run, node: Node, x: Any) -> Any:
    axis = node.get("axis", -1)
    size = jnp.sum(jnp.abs(x), axis, keepdims=True) if node.get("p", 2) == 1 else jnp.sqrt(jnp.sum(x * x, axis, keepdims=True))
    return x / jnp.where(size == 0, 1, size)


@operator("MeanVarianceNormalization")
def _mean_variance(run: Run, node: Node, x: Any) -> Any:
    return _standardised(x, tuple(node.get("axes", [0, 2, 3])), 1e-18)


@operator("LRN")
def _lrn(run: Run, node: Node, x: Any) -> Any:
    size = node.get("size")
    low = (size - 1) // 2
    window = (1, size) + (1,) * (x.ndim - 2)
    pads = [(0, 0), (low, size - 1 - low)] + [(0, 0)] * (x.ndim - 2)
    around = jax.lax.reduce_window(x * x, np.zeros((), x.dtype), jax.lax.add, window, (1,) * x.ndim, pads)
    return x / (node.get("bias", 1.0) + node.get("alpha", 1e-4) / size * around) ** node.get("beta", 0.75)


@operator("CumSum")
def _cumsum(run: Run, node: Node, x: Any, axis: Any) -> Any:
    at, xp = int(np.ravel(axis)[0]), library(x)
    y = xp.flip(x, at) if node.get("reverse", 0) else x
    total = xp.cumsum(y, at, dtype=x.dtype)
    total = total - y if node.get("exclusive", 0) else total
    return xp.flip(total, at) if node.get("reverse", 0) else total


@operator("TopK")
def _top_k(run: Run, node: Node, x: Any, k: Any = None) -> Any:
    if k is not None and not known(k):
        raise run.data(node, "the number of results", k)
    count, axis = int(node.get("k", 0) if k is None else np.ravel(k)[0]), node.get("axis", -1)
    moved = jnp.moveaxis(x, axis, -1)
    values, at = jax.lax.top_k(moved if node.get("largest", 1) else -moved, count)
    values = values if node.get("largest", 1) else -values
    return jnp.moveaxis(values, -1, axis), jnp.moveaxis(at, -1, axis).astype(np.int64)


@operator("NonZero", "Compress", "Unique")
def _data_shaped(run: Run, node: Node, x: Any, chosen: Any = None) -> Any:
    if node.operator == "NonZero" and known(x):
        return np.array(np.nonzero(x), np.int64)
    if node.operator == "Compress" and known(chosen):
        at = np.flatnonzero(chosen)
        return jnp.take(x, at, node.get("axis")) if node.get("axis") is not None else jnp.ravel(x)[at]
    if node.operator == "Unique" and known(x) and node.get("axis") is None and node.get("sorted", 1):
        found = np.unique(x, True, True, True)
        return tuple(v.astype(np.int64) if i else v for i, v in enumerate(found))
    raise NotImplementedError("inputs that are data: its shapes are unknown")


@operator("NonMaxSuppression")
def _suppression(run: Run, node: Node, boxes: Any, scores: Any, most: Any = None, *rest: Any) -> Any:
    """Sorting and choosing, which the host does; as many boxes as can be chosen at most."""
    from kpu_jax.frontends.onnx.host import host_operator

    batch, classes, count = scores.shape
    kept = min(count, int(np.ravel(most)[0])) if known(most) and most is not None else count
    shape = jax.ShapeDtypeStruct((max(1, batch * classes * kept), 3), np.dtype(np.int64))
    return host_operator(node.operator, [boxes, scores], [shape], skip=run.unsupported == "skip")[0]


@operator("ReverseSequence")
def _reverse_sequence(run: Run, node: Node, x: Any, lengths: Any) -> Any:
    time, batch = node.get("time_axis", 0), node.get("batch_axis", 1)
    moved = jnp.moveaxis(jnp.asarray(x), (batch, time), (0, 1))
    at = np.arange(moved.shape[1])
    back = jnp.asarray(lengths)[:, None] - 1 - at
    index = jnp.where(back >= 0, back, at).reshape(*moved.shape[:2], *[1] * (moved.ndim - 2))
    return jnp.moveaxis(jnp.take_along_axis(moved, index, 1), (0, 1), (batch, time))
