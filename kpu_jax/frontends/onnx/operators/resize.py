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
            raise run.fail(node, "the scale is computed from the model's inputs: its shapes are unknown; give them with inputs=")
        factor = dict(zip(axes, (float(s) for s in np.ravel(scales)), strict=True))
        target = {a: math.floor(shape[a] * f) for a, f in factor.items()}
    way = "asymmetric" if old else node.get("coordinate_transformation_mode", "half_pixel")
    if way == "tf_crop_and_resize" or node.get("antialias", 0):
        raise NotImplementedError("antialias" if node.get("antialias", 0) else way)
    for axis, n in target.items():
        if n != shape[axis] or factor[axis] != 1:
            x = _resized(node, jnp.asarray(x), axis, n, factor[axis], way)
    return x


def _from_sizes(node: Node, shape: tuple[int, ...], wanted: dict[int, int]) -> tuple[dict[int, int], dict[int, float]]:
    factor = {a: n / shape[a] for a, n in wanted.items()}
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return wanted, factor
    common = min(factor.values()) if policy == "not_larger" else max(factor.values())
    return {a: math.floor(shape[a] * common + 0.5) for a in wanted}, dict.fromkeys(wanted, common)


def _resized(node: Node, x: Any, axis: int, n: int, factor: float, way: str) -> Any:
    old, place, mode = x.shape[axis], np.arange(n), node.get("mode", "nearest")
    source = {
        "half_pixel": (place + 0.5) / factor - 0.5,
        "pytorch_half_pixel": (place + 0.5) / factor - 0.5 if n > 1 else np.zeros(n),
        "align_corners": place * (old - 1) / max(n - 1, 1),
        "asymmetric": place / factor,
        "half_pixel_symmetric": old / 2 * (1 - n / (factor * old)) + (place + 0.5) / factor - 0.5,
    }[way]
    if mode == "nearest":
        rounding = "floor" if node.operator == "Upsample" else node.get("nearest_mode", "round_prefer_floor")
        near = {
            "round_prefer_floor": np.ceil(source - 0.5),
            "round_prefer_ceil": np.floor(source + 0.5),
            "floor": np.floor(source),
            "ceil": np.ceil(source),
        }[rounding]
        return jnp.take(x, np.clip(near, 0, old - 1).astype(np.int32), axis)
    first = np.floor(source).astype(np.int64)
    if mode == "cubic":
        taps, weights = _cubic(source - first, node.get("cubic_coeff_a", -0.75))
    else:
        source = np.clip(source, 0, old - 1)
        first = np.floor(source).astype(np.int64)
        taps, weights = [0, 1], np.stack([1 - (source - first), source - first])
    at = first + np.array(taps)[:, None]
    if node.get("exclude_outside", 0):
        weights = np.where((at >= 0) & (at < old), weights, 0)
        weights = weights / weights.sum(0)
    along = [-1 if i == axis else 1 for i in range(x.ndim)]
    parts = (
        jnp.take(x, np.clip(i, 0, old - 1).astype(np.int32), axis) * w.astype(x.dtype).reshape(along)
        for i, w in zip(at, weights, strict=True)
    )
    return sum(parts)


def _cubic(t: np.ndarray, a: float) -> tuple[list[int], np.ndarray]:
    """Keys's kernel (1981) at the four neighbours of a point a fraction `t` behind the second."""

    def near(d: np.ndarray) -> np.ndarray:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: np.ndarray) -> np.ndarray:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [-1, 0, 1, 2], np.stack([far(1 + t), near(t), near(1 - t), far(2 - t)])
