"""Reductions, softmax, running sums and what sorts."""

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


@operator("com.microsoft::BiasSoftmax")
def _bias_softmax(run: Run, node: Node, x: Any, bias: Any) -> Any:
    axis = node.get("axis", 1) % np.ndim(x)
    outer = not node.get("is_inner_broadcast", 1)  # the bias belongs to the last of the outer axes, or to all inner ones
    spread = bias if not outer or np.ndim(bias) == np.ndim(x) else jnp.expand_dims(bias, tuple(range(1, 1 + np.ndim(x) - np.ndim(bias))))
    y = x + spread
    return jax.nn.softmax(y.reshape(*y.shape[:axis], -1), -1).reshape(y.shape)


@operator("Hardmax")
def _hardmax(run: Run, node: Node, x: Any) -> Any:
    axis = node.get("axis", -1 if run.opset >= 13 else 1)
    return jax.nn.one_hot(jnp.argmax(x, axis), x.shape[axis], axis=axis, dtype=x.dtype)


@operator("CumSum", "CumProd")
def _running(run: Run, node: Node, x: Any, axis: Any) -> Any:
    if not known(axis):
        raise run.data(node, "the axis", axis)
    at, xp = int(np.ravel(axis)[0]), library(x)
    y = xp.flip(x, at) if node.get("reverse", 0) else x
    if node.get("exclusive", 0):  # one place on, behind a zero (a one)
        first = xp.full_like(xp.take(y, np.arange(1), at), node.operator == "CumProd")
        y = xp.concatenate([first, xp.take(y, np.arange(y.shape[at] - 1), at)], at)
    total = (xp.cumsum if node.operator == "CumSum" else xp.cumprod)(y, at, dtype=x.dtype)
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


@operator("NonZero", "Compress", "Unique", "com.microsoft::Unique")
def _data_shaped(run: Run, node: Node, x: Any, chosen: Any = None) -> Any:
    """Known inputs give known shapes; of others the host has the work, whose result is as large as it can be."""
    if node.operator == "NonZero" and known(x):
        return np.array(np.nonzero(x), np.int64)
    if node.operator == "Compress" and known(chosen):
        at = np.flatnonzero(chosen)
        return jnp.take(x, at, node.get("axis")) if node.get("axis") is not None else jnp.ravel(x)[at]
    if node.operator.endswith("Unique") and known(x):
        return _unique(node, x)
    if run.unsupported == "error":
        raise NotImplementedError("inputs that are data: its shapes are unknown")
    size, wide = max(1, int(np.prod(np.shape(x)))), np.dtype(np.int64)
    if node.operator == "NonZero":
        return run.on_host(node, [x], [jax.ShapeDtypeStruct((np.ndim(x), size), wide)])
    flat = node.get("axis") is None
    outputs = [jax.ShapeDtypeStruct((size,) if flat else np.shape(x), x.dtype)]
    outputs += [jax.ShapeDtypeStruct((size if flat else np.shape(x)[node.get("axis")],), wide) for name in node.outputs[1:] if name]
    return run.on_host(node, [x, chosen], outputs)


def _unique(node: Node, x: np.ndarray) -> tuple[Any, ...]:
    """(values, where each is first, which each was, how many)."""
    axis = node.get("axis")
    found, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
    inverse = np.ravel(inverse)
    if not node.get("sorted", 1) or node.operator.startswith("com."):
        order = np.argsort(first, kind="stable")
        found, first, counts = np.take(found, order, axis or 0), first[order], counts[order]
        inverse = np.argsort(order, kind="stable")[inverse]
    first, inverse, counts = (v.astype(np.int64) for v in (first, inverse, counts))
    return (found, inverse, counts) if node.operator.startswith("com.") else (found, first, inverse, counts)


@operator("NonMaxSuppression")
def _suppression(run: Run, node: Node, boxes: Any, scores: Any, most: Any = None, *rest: Any) -> Any:
    """Sorting and choosing, which the host does; as many boxes as can be chosen at most."""
    batch, classes, count = scores.shape
    kept = min(count, int(np.ravel(most)[0])) if known(most) and most is not None else count
    return run.on_host(node, [boxes, scores], [jax.ShapeDtypeStruct((max(1, batch * classes * kept), 3), np.dtype(np.int64))])


@operator("ReverseSequence")
def _reverse_sequence(run: Run, node: Node, x: Any, lengths: Any) -> Any:
    time, batch = node.get("time_axis", 0), node.get("batch_axis", 1)
    moved = jnp.moveaxis(jnp.asarray(x), (batch, time), (0, 1))
    at = np.arange(moved.shape[1])
    back = jnp.asarray(lengths)[:, None] - 1 - at
    index = jnp.where(back >= 0, back, at).reshape(*moved.shape[:2], *[1] * (moved.ndim - 2))
    return jnp.moveaxis(jnp.take_along_axis(moved, index, 1), (0, 1), (batch, time))
