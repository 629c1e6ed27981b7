"""Interpolation axis by axis: gathers of neighbours with weights that are known beforehand."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.layout import whole
from kpu_jax.frontends.onnx.run import Run, known, operator


@operator("Resize", "Upsample")
def _resize(run: Run, node: Node, x: Any, *rest: Any) -> Any:
    old = run.opset < 11 or node.operator == "Upsample"
    scales, sizes = (rest[0] if rest else np.asarray(node.get("scales"), np.float32), None) if old else (*rest, None, None, None)[1:3]
    shape = np.shape(x)
    axes = [a % len(shape) for a in node.get("axes", range(len(shape)))]
    if sizes is not None and np.size(sizes):
        target, factor = _from_sizes(node, shape, dict(zip(axes, whole(run, node, sizes, "the size"), strict=True)))
    else:
        if not known(scales):
            raise run.data(node, "the scale", scales)
        factor = dict(zip(axes, (float(s) for s in np.ravel(scales)), strict=True))
        target = {a: math.floor(shape[a] * f) for a, f in factor.items()}
    way = "asymmetric" if old else node.get("coordinate_transformation_mode", "half_pixel")
    regions: dict[int, tuple[float, float]] = {}
    if way == "tf_crop_and_resize":
        ends = [float(v) for v in np.ravel(rest[0])] if known(rest[0]) else None
        if ends is None:
            raise run.data(node, "the region", rest[0])
        regions = {a: (ends[i], ends[i + len(axes)]) for i, a in enumerate(axes)}
    for axis, n in target.items():
        if n != shape[axis] or factor[axis] != 1 or axis in regions:
            x = _resized(node, jnp.asarray(x), axis, n, factor[axis], way, regions.get(axis, (0.0, 1.0)))
    return x


def _from_sizes(node: Node, shape: tuple[int, ...], wanted: dict[int, int]) -> tuple[dict[int, int], dict[int, float]]:
    factor = {a: n / shape[a] for a, n in wanted.items()}
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return wanted, factor
    common = min(factor.values()) if policy == "not_larger" else max(factor.values())
    return {a: math.floor(shape[a] * common + 0.5) for a in wanted}, dict.fromkeys(wanted, common)


def _places(way: str, n: int, old: int, factor: float, region: tuple[float, float]) -> np.ndarray:
    """Where each of `n` outputs lies among `old` inputs [pixels]."""
    place = np.arange(n, dtype=np.float64)
    if way == "tf_crop_and_resize":
        first, last = (end * (old - 1) for end in region)
        return first + place * (last - first) / (n - 1) if n > 1 else np.full(1, (first + last) / 2)
    return {
        "half_pixel": (place + 0.5) / factor - 0.5,
        "pytorch_half_pixel": (place + 0.5) / factor - 0.5 if n > 1 else np.zeros(n),
        "align_corners": place * (old - 1) / max(factor * old - 1, 1e-9),
        "asymmetric": place / factor,
        "half_pixel_symmetric": old / 2 * (1 - n / (factor * old)) + (place + 0.5) / factor - 0.5,
    }[way]


def _resized(node: Node, x: Any, axis: int, n: int, factor: float, way: str, region: tuple[float, float]) -> Any:
    old, mode = x.shape[axis], node.get("mode", "nearest")
    source = _places(way, n, old, factor, region)
    along = [-1 if i == axis else 1 for i in range(x.ndim)]
    if mode == "nearest":
        y = jnp.take(x, np.clip(_nearest(node, source), 0, old - 1).astype(np.int32), axis)
    else:
        at, weights = _taps(node, source, mode, factor, old)
        if node.get("exclude_outside", 0):
            weights = np.where((at >= 0) & (at < old), weights, 0)
            weights = weights / weights.sum(0)
        parts = (
            jnp.take(x, np.clip(i, 0, old - 1).astype(np.int32), axis) * w.astype(x.dtype).reshape(along)
            for i, w in zip(at, weights, strict=True)
        )
        y = sum(parts)
    if way != "tf_crop_and_resize":
        return y
    inside = ((source >= 0) & (source <= old - 1)).reshape(along)
    return jnp.where(inside, y, np.asarray(node.get("extrapolation_value", 0.0), x.dtype))


def _nearest(node: Node, source: np.ndarray) -> np.ndarray:
    rounding = "floor" if node.operator == "Upsample" else node.get("nearest_mode", "round_prefer_floor")
    return {
        "round_prefer_floor": np.ceil(source - 0.5),
        "round_prefer_ceil": np.floor(source + 0.5),
        "floor": np.floor(source),
        "ceil": np.ceil(source),
    }[rounding]


def _taps(node: Node, source: np.ndarray, mode: str, factor: float, old: int) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, weights), both [tap, output]. With antialias, a shrinking kernel is as wide as a pixel of the output."""
    a = node.get("cubic_coeff_a", -0.75)
    if node.get("antialias", 0) and factor < 1:
        reach = math.floor((1 if mode == "linear" else 2) / factor)
        first = np.floor(source).astype(np.int64)
        at = first + np.arange(-reach, reach + 2)[:, None]
        distance = np.abs(at - source) * factor
        weights = np.maximum(1 - distance, 0) if mode == "linear" else np.where(distance <= 1, near(distance, a), far(distance, a))
        weights = np.where(distance < (1 if mode == "linear" else 2), weights, 0)
        return at, weights / weights.sum(0)
    if mode == "cubic":
        first = np.floor(source).astype(np.int64)
        taps, weights = cubic(source - first, a)
        return first + np.array(taps)[:, None], np.stack(weights)
    source = np.clip(source, 0, old - 1)
    first = np.floor(source).astype(np.int64)
    return first + np.arange(2)[:, None], np.stack([1 - (source - first), source - first])


def near(d: Any, a: float) -> Any:
    """Keys's kernel ('Cubic convolution interpolation', 1981) at distances up to 1."""
    return ((a + 2) * d - (a + 3)) * d * d + 1


def far(d: Any, a: float) -> Any:
    """Keys's kernel at distances from 1 to 2."""
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a


def cubic(t: Any, a: float) -> tuple[list[int], tuple[Any, ...]]:
    """The four neighbours of a point a fraction `t` behind the second, and their weights."""
    return [-1, 0, 1, 2], (far(1 + t, a), near(t, a), near(1 - t, a), far(2 - t, a))
