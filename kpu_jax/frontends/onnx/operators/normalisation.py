"""Normalisations, alone or fused with what stands around them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.elementwise import library
from kpu_jax.frontends.onnx.run import Run, operator


def _by_channel(x: Any, value: Any) -> Any:
    """[channel] laid along axis 1 of `x`."""
    return library(value).reshape(value, (-1,) + (1,) * (np.ndim(x) - 2))


@operator("BatchNormalization")
def _batch_norm(run: Run, node: Node, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    if node.get("training_mode", 0):
        return _batch_norm_in_training(node, x, scale, bias, mean, var)
    epsilon = np.asarray(node.get("epsilon", 1e-5), np.float32)
    factor = scale / library(var).sqrt(var + epsilon)  # of weights: one product and one sum per element remain
    return (x * _by_channel(x, factor) + _by_channel(x, bias - mean * factor)).astype(x.dtype)


def _batch_norm_in_training(node: Node, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> tuple[Any, Any, Any]:
    """By the moments of the batch; also the running ones, which move towards them."""
    axes = (0, *range(2, np.ndim(x)))
    now_mean, now_var = jnp.mean(x, axes), jnp.var(x, axes)
    inverse = jax.lax.rsqrt(now_var + np.asarray(node.get("epsilon", 1e-5), x.dtype))
    y = (x - _by_channel(x, now_mean)) * _by_channel(x, inverse * scale) + _by_channel(x, bias)
    keep = np.asarray(node.get("momentum", 0.9), x.dtype)
    return y, mean * keep + now_mean * (1 - keep), var * keep + now_var * (1 - keep)


def _moments(x: Any, axes: tuple[int, ...], epsilon: float) -> tuple[Any, Any, Any]:
    """(mean, 1 / deviation, standardised)."""
    mean = jnp.mean(x, axes, keepdims=True)
    centred = x - mean
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axes, keepdims=True) + np.asarray(epsilon, x.dtype))
    return mean, inverse, centred * inverse


def _standardised(x: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    return _moments(x, axes, epsilon)[2]


@operator("InstanceNormalization")
def _instance_norm(run: Run, node: Node, x: Any, scale: Any, bias: Any) -> Any:
    y = _standardised(x, tuple(range(2, x.ndim)), node.get("epsilon", 1e-5))
    return y * _by_channel(x, scale) + _by_channel(x, bias)


@operator("GroupNormalization")
def _group_norm(run: Run, node: Node, x: Any, scale: Any, bias: Any) -> Any:
    groups = node.get("num_groups")
    y = _standardised(x.reshape(x.shape[0], groups, -1), (2,), node.get("epsilon", 1e-5)).reshape(x.shape)
    if scale.shape[0] != x.shape[1]:
        scale, bias = (library(v).repeat(v, x.shape[1] // groups) for v in (scale, bias))
    return y * _by_channel(x, scale) + _by_channel(x, bias)


@operator("LayerNormalization")
def _layer_norm(run: Run, node: Node, x: Any, scale: Any, bias: Any = None) -> Any:
    axis = node.get("axis", -1) % x.ndim
    mean, inverse, y = _moments(x, tuple(range(axis, x.ndim)), node.get("epsilon", 1e-5))
    y = y * scale if bias is None else y * scale + bias
    return y, mean, inverse


@operator("RMSNormalization", "SimplifiedLayerNormalization")
def _rms_norm(run: Run, node: Node, x: Any, scale: Any) -> Any:
    axes = tuple(range(node.get("axis", -1) % x.ndim, x.ndim))
    return x * jax.lax.rsqrt(jnp.mean(x * x, axes, keepdims=True) + np.asarray(node.get("epsilon", 1e-5), x.dtype)) * scale


@operator("com.microsoft::SkipLayerNormalization", "com.microsoft::SkipSimplifiedLayerNormalization")
def _skip_norm(run: Run, node: Node, x: Any, skip: Any, scale: Any, *rest: Any) -> Any:
    simple = "Simplified" in node.operator
    shift = None if simple or not rest else rest[0]
    bias = rest[0] if simple and rest else rest[1] if len(rest) > 1 else None
    total = x + skip if bias is None else x + skip + bias
    y = _rms_norm(run, node, total, scale) if simple else _layer_norm(run, node, total, scale, shift)[0]
    return (y, None, None, total) if len(node.outputs) > 1 else y


@operator("LpNormalization")
def _lp_norm(run: Run, node: Node, x: Any) -> Any:
    axis = node.get("axis", -1)
    size = jnp.sum(jnp.abs(x), axis, keepdims=True) if node.get("p", 2) == 1 else jnp.sqrt(jnp.sum(x * x, axis, keepdims=True))
    return x / jnp.where(size == 0, 1, size)


@operator("MeanVarianceNormalization")
def _mean_variance(run: Run, node: Node, x: Any) -> Any:
    return _standardised(x, tuple(node.get("axes", [0, 2, 3])), 1e-18)


@operator("LRN")
def _lrn(run: Run, node: Node, x: Any) -> Any:
    size = node.get("size")
    low = (size - 1) // 2
    window = (1, size) + (1,) * (x.ndim - 2)
    pads = [(0, 0), (low, size - 1 - low)] + [(0, 0)] * (x.ndim - 2)
    around = jax.lax.reduce_window(x * x, np.zeros((), x.dtype), jax.lax.add, window, (1,) * x.ndim, pads)
    return x / (node.get("bias", 1.0) + node.get("alpha", 1e-4) / size * around) ** node.get("beta", 0.75)


@operator("com.microsoft::GroupNorm", "com.microsoft::SkipGroupNorm")
def _channels_last_group_norm(run: Run, node: Node, x: Any, scale: Any, shift: Any, skip: Any = None, bias: Any = None) -> Any:
    """Channels last unless said otherwise, with a swish on request."""
    total = x
    for addend in (skip, bias):
        if addend is not None:
            total = total + (addend[:, None, None] if addend.ndim == 2 else addend)
    y = jnp.moveaxis(total, -1, 1) if node.get("channels_last", 1) else total
    flat = _standardised(y.reshape(y.shape[0], node.get("groups"), -1), (2,), node.get("epsilon", 1e-5))
    y = flat.reshape(y.shape) * _by_channel(y, scale) + _by_channel(y, shift)
    y = y * jax.nn.sigmoid(y) if node.get("activation", 0) else y
    y = jnp.moveaxis(y, 1, -1) if node.get("channels_last", 1) else y
    return (y.astype(x.dtype), total) if len(node.outputs) > 1 else y.astype(x.dtype)


@operator("com.microsoft::EmbedLayerNormalization")
def _embedding(
    run: Run, node: Node, words: Any, segments: Any, word_table: Any, place_table: Any, segment_table: Any, scale: Any, bias: Any,
    mask: Any = None, places: Any = None,
) -> Any:  # fmt: skip
    """Rows of up to three tables, added and normalised; also how long each sequence is, by the mask."""
    at = np.arange(words.shape[1]) if places is None else places
    total = jnp.take(word_table, words, 0) + jnp.take(place_table, at, 0)
    total = total if segments is None else total + jnp.take(segment_table, segments, 0)
    lengths = jnp.zeros(words.shape[0], jnp.int32) if mask is None else jnp.sum(mask, 1).astype(jnp.int32)
    return _standardised(total, (2,), node.get("epsilon", 1e-12)) * scale + bias, lengths, total
