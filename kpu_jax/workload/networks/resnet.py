"""ResNet-50 v1.5 (He et al., CVPR 2016; stride in the 3x3 convolution of each first block)."""

from __future__ import annotations

from typing import Any

from kpu_jax.workload.conv import Conv
from kpu_jax.workload.gemm import Gemm
from kpu_jax.workload.networks.graph import Graph, flag, size
from kpu_jax.workload.table import Workload
from kpu_jax.workload.vector import VectorOp
from kpu_jax.workload.window import output_size

STAGES: tuple[tuple[int, int, int], ...] = ((3, 64, 256), (4, 128, 512), (6, 256, 1024), (3, 512, 2048))
"""(blocks, inner channels, outer channels) of conv2_x to conv5_x."""


def resnet50(
    batch: int = 1, dtype: Any = "int8", *, image_size: int = 224, classes: int = 1000, vector_ops: bool = False
) -> Workload:
    """ResNet-50 v1.5: 53 convolutions and the classifier; 4,089,184,256 MACs per 224 x 224 image.

    Batch norm is folded into the bias; ReLU is fused where it follows a convolution. The additions, their ReLU and
    the poolings are vector work, listed with `vector_ops=True` only. Without them the last convolution of a block
    (projection or 1x1b) reads the residual, so that every consumer reads one result.

    Raises `KPUError` for sizes that are not positive integers and unknown number formats.
    """
    batch, image_size = size("resnet50.batch", batch, "images"), size("resnet50.image_size", image_size, "pixels")
    classes = size("resnet50.classes", classes, "classes")
    with_vectors = flag("resnet50.vector_ops", vector_ops)
    graph = Graph()
    fused = {"dtype": dtype, "bias": True}
    side, channels = image_size, 3

    def convolve(
        name: str, out: int, kernel: int, stride: int, *reads: str | None, relu: bool, c_in: int, at: int
    ) -> str:
        activation = "relu" if relu else "none"
        pad = kernel // 2
        op = Conv(batch, at, at, c_in, out, kernel, stride=stride, padding=pad, activation=activation, **fused)
        return graph.add(name, op, *reads)

    x: str | None = convolve("conv1", 64, 7, 2, None, relu=True, c_in=channels, at=side)
    conv_side = _out(side, 7, 2)
    side, channels = _out(conv_side, 3, 2), 64  # max pooling 3x3 / 2, padding 1
    if with_vectors:
        shrink = side**2 / conv_side**2
        pool = VectorOp(
            batch * 64 * conv_side**2,
            function="max_reduce",
            outputs_per_element=shrink,
            simple_per_element=9 * shrink,
            dtype=dtype,
        )
        x = graph.add("maxpool", pool, x)
    for stage, (blocks, inner, outer) in enumerate(STAGES, start=2):
        for block in range(1, blocks + 1):
            name = f"conv{stage}_{block}"
            stride = 2 if block == 1 and stage > 2 else 1
            after = _out(side, 3, stride)
            project = block == 1
            residual = None if with_vectors else x
            y = convolve(f"{name}_1x1a", inner, 1, 1, x, relu=True, c_in=channels, at=side)
            y = convolve(f"{name}_3x3", inner, 3, stride, y, relu=True, c_in=inner, at=side)
            y = convolve(
                f"{name}_1x1b", outer, 1, 1, y, None if project else residual, relu=False, c_in=inner, at=after
            )
            if project:
                merged = None if with_vectors else y
                shortcut: str | None = convolve(
                    f"{name}_proj", outer, 1, stride, x, merged, relu=False, c_in=channels, at=side
                )
            else:
                shortcut = x
            side, channels = after, outer
            if with_vectors:
                total = VectorOp(batch * outer * side**2, function="add_relu", dtype=dtype)
                x = graph.add(f"{name}_add", total, y, shortcut)
            else:
                x = shortcut if project else y
    if with_vectors:
        mean = VectorOp(batch * channels * side**2, function="average", outputs_per_element=1 / side**2, dtype=dtype)
        x = graph.add("avgpool", mean, x)
    graph.add("fc", Gemm(batch, classes, channels, **fused), x)
    return graph.workload()


def _out(side: int, kernel: int, stride: int) -> int:
    return int(output_size("resnet50.image_size", side, kernel, stride, 1, (kernel // 2, kernel // 2)))
