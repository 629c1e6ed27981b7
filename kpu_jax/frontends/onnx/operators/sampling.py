"""Reading images between their pixels: grids, regions of interest, deformed windows. Points become gathers and weights."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.linear import padding
from kpu_jax.frontends.onnx.operators.resize import cubic
from kpu_jax.frontends.onnx.run import Run, known, operator


def _reflected(at: Any, low: float, high: float) -> Any:
    """Coordinates mirrored at both ends until they lie between."""
    period = 2 * (high - low)
    if period == 0:
        return jnp.zeros_like(at)
    away = jnp.abs(at - low) % period
    return low + jnp.where(away > high - low, period - away, away)


def _pixels(x: Any, at: Sequence[Any], outside: str, ends: Sequence[tuple[float, float]]) -> Any:
    """x [channel, *space] at whole coordinates, one array [*points] per axis: [channel, *points]."""
    if outside == "reflection":
        at = [_reflected(a, *e) for a, e in zip(at, ends, strict=True)]
    near = [jnp.clip(a, 0, n - 1).astype(jnp.int32) for a, n in zip(at, x.shape[1:], strict=True)]
    found = x[(slice(None), *near)]
    if outside != "zeros":
        return found
    inside = [(a >= 0) & (a <= n - 1) for a, n in zip(at, x.shape[1:], strict=True)]
    return jnp.where(jnp.stack(inside).all(0), found, jnp.zeros((), x.dtype))


def sample(x: Any, at: Sequence[Any], mode: str = "linear", outside: str = "zeros", ends: Sequence[tuple[float, float]] = ()) -> Any:
    """x [channel, *space] at the coordinates `at` [pixels], one array [*points] per axis: [channel, *points].

    `mode`: nearest (even at ties), linear or cubic; `outside`: what lies beyond the image, zeros, its border, or its
    mirror image about `ends`.
    """
    if mode == "nearest":
        return _pixels(x, [jnp.rint(a) for a in at], outside, ends)
    first = [jnp.floor(a) for a in at]
    part = [a - f for a, f in zip(at, first, strict=True)]
    taps = [(range(2), (1 - t, t)) if mode == "linear" else cubic(t, -0.75) for t in part]
    total: Any = 0
    for corner in itertools.product(*(zip(*t, strict=True) for t in taps)):
        weight: Any = 1
        for _, w in corner:
            weight = weight * w
        total = total + _pixels(x, [f + step for f, (step, _) in zip(first, corner, strict=True)], outside, ends) * weight.astype(x.dtype)
    return total


@operator("GridSample", "com.microsoft::GridSample")
def _grid_sample(run: Run, node: Node, x: Any, grid: Any) -> Any:
    """x [image, channel, *space] at grid [image, *points, axis]; the last axis first, -1 to 1 across the image."""
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(node.get("mode", "linear"), node.get("mode", "linear"))
    aligned, outside = node.get("align_corners", 0), node.get("padding_mode", "zeros")
    sizes = np.shape(x)[2:]
    ends = [(0.0, n - 1.0) if aligned else (-0.5, n - 0.5) for n in sizes]

    def one(image: Any, points: Any) -> Any:
        at = []
        for axis, (n, end) in enumerate(zip(sizes, ends, strict=True)):
            g = points[..., len(sizes) - 1 - axis].astype(jnp.float32)
            place = (g + 1) / 2 * (n - 1) if aligned else ((g + 1) * n - 1) / 2
            place = jnp.rint(place) if mode == "nearest" else place
            beyond = (place < end[0]) | (place > end[1])
            if outside != "zeros":
                place = jnp.where(beyond, jnp.clip(place, 0, n - 1) if outside == "border" else _reflected(place, *end), place)
            at.append(place)
        return sample(image, at, mode, outside, ends)

    return jax.vmap(one)(jnp.asarray(x), jnp.asarray(grid))


@operator("DeformConv")
def _deform_conv(run: Run, node: Node, x: Any, w: Any, offset: Any, bias: Any = None, mask: Any = None) -> Any:
    """Patches gathered at deformed taps, then one product per group of channels."""
    if x.ndim != 4:
        raise NotImplementedError(f"{x.ndim - 2} spatial axes")
    groups, shifts = node.get("group", 1), node.get("offset_group", 1)
    kernel = tuple(w.shape[2:])
    stride, dilation = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    pads = padding(node, x.shape[2:], kernel, stride, dilation)
    images, channels, out = x.shape[0], x.shape[1], tuple(offset.shape[2:])
    taps = kernel[0] * kernel[1]
    moved = jnp.asarray(offset).reshape(images, shifts, taps, 2, *out)
    weight = jnp.ones((images, shifts, taps, *out), x.dtype) if mask is None else jnp.asarray(mask).reshape(images, shifts, taps, *out)
    first = [np.arange(n) * s - low for n, s, (low, _) in zip(out, stride, pads, strict=True)]
    tap = [v.reshape(taps) for v in np.meshgrid(*(np.arange(k) * d for k, d in zip(kernel, dilation, strict=True)), indexing="ij")]
    rows = (first[0][:, None] + tap[0][:, None, None]).astype(np.float32)  # [tap, row, 1]
    cols = (first[1][None, :] + tap[1][:, None, None]).astype(np.float32)

    def patches(pixels: Any, shift: Any, weight: Any) -> Any:
        """[channel, *space] of one group of shifts as [channel, tap, *out]."""
        return sample(pixels, [rows + shift[:, 0], cols + shift[:, 1]]) * weight

    split = jnp.asarray(x).reshape(images, shifts, channels // shifts, *x.shape[2:])
    columns = jax.vmap(jax.vmap(patches))(split, moved, weight).reshape(images, groups, channels // groups * taps, -1)
    y = jnp.einsum("gok,igkp->igop", jnp.asarray(w).reshape(groups, w.shape[0] // groups, -1), columns)
    y = y.reshape(images, w.shape[0], *out)
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


@operator("RoiAlign")
def _roi_align(run: Run, node: Node, x: Any, regions: Any, images: Any) -> Any:
    """[region, channel, height, width]: each bin the mean (or maximum) of samples in it."""
    high, wide = node.get("output_height", 1), node.get("output_width", 1)
    per_bin = node.get("sampling_ratio", 0)
    if per_bin <= 0 and not known(regions):
        raise run.data(node, "the number of samples in a region (sampling_ratio = 0)", regions)
    way = node.get("coordinate_transformation_mode", "half_pixel" if run.opset >= 16 else "output_half_pixel")
    scale, shift = node.get("spatial_scale", 1.0), 0.5 if way == "half_pixel" else 0.0
    mean = node.get("mode", "avg") == "avg"
    sizes = x.shape[2:]

    def one(region: Any, image: Any, counts: tuple[int, int]) -> Any:
        ends = region.astype(jnp.float32) * scale - shift
        least = -jnp.inf if way == "half_pixel" else 1.0
        begin, span = (ends[1], ends[0]), [jnp.maximum(ends[i + 2] - ends[i], least) for i in (1, 0)]
        at, inside = [], []
        for b, s, bins, count, n in zip(begin, span, (high, wide), counts, sizes, strict=True):
            places = b + s / bins * ((np.arange(bins)[:, None] + (np.arange(count) + 0.5) / count).reshape(-1))
            inside.append((places >= -1) & (places <= n))
            at.append(jnp.clip(places, 0, n - 1))
        y, x_ = jnp.meshgrid(*at, indexing="ij")
        pixels = jnp.take(jnp.asarray(x), image, 0)
        found = sample(pixels, [y, x_], outside="border") if mean else _largest_corner(pixels, y, x_)
        found = jnp.where(inside[0][:, None] & inside[1], found, jnp.zeros((), x.dtype))
        bins = found.reshape(x.shape[1], high, counts[0], wide, counts[1])
        return bins.mean((2, 4)) if mean else bins.max((2, 4))

    if per_bin > 0:
        return jax.vmap(lambda r, i: one(r, i, (per_bin, per_bin)))(jnp.asarray(regions), jnp.asarray(images))
    tall, broad = (np.maximum(np.ceil((regions[:, i + 2] - regions[:, i]) * scale / bins), 1) for i, bins in ((1, high), (0, wide)))
    each = zip(regions, images, tall, broad, strict=True)
    return jnp.stack([one(jnp.asarray(r), i, (int(t), int(b))) for r, i, t, b in each])


def _largest_corner(x: Any, rows: Any, cols: Any) -> Any:
    """The largest weighted pixel around each point, which RoiAlign's maximum takes."""
    top, left = jnp.floor(rows), jnp.floor(cols)
    down, right = rows - top, cols - left
    corners = [
        _pixels(x, [top + i, left + j], "border", ()) * ((down if i else 1 - down) * (right if j else 1 - right)).astype(x.dtype)
        for i in range(2)
        for j in range(2)
    ]
    return jnp.max(jnp.stack(corners), 0)


