"""The convolutions of AlexNet and VGG-16, as Eyeriss measured them: 16 bits, batches of 4 and 3."""

from __future__ import annotations

from typing import Any

import kpu_jax as kpu
from kpu_jax.workload.op import Op

FORMATS: dict[str, Any] = {"dtype": "int16", "acc_dtype": "int16", "activation": "relu"}  # partial sums of 16 bits, too


def alexnet(images: int = 4) -> dict[str, Op]:
    """Krizhevsky et al., 2012, with its two groups."""
    layers = (
        ("CONV1", 227, 3, 96, {"kernel": 11, "stride": 4}),
        ("CONV2", 27, 96, 256, {"kernel": 5, "padding": 2, "groups": 2}),
        ("CONV3", 13, 256, 384, {"kernel": 3, "padding": 1}),
        ("CONV4", 13, 384, 384, {"kernel": 3, "padding": 1, "groups": 2}),
        ("CONV5", 13, 384, 256, {"kernel": 3, "padding": 1, "groups": 2}),
    )
    return {name: kpu.Conv(images, side, side, inputs, outputs, **window, **FORMATS) for name, side, inputs, outputs, window in layers}


def vgg16(images: int = 3) -> dict[str, Op]:
    """Simonyan and Zisserman, 2014: 3 x 3 convolutions throughout."""
    ops: dict[str, Op] = {}
    inputs = 3
    for block, (side, channels, layers) in enumerate(((224, 64, 2), (112, 128, 2), (56, 256, 3), (28, 512, 3), (14, 512, 3)), 1):
        for layer in range(1, layers + 1):
            ops[f"CONV{block}-{layer}"] = kpu.Conv(images, side, side, inputs, channels, 3, padding=1, **FORMATS)
            inputs = channels
    return ops


NETWORKS = {"alexnet": alexnet, "vgg16": vgg16}
