"""Geometry of convolution windows: padding forms, output sizes, and the input pixels that the windows touch."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from kpu_jax.base.errors import KPUError, nearest, plain, shown
from kpu_jax.base.numerics import ceil_div, floor_div
from kpu_jax.base.pytree import is_traced
from kpu_jax.workload.footprint import element_bytes
from kpu_jax.workload.op import CONV, Op
from kpu_jax.workload.options import checked, dimension

Pair = tuple[Any, Any]


def pair(field: str, value: Any, unit: str) -> Pair:
    """(h, w) from one number or two, each an integer of at least 1."""
    h, w = _two(field, value)
    return dimension(f"{field}[0]", h, unit), dimension(f"{field}[1]", w, unit)


def extent(kernel: Any, dilation: Any) -> Any:
    """Pixels that a dilated window spans along one axis: dilation * (kernel - 1) + 1."""
    return dilation * (kernel - 1) + 1


def paddings(field: str, value: Any, size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """((top, bottom), (left, right)) [pixels] from an int, a pair (h, w), two pairs, "same" or "valid".

    "same" pads as XLA does: out = ceil(in / stride), the odd pixel behind. Raises `KPUError` for other forms,
    for negative paddings, and for one that is not smaller than the dilated window (outputs of nothing but zeros).
    """
    spans = tuple(extent(k, d) for k, d in zip(kernel, dilation, strict=True))
    if isinstance(value, str):
        if value.lower() not in ("same", "valid"):
            raise KPUError(f"{field} = {shown(value)} is unknown: {nearest(value, ('same', 'valid'))}, or numbers of pixels")
        if value.lower() == "valid":
            return (0.0, 0.0), (0.0, 0.0)
        top, left = (_same(i, w, s) for i, w, s in zip(size, spans, stride, strict=True))
        return top, left
    h, w = _two(field, value)
    sides: list[Pair] = []
    for axis, (given, span) in enumerate(zip((h, w), spans, strict=True)):
        low, high = _two(f"{field}[{axis}]", given)
        low, high = (checked(f"{field}[{axis}]", x, "pixels", integer=True) for x in (low, high))
        if not is_traced(low, high, span) and max(low, high) >= span:
            raise KPUError(
                f"{field}[{axis}] = {plain(max(low, high))} [pixels] must be smaller than the dilated window "
                f"({plain(span)} pixels); pad the input itself if outputs of zeros are wanted"
            )
        sides.append((low, high))
    return sides[0], sides[1]


def _two(field: str, value: Any) -> Pair:
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise KPUError(f"{field} = {shown(value)} must be one number or a pair (height, width)")
        return value[0], value[1]
    return value, value


def _same(size: Any, span: Any, stride: Any) -> Pair:
    if is_traced(size, span, stride):
        total = jnp.maximum((ceil_div(size, stride) - 1) * stride + span - size, 0.0)
        low = floor_div(total, 2.0)
    else:
        total = max((-(-size // stride) - 1) * stride + span - size, 0.0)
        low = total // 2
    return low, total - low


def output_size(field: str, size: Any, kernel: Any, stride: Any, dilation: Any, padding: Pair) -> Any:
    """Output pixels along one axis, floor((in + padding - window) / stride) + 1.

    Raises `KPUError` if the dilated window is larger than the padded input. Traced sizes pass.
    """
    span = extent(kernel, dilation)
    room = size + padding[0] + padding[1] - span
    if is_traced(room, stride):
        return floor_div(room, stride) + 1
    if room < 0:
        raise KPUError(
            f"{field}: the dilated window spans {plain(span)} pixels but the padded input only {plain(room + span)} [pixels]; "
            f"enlarge the input or the padding"
        )
    return room // stride + 1


def im2col_bytes(op: Op) -> Any:
    """Bytes of A as patches: batch * m * k elements, every pixel once per window that covers it, padding included.

    Works on any `Op`, stacked or traced. The stored size (`footprint.element_bytes`: block-sparse if density_a < 1).
    """
    return op.batch * op.m * op.k * element_bytes(op)[0]  # type: ignore[operator]


def unique_input_bytes(op: Op) -> float:
    """Bytes of the distinct in-bounds input pixels that the windows of a convolution touch, all groups.

    Exact; the compulsory part of A (a 1x1 window of stride 2 touches a quarter of the pixels). For a GEMM it is
    A itself, for a vector operation its inputs. Host only: raises `KPUError` for traced or stacked operations.
    """
    if is_traced(op) or np.ndim(op.m):
        raise KPUError("unique_input_bytes needs one concrete op; take Workload.row(i) outside jit and vmap")
    if int(op.kind) != CONV:  # type: ignore[arg-type]
        return float(im2col_bytes(op))
    rows = _touched(op.in_h, op.out_h, op.kernel_h, op.stride_h, op.dilation_h, op.pad_top)
    cols = _touched(op.in_w, op.out_w, op.kernel_w, op.stride_w, op.dilation_w, op.pad_left)
    pixels = float(op.images) * rows * cols  # type: ignore[arg-type]
    return float(pixels * op.channels * op.batch * element_bytes(op)[0])  # type: ignore[operator]


def _touched(*axis: Any) -> int:
    """Distinct coordinates p * stride + r * dilation - pad inside [0, size), p < out, r < kernel.

    Each r is a progression of step `stride`; those of one residue are intervals, whose union is counted.
    """
    size, out, kernel, stride, dilation, pad = (int(x) for x in axis)
    spans: dict[int, list[tuple[int, int]]] = {}
    for r in range(kernel):
        start = r * dilation - pad
        first = max(0, -(start // stride))
        last = min(out - 1, (size - 1 - start) // stride)
        if first <= last:
            base = start // stride
            spans.setdefault(start % stride, []).append((base + first, base + last))
    total = 0
    for intervals in spans.values():
        reach = min(a for a, _ in intervals) - 1
        for a, b in sorted(intervals):
            total += max(0, b - max(a - 1, reach))
            reach = max(reach, b)
    return total
