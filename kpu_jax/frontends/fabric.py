"""Matrix products and convolutions of any dimension numbers as operations of the fabric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from kpu_jax.base.errors import KPUError
from kpu_jax.frontends.flat import Step
from kpu_jax.frontends.formats import Formats
from kpu_jax.workload import Conv, Gemm, Op
from kpu_jax.workload.dtypes import NumberFormat
from kpu_jax.workload.footprint import BLOCK_ELEMENTS, BLOCK_INDEX_BITS


class FabricWork(NamedTuple):
    """An operation, and how many of its multiply-accumulates read padding or a zero that a stride put in."""

    op: Op
    zero_macs: float = 0.0


def fabric_work(step: Step, formats: Formats) -> FabricWork | str:
    """The operation of a `dot_general`, `ragged_dot_general` or `conv_general_dilated`; text: why the host must do it.

    Raises `KPUError` naming the source line for dimensions of zero, and for sizes beyond the op table.
    """
    for array in (*step.reads[:2], step.writes[0]):
        if not array.size:
            raise KPUError(f"{step.place}: an array of shape {array.shape} has a dimension of zero: nothing to multiply")
    kinds = [formats.format(a.dtype) for a in (*step.reads[:2], step.writes[0])]
    if None in kinds:
        wrong = (*step.reads[:2], step.writes[0])[kinds.index(None)].dtype
        return f"{wrong} is no number format of the KPU"
    dtypes = dict(zip(("a_dtype", "b_dtype", "c_dtype"), kinds, strict=True))
    try:
        if step.primitive == "conv_general_dilated":
            return _convolution(step, dtypes)
        return FabricWork(_product(step, dtypes))
    except KPUError as error:
        raise KPUError(f"{step.place}: {error}") from None


def _product(step: Step, dtypes: dict[str, Any]) -> Op:
    """C[batch, m, n] of any contracting and batch dimensions: m and n are the free ones of either side."""
    lhs, rhs = step.reads[0].shape, step.reads[1].shape
    if step.primitive == "ragged_dot_general":
        return _ragged(step, dtypes)
    (left, right), (left_batch, right_batch) = step.params["dimension_numbers"]
    batch, k = (math.prod(lhs[i] for i in axes) for axes in (left_batch, left))
    m = math.prod(n for i, n in enumerate(lhs) if i not in left and i not in left_batch)
    n = math.prod(n for i, n in enumerate(rhs) if i not in right and i not in right_batch)
    return Gemm(m, n, k, batch=batch, **dtypes)


def _ragged(step: Step, dtypes: dict[str, Any]) -> Op:
    """Rows in groups, each with a right side of its own (mixture of experts): every row multiplies one of them.

    Groups of equal size are assumed where they divide the rows; else one product with the rows of all.
    """
    numbers = step.params["ragged_dot_dimension_numbers"]
    (left, right), (left_batch, right_batch) = numbers.dot_dimension_numbers
    lhs, rhs = step.reads[0].shape, step.reads[1].shape
    groups = step.reads[2].shape[-1]
    shared = (*right, *right_batch, *numbers.rhs_group_dimensions)
    batch, k = (math.prod(lhs[i] for i in axes) for axes in (left_batch, left))
    m = math.prod(n for i, n in enumerate(lhs) if i not in left and i not in left_batch)
    n = math.prod(n for i, n in enumerate(rhs) if i not in shared)
    (ragged,) = numbers.lhs_ragged_dimensions
    if ragged in left:  # the gradient of the right side: K is cut into groups
        return Gemm(m, n, k // groups, batch=batch * groups, **dtypes) if k % groups == 0 else Gemm(m, n, k, batch=batch, **dtypes)
    return Gemm(m // groups, n, k, batch=batch * groups, **dtypes) if m % groups == 0 else Gemm(m, n, k, batch=batch, **dtypes)


class _Axis(NamedTuple):
    """One spatial axis: sizes as JAX gives them; `spread` is the input with the zeros that lhs_dilation puts in."""

    size: int
    out: int
    kernel: int
    stride: int
    low: int
    high: int
    gap: int  # lhs_dilation
    dilation: int

    @property
    def spread(self) -> int:
        return (self.size - 1) * self.gap + 1

    def pixels(self) -> int:
        """Pixels of the input that padding below zero does not crop."""
        first, last = max(0, -self.low), self.spread - 1 - max(0, -self.high)  # in the spread input
        return max(0, last // self.gap - -(-first // self.gap) + 1)

    def data_products(self) -> int:
        """Pairs (output, tap) that meet an input pixel: neither padding nor an inserted zero."""
        total = 0
        for tap in range(self.kernel):
            start = tap * self.dilation - self.low  # at output 0, in the spread input
            if self.gap == 1:
                first = max(0, -(start // self.stride))
                last = min(self.out - 1, (self.spread - 1 - start) // self.stride)
                total += max(0, last - first + 1)
            else:
                places = range(start, start + self.out * self.stride, self.stride)
                total += sum(0 <= x < self.spread and x % self.gap == 0 for x in places)
        return total


def _axes(step: Step) -> list[_Axis]:
    p = step.params
    numbers = p["dimension_numbers"]
    lhs, rhs, out = step.reads[0].shape, step.reads[1].shape, step.writes[0].shape
    return [
        _Axis(lhs[li], out[oi], rhs[ri], stride, pads[0], pads[1], gap, dilation)
        for li, ri, oi, stride, pads, gap, dilation in zip(
            numbers.lhs_spec[2:],
            numbers.rhs_spec[2:],
            numbers.out_spec[2:],
            p["window_strides"],
            p["padding"],
            p["lhs_dilation"],
            p["rhs_dilation"],
            strict=True,
        )  # fmt: skip
    ]


def _convolution(step: Step, dtypes: dict[str, Any]) -> FabricWork:
    """A `Conv` of the same dense product; with more than two spatial axes the first ones are patches, not windows.

    Groups of features and of the batch (the weight gradient of a grouped convolution) are the `Conv`'s groups.
    A transposed convolution is one over the input with its zeros put in: these are not stored (`density_a`), so that A has
    the bytes of its data, and switch no PE (`zero_gating`). Planes of an input with three axes count once, as if every
    block that needs them found them there: a lower bound on their traffic where they do not fit.
    """
    p, numbers = step.params, step.params["dimension_numbers"]
    lhs, rhs = step.reads[0].shape, step.reads[1].shape
    images, features = lhs[numbers.lhs_spec[0]], lhs[numbers.lhs_spec[1]]
    outputs = rhs[numbers.rhs_spec[0]]
    batch_groups = p["batch_group_count"]
    groups = p["feature_group_count"] * batch_groups
    images, features = images // batch_groups, features * batch_groups
    axes = _axes(step)
    outer = axes[:-2]
    images *= math.prod(a.out for a in outer)
    features *= math.prod(a.kernel for a in outer)
    h, w = ([_Axis(1, 1, 1, 1, 0, 0, 1, 1)] * 2 + axes)[-2:]
    (in_h, pad_h), (in_w, pad_w) = _window(h), _window(w)
    dense, data = ([f(a) for a in axes] for f in (lambda a: a.out * a.kernel, _Axis.data_products))
    stored = math.prod(a.pixels() for a in axes) / (math.prod(a.out * a.kernel for a in outer) * in_h * in_w)
    spread = any(a.gap > 1 for a in axes)
    op = Conv(
        images, in_h, in_w, features, outputs, (h.kernel, w.kernel), stride=(h.stride, w.stride), padding=(pad_h, pad_w),
        dilation=(h.dilation, w.dilation), groups=groups, density_a=_density(stored, dtypes["a_dtype"]) if spread or outer else 1.0,
        zero_gating=max(1, math.prod(data)) / math.prod(dense) if spread else 1.0, **dtypes,
    )  # fmt: skip
    return FabricWork(op, float(int(op.macs) - int(op.macs) // math.prod(dense) * math.prod(data)))


def _density(stored: float, fmt: NumberFormat) -> float:
    """The density at which A occupies a fraction `stored` of its dense bytes: the movers know where the zeros are, without indices."""
    indices = BLOCK_INDEX_BITS / BLOCK_ELEMENTS
    return max(min(stored, 1.0), 2.0**-40) * fmt.bits / (fmt.bits + indices) if stored < 1 else 1.0


def _window(axis: _Axis) -> tuple[int, Sequence[int]]:
    """(input pixels, (low, high) padding) that `Conv` takes for the same outputs.

    Negative padding crops the input; padding of a whole window or more is pixels of the input; so is what an
    input smaller than the window lacks.
    """
    span = axis.dilation * (axis.kernel - 1) + 1
    size, sides = axis.spread, []
    for pad in (axis.low, axis.high):
        inside = min(max(pad, 0), span - 1)
        size += pad - inside
        sides.append(inside)
    lacking = max(0, 1 - size)
    size += lacking
    sides[1] -= min(lacking, sides[1])
    return size, sides
