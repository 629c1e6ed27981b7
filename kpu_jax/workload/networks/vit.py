"""Vision transformers (Dosovitskiy et al., ICLR 2021), 16 x 16 patches."""

from __future__ import annotations

from typing import Any

from kpu_jax.base.errors import KPUError
from kpu_jax.workload.conv import Conv
from kpu_jax.workload.gemm import Gemm
from kpu_jax.workload.networks.graph import Graph, flag, size
from kpu_jax.workload.networks.transformer import TransformerSpec, add_transformer
from kpu_jax.workload.table import Workload

PATCH = 16  # pixels per side

VIT_B16 = TransformerSpec(12, 768, 12, 3072)
VIT_L16 = TransformerSpec(24, 1024, 16, 4096)


def _vit(
    spec: TransformerSpec, batch: int, dtype: Any, image_size: int, classes: int, embed_and_head: bool, vector_ops: bool
) -> Workload:
    batch, pixels = size("batch", batch, "images"), size("image_size", image_size, "pixels")
    classes = size("classes", classes, "classes")
    if pixels % PATCH:
        raise KPUError(f"image_size = {pixels} [pixels] must be a multiple of the patch, {PATCH}")
    tokens = (pixels // PATCH) ** 2 + 1  # patches and the class token
    ends, vectors = flag("embed_and_head", embed_and_head), flag("vector_ops", vector_ops)
    graph, x = Graph(), None
    if ends:
        patches = Conv(batch, pixels, pixels, 3, spec.hidden, PATCH, stride=PATCH, bias=True, dtype=dtype)
        x = graph.add("patch_embed", patches)
    x = add_transformer(graph, spec, x, batch=batch, new_tokens=tokens, context=tokens, dtype=dtype, vector_ops=vectors)
    if ends:
        graph.add("head", Gemm(batch, classes, spec.hidden, bias=True, dtype=dtype), x)
    return graph.workload()


def vit_b16(
    batch: int = 1,
    dtype: Any = "int8",
    *,
    image_size: int = 224,
    classes: int = 1000,
    embed_and_head: bool = False,
    vector_ops: bool = False,
) -> Workload:
    """ViT-B/16 encoder: 197 tokens at 224 pixels; `embed_and_head` adds patch embedding and classifier.

    Raises `KPUError` for sizes that are not positive integers and images that are not whole patches.
    """
    return _vit(VIT_B16, batch, dtype, image_size, classes, embed_and_head, vector_ops)


def vit_l16(
    batch: int = 1,
    dtype: Any = "int8",
    *,
    image_size: int = 224,
    classes: int = 1000,
    embed_and_head: bool = False,
    vector_ops: bool = False,
) -> Workload:
    """ViT-L/16 encoder (24 layers, 1024); arguments as `vit_b16`."""
    return _vit(VIT_L16, batch, dtype, image_size, classes, embed_and_head, vector_ops)