@operator("MaxRoiPool")
def _max_roi_pool(run: Run, node: Node, x: Any, regions: Any) -> Any:
    """The maximum over the whole pixels of each bin; regions [region, (image, x1, y1, x2, y2)]."""
    high, wide = node.get("pooled_shape")
    scale, sizes = node.get("spatial_scale", 1.0), x.shape[2:]

    def one(region: Any) -> Any:
        ends = jnp.rint(region[1:] * scale)
        masks = []
        for first, last, bins, n in ((ends[1], ends[3], high, sizes[0]), (ends[0], ends[2], wide, sizes[1])):
            span, step = jnp.maximum(last - first + 1, 1) / bins, np.arange(bins, dtype=np.float32)
            low, up = (jnp.clip(v + first, 0, n)[:, None] for v in (jnp.floor(step * span), jnp.ceil((step + 1) * span)))
            masks.append((np.arange(n) >= low) & (np.arange(n) < up))
        pixels = jnp.take(jnp.asarray(x), region[0].astype(jnp.int32), 0)
        by_rows = jnp.max(jnp.where(masks[0][None, :, :, None], pixels[:, None], -jnp.inf), 2)
        found = jnp.max(jnp.where(masks[1][None, None], by_rows[:, :, None], -jnp.inf), 3)
        return jnp.where(jnp.isfinite(found), found, 0).astype(x.dtype)

    return jax.vmap(one)(jnp.asarray(regions))


@operator("com.microsoft::CropAndResize")
def _crop_and_resize(run: Run, node: Node, x: Any, regions: Any, images: Any, size: Any) -> Any:
    """Regions [region, (y1, x1, y2, x2)], 0 to 1 across the image, resized to `size`."""
    high, wide = (int(n) for n in np.ravel(size))
    beyond = node.get("extrapolation_value", 0.0)

    def one(region: Any, image: Any) -> Any:
        at, inside = [], []
        for first, last, count, n in ((region[0], region[2], high, x.shape[2]), (region[1], region[3], wide, x.shape[3])):
            step = np.arange(count) / (count - 1) if count > 1 else np.full(1, 0.5)
            places = (first + (last - first) * step) * (n - 1)
            inside.append((places >= 0) & (places <= n - 1))
            at.append(places)
        points = jnp.meshgrid(*at, indexing="ij")
        found = sample(jnp.take(jnp.asarray(x), image, 0), points, "nearest" if node.get("mode") == "nearest" else "linear", "border")
        return jnp.where(inside[0][:, None] & inside[1], found, np.asarray(beyond, x.dtype))

    return jax.vmap(one)(jnp.asarray(regions), jnp.asarray(images))
