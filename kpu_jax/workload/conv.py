"""Convolution, stored as the matrix multiplication of its patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import ArrayLike

from kpu_jax.base.errors import KPUError, plain
from kpu_jax.base.pytree import is_traced, record
from kpu_jax.workload.op import CONV, Op
from kpu_jax.workload.options import check_macs, dimension, fill, matrix_options
from kpu_jax.workload.window import output_size, paddings, pair


@record
class Conv(Op):
    """A 2-D convolution: m = images * out_h * out_w, n = out_channels / groups, k = R S in_channels / groups.

    m is ordered (image, p, q) with q fastest, k is ordered (r, s, channel) with channel fastest, and the groups
    are the batch. A = input, B = weights, C = output. Flattens to the leaves of `Op`.
    """

    def __init__(
        self,
        images: ArrayLike,
        in_h: ArrayLike,
        in_w: ArrayLike,
        in_channels: ArrayLike,
        out_channels: ArrayLike,
        kernel: Any = 1,
        *,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: ArrayLike = 1,
        dtype: Any = "int8",
        a_dtype: Any = None,
        b_dtype: Any = None,
        c_dtype: Any = None,
        acc_dtype: Any = None,
        bias: bool = False,
        activation: str = "none",
        density_a: ArrayLike = 1.0,
        density_b: ArrayLike = 1.0,
        zero_gating: ArrayLike = 1.0,
        data_on: str | Mapping[str, str] = "external",
        reserved_l3_bytes: ArrayLike = 0,
        count: ArrayLike = 1,
    ) -> None:
        """Sizes in pixels and channels; `kernel`, `stride`, `dilation` are one number or (height, width).

        `padding` is a number, (height, width), ((top, bottom), (left, right)), "same" or "valid". The other options
        are those of `Gemm`. Any number may be a tracer, which is not checked.

        Raises `KPUError` for sizes that are not integers from 1 to 2^31-1 (m, n and k included), channels that the
        groups do not divide, a window larger than the padded input, a padding not smaller than the dilated window,
        more than 2^53 MACs, and unknown names.
        """
        images = dimension("Conv.images", images, "images")
        size = dimension("Conv.in_h", in_h, "pixels"), dimension("Conv.in_w", in_w, "pixels")
        c_in = dimension("Conv.in_channels", in_channels, "channels")
        c_out = dimension("Conv.out_channels", out_channels, "channels")
        groups = dimension("Conv.groups", groups, "groups")
        for name, channels in (("in_channels", c_in), ("out_channels", c_out)):
            if not is_traced(channels, groups) and channels % groups:
                raise KPUError(f"Conv.{name} = {plain(channels)} [channels] must be a multiple of groups = {plain(groups)}")
        window = pair("Conv.kernel", kernel, "pixels")
        step = pair("Conv.stride", stride, "pixels")
        spread = pair("Conv.dilation", dilation, "pixels")
        pads = paddings("Conv.padding", padding, size, window, step, spread)
        out_h, out_w = (
            output_size(f"Conv.{name}", size[i], window[i], step[i], spread[i], pads[i])
            for i, name in enumerate(("in_h", "in_w"))
        )
        per_group = c_in / groups
        sizes = {
            "m": dimension("Conv m = images x out_h x out_w", images * out_h * out_w),
            "n": dimension("Conv n = out_channels / groups", c_out / groups),
            "k": dimension("Conv k = kernel x in_channels / groups", window[0] * window[1] * per_group),
            "batch": groups,
        }
        check_macs("Conv", **sizes)
        options = matrix_options(
            "Conv",
            dtype=dtype,
            a_dtype=a_dtype,
            b_dtype=b_dtype,
            c_dtype=c_dtype,
            acc_dtype=acc_dtype,
            bias=bias,
            activation=activation,
            density_a=density_a,
            density_b=density_b,
            zero_gating=zero_gating,
            data_on=data_on,
            reserved_l3_bytes=reserved_l3_bytes,
            count=count,
        )
        geometry = {
            "images": images,
            "in_h": size[0],
            "in_w": size[1],
            "out_h": out_h,
            "out_w": out_w,
            "kernel_h": window[0],
            "kernel_w": window[1],
            "channels": per_group,
            "stride_h": step[0],
            "stride_w": step[1],
            "pad_top": pads[0][0],
            "pad_left": pads[1][0],
            "dilation_h": spread[0],
            "dilation_w": spread[1],
        }
        fill(self, kind=CONV, **sizes, **geometry, **options)
