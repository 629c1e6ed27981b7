"""Poolings, their inverses, and patches laid back into an image."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.layout import whole
from kpu_jax.frontends.onnx.operators.linear import padding
from kpu_jax.frontends.onnx.operators.quantised import number, quantise
from kpu_jax.frontends.onnx.run import Run, operator


def _windows(node: Node, x: Any) -> tuple[list[int], list[int], list[int], list[tuple[int, int]], list[int]]:
    """(kernel, stride, dilation, padding with what ceil_mode adds, outputs)."""
    kernel = node.get("kernel_shape")
    rank = len(kernel)
    stride, dilation = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    pads = padding(node, x.shape[2:], kernel, stride, dilation)
    outs, sides = [], []
    for n, k, s, d, (low, high) in zip(x.shape[2:], kernel, stride, dilation, pads, strict=True):
        room = n + low + high - ((k - 1) * d + 1)
        out = room // s + 1
        if node.get("ceil_mode", 0) and room % s and out * s < n + low:  # a window must start on data
            out += 1
        outs.append(out)
        sides.append((low, max(high, (out - 1) * s + (k - 1) * d + 1 - n - low)))
    return kernel, stride, dilation, sides, outs


def _pool(node: Node, x: Any, start: Any, fold: Any) -> Any:
    kernel, stride, dilation, sides, _ = _windows(node, x)
    one = (1, 1)
    return jax.lax.reduce_window(
        x, np.asarray(start, x.dtype), fold, (*one, *kernel), (*one, *stride), [(0, 0), (0, 0), *sides], window_dilation=(*one, *dilation)
    )


def _lowest(dtype: Any) -> Any:
    return np.iinfo(dtype).min if np.dtype(dtype).kind in "iu" else -np.inf


@operator("MaxPool")
def _max_pool(run: Run, node: Node, x: Any) -> Any:
    if len(node.outputs) > 1 and node.outputs[1]:
        return _max_pool_with_places(node, x)
    return _pool(node, x, _lowest(x.dtype), jax.lax.max)


def _max_pool_with_places(node: Node, x: Any) -> tuple[Any, Any]:
    """(the largest of each window, its place in the flat input)."""
    kernel, stride, dilation, sides, outs = _windows(node, x)
    pixels = x.shape[2:]
    order = "F" if node.get("storage_order", 0) else "C"  # which axis runs fastest
    filled = jnp.pad(x, [(0, 0), (0, 0), *sides], constant_values=np.asarray(_lowest(x.dtype), x.dtype))
    places = np.pad(np.arange(math.prod(pixels)).reshape(pixels, order=order), sides)  # type: ignore[call-overload]
    found, where = [], []
    for tap in itertools.product(*map(range, kernel)):
        cut = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilation, outs, stride, strict=True))
        found.append(filled[(slice(None), slice(None), *cut)])
        where.append(places[cut])
    stacked = jnp.stack(found)
    best = jnp.argmax(stacked, 0)
    flat = jnp.take_along_axis(jnp.asarray(np.stack(where))[:, None, None], best[None], 0)[0]
    first = np.arange(x.shape[0] * x.shape[1]).reshape(x.shape[0], x.shape[1], *[1] * len(pixels)) * math.prod(pixels)
    return jnp.max(stacked, 0), (flat + first).astype(np.int64)


@operator("MaxUnpool")
def _max_unpool(run: Run, node: Node, x: Any, places: Any, shape: Any = None) -> Any:
    """Values back at their places, zeros around them."""
    kernel = node.get("kernel_shape")
    stride, pads = node.get("strides", [1] * len(kernel)), node.get("pads", [0] * 2 * len(kernel))
    sums = [a + b for a, b in zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)]
    sizes = [(n - 1) * s - p + k for n, s, p, k in zip(x.shape[2:], stride, sums, kernel, strict=True)]
    small = (*x.shape[:2], *sizes)
    y = jnp.zeros(math.prod(small), x.dtype).at[jnp.ravel(places)].set(jnp.ravel(x)).reshape(small)
    if shape is None:
        return y
    wanted = whole(run, node, shape, "the shape")
    return jnp.pad(y, [(0, n - m) for n, m in zip(wanted, small, strict=True)])


@operator("Col2Im")
def _col2im(run: Run, node: Node, x: Any, image: Any, block: Any) -> Any:
    """Columns [image, channel * taps, places] added up where their patches overlap."""
    sizes, kernel = whole(run, node, image, "the image"), whole(run, node, block, "the block")
    rank = len(sizes)
    stride, dilation = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    pads = node.get("pads", [0] * 2 * rank)
    full = [n + a + b for n, a, b in zip(sizes, pads[:rank], pads[rank:], strict=True)]
    outs = [(f - (k - 1) * d - 1) // s + 1 for f, k, d, s in zip(full, kernel, dilation, stride, strict=True)]
    taps = math.prod(kernel)
    columns = jnp.asarray(x).reshape(x.shape[0], x.shape[1] // taps, taps, *outs)
    y = jnp.zeros((x.shape[0], x.shape[1] // taps, *full), x.dtype)
    for i, tap in enumerate(itertools.product(*map(range, kernel))):
        cut = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilation, outs, stride, strict=True))
        y = y.at[(slice(None), slice(None), *cut)].add(columns[:, :, i])
    return y[(slice(None), slice(None), *(slice(a, a + n) for a, n in zip(pads[:rank], sizes, strict=True)))]


@operator("com.microsoft::NhwcMaxPool")
def _nhwc_max_pool(run: Run, node: Node, x: Any) -> Any:
    return jnp.moveaxis(_pool(node, jnp.moveaxis(x, -1, 1), _lowest(x.dtype), jax.lax.max), 1, -1)


@operator("com.microsoft::MaxpoolWithMask")
def _max_pool_with_mask(run: Run, node: Node, x: Any, mask: Any) -> Any:
    return _pool(node, jnp.where(jnp.broadcast_to(mask, x.shape) != 0, x, _lowest(x.dtype)), _lowest(x.dtype), jax.lax.max)


@operator("com.microsoft::QLinearAveragePool")
def _quantised_average_pool(run: Run, node: Node, q: Any, scale: Any, zero: Any, s: Any, z: Any = None) -> Any:
    last = node.get("channels_last", 0)
    x = number(jnp.moveaxis(q, -1, 1) if last else q, scale, zero)
    y = quantise(_average_pool(run, node, x), s, z, q.dtype)
    return jnp.moveaxis(y, 1, -1) if last else y


@operator("AveragePool")
def _average_pool(run: Run, node: Node, x: Any) -> Any:
    kernel, stride, dilation, sides, outs = _windows(node, x)
    pads = padding(node, x.shape[2:], kernel, stride, dilation)
    counts: Any = np.ones(())
    for n, k, s, d, (low, high), out in zip(x.shape[2:], kernel, stride, dilation, pads, outs, strict=True):
        first, last = (0, n + low + high) if node.get("count_include_pad", 0) else (low, low + n)
        taps = np.arange(out)[:, None] * s + np.arange(k)[None] * d
        counts = np.multiply.outer(counts, ((taps >= first) & (taps < last)).sum(1))
    total = _pool(node, x, 0, jax.lax.add)
    return total * (1 / counts).astype(x.dtype)


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(run: Run, node: Node, x: Any) -> Any:
    axes = tuple(range(2, x.ndim))
    return jnp.mean(x, axes, keepdims=True) if "Average" in node.operator else jnp.max(x, axes, keepdims=True)


@operator("LpPool", "GlobalLpPool")
def _lp_pool(run: Run, node: Node, x: Any) -> Any:
    p = node.get("p", 2)
    if node.operator == "GlobalLpPool":
        return jnp.sum(jnp.abs(x) ** p, tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)
    return _pool(node, jnp.abs(x) ** p, 0, jax.lax.add) ** np.asarray(1 / p, x.dtype)
