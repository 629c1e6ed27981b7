"""Operators that move, cut, join and make arrays."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.elementwise import library
from kpu_jax.frontends.onnx.run import Run, known, operator

MOST_ELEMENTS = 2**28  # of an array that is computed while the file is read: no weight and no shape has more


def whole(run: Run, node: Node, value: Any, what: str) -> list[int]:
    """A known array as a list of integers; else the error that the shape is data."""
    if not known(value):
        raise run.data(node, what, value)
    return [int(v) for v in np.ravel(value)]


def _made(*shape: int) -> tuple[int, ...]:
    """The shape of an array that is to be made while the file is read; a few bytes of a file must not fill the memory."""
    if math.prod(shape) > MOST_ELEMENTS:
        raise ValueError(f"an array of shape {shape} has more than {MOST_ELEMENTS} elements")
    return shape


def _counted(start: Any, limit: Any, delta: Any) -> tuple[Any, Any, Any]:
    """The arguments of `np.arange`, if it makes an array of a size that can be."""
    if not delta:
        raise ValueError("a step of 0")
    _made(max(0, math.ceil((float(limit) - float(start)) / float(delta))))
    return start, limit, delta


@operator("Constant")
def _constant(run: Run, node: Node) -> Any:
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64), ("value_ints", np.int64)):
        if node.get(name) is not None:
            return np.asarray(node.get(name), dtype)
    if node.get("value") is None and node.get("sparse_value") is None:
        raise NotImplementedError("text")
    return node.get("value") if node.get("value") is not None else node.get("sparse_value")


@operator("Shape")
def _shape(run: Run, node: Node, x: Any) -> Any:
    return np.array(np.shape(x)[node.get("start", 0) : node.get("end", None)], np.int64)


@operator("Size")
def _size(run: Run, node: Node, x: Any) -> Any:
    return np.int64(math.prod(np.shape(x)))


@operator("Reshape")
def _reshape(run: Run, node: Node, x: Any, shape: Any = None) -> Any:
    sizes = node.get("shape") if shape is None else whole(run, node, shape, "the shape")
    if not node.get("allowzero", 0):
        sizes = [np.shape(x)[i] if n == 0 else n for i, n in enumerate(sizes)]
    return library(x).reshape(x, sizes)


@operator("Flatten")
def _flatten(run: Run, node: Node, x: Any) -> Any:
    axis = node.get("axis", 1)
    axis = axis + np.ndim(x) if axis < 0 else axis
    return library(x).reshape(x, (math.prod(np.shape(x)[:axis]), -1))


@operator("Transpose")
def _transpose(run: Run, node: Node, x: Any) -> Any:
    return library(x).transpose(x, node.get("perm"))


@operator("Squeeze")
def _squeeze(run: Run, node: Node, x: Any, axes: Any = None) -> Any:
    given = node.get("axes") if axes is None else whole(run, node, axes, "the axes")
    return library(x).squeeze(x, None if given is None else tuple(given))


@operator("Unsqueeze", "com.microsoft::ExpandDims")
def _unsqueeze(run: Run, node: Node, x: Any, axes: Any = None) -> Any:
    given = node.get("axes") if axes is None else whole(run, node, axes, "the axes")
    return library(x).expand_dims(x, tuple(given))


@operator("Concat")
def _concat(run: Run, node: Node, *inputs: Any) -> Any:
    return library(*inputs).concatenate(inputs, node.get("axis", 0))


@operator("Split")
def _split(run: Run, node: Node, x: Any, split: Any = None) -> Any:
    axis = node.get("axis", 0)
    sizes = node.get("split") if split is None else whole(run, node, split, "the split")
    if sizes is None:
        count, size = node.get("num_outputs", len(node.outputs)), np.shape(x)[axis]
        part = -(-size // count)
        sizes = [min(part, size - i * part) for i in range(count)]
    return tuple(library(x).split(x, np.cumsum(sizes)[:-1].tolist(), axis))


@operator("Slice")
def _slice(run: Run, node: Node, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
    if starts is None:
        first, last, at, by = node.get("starts"), node.get("ends"), node.get("axes"), None
    else:
        first, last = whole(run, node, starts, "the slice's start"), whole(run, node, ends, "the slice's end")
        at, by = (None if v is None else whole(run, node, v, "the slice") for v in (axes, steps))
    at = list(range(len(first))) if at is None else at
    cut = [slice(None)] * np.ndim(x)
    for axis, a, b, step in zip(at, first, last, by or [1] * len(at), strict=True):
        size = np.shape(x)[axis]
        if step > 0:
            a, b = (min(max(v + size if v < 0 else v, 0), size) for v in (a, b))
            cut[axis] = slice(a, b, step)
        else:
            a = min(max(a + size if a < 0 else a, 0), size - 1)
            b = b + size if -size <= b < 0 else b
            cut[axis] = slice(a, b if b >= 0 else None, step)
    return x[tuple(cut)]


@operator("Gather")
def _gather(run: Run, node: Node, x: Any, at: Any) -> Any:
    axis = node.get("axis", 0)
    if known(at):
        at = np.where(np.asarray(at) < 0, np.asarray(at) + np.shape(x)[axis], at)
        if np.ndim(at) == 0 and not known(x):
            return jax.lax.index_in_dim(x, int(at), axis % np.ndim(x), keepdims=False)
        return library(x).take(x, at, axis)
    return jnp.take(x, at, axis, mode="clip")


@operator("GatherElements")
def _gather_elements(run: Run, node: Node, x: Any, at: Any) -> Any:
    return library(x, at).take_along_axis(x, at, node.get("axis", 0))


@operator("GatherND", "com.microsoft::GatherND")
def _gather_nd(run: Run, node: Node, x: Any, at: Any) -> Any:
    def pick(x: Any, at: Any) -> Any:
        return x[tuple(at[..., i] for i in range(at.shape[-1]))]

    for _ in range(node.get("batch_dims", 0)):
        pick = jax.vmap(pick)
    return pick(x, at)


@operator("ScatterND")
def _scatter_nd(run: Run, node: Node, x: Any, at: Any, updates: Any) -> Any:
    place = jnp.asarray(x).at[tuple(at[..., i] for i in range(at.shape[-1]))]
    ways: dict[str, Any] = {"add": place.add, "mul": place.multiply, "max": place.max, "min": place.min}
    return ways.get(node.get("reduction", "none"), place.set)(updates)


@operator("ScatterElements", "Scatter")
def _scatter_elements(run: Run, node: Node, x: Any, at: Any, updates: Any) -> Any:
    axis = node.get("axis", 0) % np.ndim(x)
    places = list(jnp.meshgrid(*(jnp.arange(n) for n in np.shape(at)), indexing="ij", sparse=True))
    places[axis] = at
    place = jnp.asarray(x).at[tuple(places)]
    ways: dict[str, Any] = {"add": place.add, "mul": place.multiply, "max": place.max, "min": place.min}
    return ways.get(node.get("reduction", "none"), place.set)(updates)


@operator("Expand")
def _expand(run: Run, node: Node, x: Any, shape: Any) -> Any:
    sizes = np.broadcast_shapes(np.shape(x), tuple(whole(run, node, shape, "the shape")))
    return library(x).broadcast_to(x, sizes)


@operator("Tile")
def _tile(run: Run, node: Node, x: Any, repeats: Any) -> Any:
    counts = whole(run, node, repeats, "the number of repeats")
    _made(*np.shape(x), *counts)
    return library(x).tile(x, counts)


@operator("Pad", "com.microsoft::Pad")
def _pad(run: Run, node: Node, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    sizes = node.get("pads", node.get("paddings")) if pads is None else whole(run, node, pads, "the padding")
    at = range(np.ndim(x)) if axes is None else [a % np.ndim(x) for a in whole(run, node, axes, "the axes")]
    sides, half = [(0, 0)] * np.ndim(x), len(sizes) // 2
    for i, axis in enumerate(at):
        sides[axis] = (sizes[i], sizes[half + i])
    cut = tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(sides, np.shape(x), strict=True))
    sides = [(max(a, 0), max(b, 0)) for a, b in sides]
    mode = node.get("mode", "constant")
    if mode != "constant":
        return library(x).pad(x[cut], sides, mode={"edge": "edge", "reflect": "reflect", "wrap": "wrap"}[mode])
    fill = node.get("value", 0.0) if value is None else value
    if known(x, fill):
        _made(*(n + a + b for n, (a, b) in zip(np.shape(x[cut]), sides, strict=True)))
        return np.pad(x[cut], sides, constant_values=np.asarray(fill, x.dtype))
    return jax.lax.pad(jnp.asarray(x)[cut], jnp.asarray(fill, x.dtype).reshape(()), [(a, b, 0) for a, b in sides])


@operator("ConstantOfShape")
def _constant_of_shape(run: Run, node: Node, shape: Any) -> Any:
    value = node.get("value", np.zeros(1, np.float32))
    return np.full(_made(*whole(run, node, shape, "the shape")), value.reshape(-1)[0], value.dtype)


@operator("Range", "com.microsoft::Range")
def _range(run: Run, node: Node, start: Any, limit: Any, delta: Any = None) -> Any:
    delta = np.ones((), np.asarray(start).dtype) if delta is None and known(start) else delta
    for end in (start, limit, delta):
        if not known(end):
            raise run.data(node, "an end", end)
    ends = (np.ravel(v)[0] for v in (start, limit, delta))
    return np.arange(*_counted(*ends), dtype=np.asarray(start).dtype)


@operator("OneHot")
def _one_hot(run: Run, node: Node, at: Any, depth: Any, values: Any) -> Any:
    (count,) = whole(run, node, depth, "the depth")
    axis = node.get("axis", -1)
    hot = jax.nn.one_hot(jnp.where(jnp.asarray(at) < 0, at + count, at), count, axis=axis, dtype=bool)
    return jnp.where(hot, values[1], values[0])


@operator("EyeLike")
def _eye(run: Run, node: Node, x: Any) -> Any:
    import onnx

    rows, cols = np.shape(x)
    given = node.get("dtype")
    return np.eye(rows, cols, k=node.get("k", 0), dtype=onnx.helper.tensor_dtype_to_np_dtype(given) if given else x.dtype)


@operator("Trilu", "com.microsoft::Trilu")
def _trilu(run: Run, node: Node, x: Any, k: Any = None) -> Any:
    shift = 0 if k is None else whole(run, node, k, "the diagonal")[0]
    return (library(x).triu if node.get("upper", 1) else library(x).tril)(x, shift)


@operator("DepthToSpace")
def _depth_to_space(run: Run, node: Node, x: Any) -> Any:
    b, (n, c, h, w) = node.get("blocksize"), x.shape
    if node.get("mode", "DCR") == "DCR":
        return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
    return x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def _space_to_depth(run: Run, node: Node, x: Any) -> Any:
    b, (n, c, h, w) = node.get("blocksize"), x.shape
    order = (0, 3, 5, 1, 2, 4) if node.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.reshape(n, c, h // b, b, w // b, b).transpose(order).reshape(n, c * b * b, h // b, w // b)


@operator("TensorScatter")
def _tensor_scatter(run: Run, node: Node, cache: Any, update: Any, at: Any = None) -> Any:
    """`update` written into `cache` along an axis from a place of each batch entry on."""
    axis, time = node.get("axis", -2) % np.ndim(cache), np.arange(update.shape[node.get("axis", -2)])
    first = jnp.zeros(cache.shape[0], np.int64) if at is None else jnp.asarray(at)
    places = first[:, None] + time
    places = places % cache.shape[axis] if node.get("mode", "linear") == "circular" else places

    def write(one: Any, new: Any, where: Any) -> Any:
        return jnp.moveaxis(jnp.moveaxis(one, axis - 1, 0).at[where].set(jnp.moveaxis(new, axis - 1, 0)), 0, axis - 1)

    return jax.vmap(write)(jnp.asarray(cache), jnp.asarray(update), places)
