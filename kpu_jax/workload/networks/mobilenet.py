"""MobileNetV2 (Sandler et al., CVPR 2018, table 2)."""

from __future__ import annotations

from typing import Any

from kpu_jax.workload.conv import Conv
from kpu_jax.workload.gemm import Gemm
from kpu_jax.workload.networks.graph import Graph, size
from kpu_jax.workload.table import Workload

BLOCKS: tuple[tuple[int, int, int, int], ...] = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""(expansion, output channels, repeats, first stride), table 2 of the paper."""


def mobilenet_v2(batch: int = 1, dtype: Any = "int8", *, image_size: int = 224, classes: int = 1000) -> Workload:
    """MobileNetV2 at width 1: 52 convolutions, 17 of them depthwise, and the classifier.

    A depthwise convolution has batch = channels and n = 1. ReLU6 counts as ReLU (the clip is the requantisation).
    A block's last convolution reads the residual. Raises `KPUError` for sizes that are not positive integers.
    """
    batch = size("mobilenet_v2.batch", batch, "images")
    side = size("mobilenet_v2.image_size", image_size, "pixels")
    classes = size("mobilenet_v2.classes", classes, "classes")
    graph = Graph()
    fused = {"dtype": dtype, "bias": True}

    def convolve(name: str, c_in: int, c_out: int, *reads: str | None, at: int, relu: bool = True, **kw: Any) -> str:
        op = Conv(batch, at, at, c_in, c_out, **kw, activation="relu" if relu else "none", **fused)
        return graph.add(name, op, *reads)

    x = convolve("conv1", 3, 32, None, at=side, kernel=3, stride=2, padding=1)
    side, channels, index = (side - 1) // 2 + 1, 32, 0
    for expansion, out, repeats, first_stride in BLOCKS:
        for repeat in range(repeats):
            index += 1
            stride = first_stride if repeat == 0 else 1
            inner, y = channels * expansion, x
            if expansion != 1:
                y = convolve(f"block{index}_expand", channels, inner, x, at=side)
            depthwise: dict[str, Any] = {"kernel": 3, "stride": stride, "padding": 1, "groups": inner}
            y = convolve(f"block{index}_depthwise", inner, inner, y, at=side, **depthwise)
            side = (side - 1) // stride + 1
            residual = x if stride == 1 and channels == out else None
            x = convolve(f"block{index}_project", inner, out, y, residual, at=side, relu=False)
            channels = out
    x = convolve("conv_last", channels, 1280, x, at=side)
    graph.add("fc", Gemm(batch, classes, 1280, **fused), x)
    return graph.workload()
