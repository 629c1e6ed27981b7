"""Products of any dimension numbers, brought to A [batch, m, k] B [batch, k, n] and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

DOT, RAGGED, CONVOLUTION = "dot_general", "ragged_dot_general", "conv_general_dilated"


def dot(a: Any, b: Any, params: Any, result: Any, product: Callable[..., Any]) -> Any:
    """`jax.lax.dot_general`: batch axes first, then the free ones of A, then those of B. None where `product` gives none."""
    (left, right), (left_batch, right_batch) = params["dimension_numbers"]
    free = [i for i in range(a.ndim) if i not in (*left, *left_batch)]
    others = [i for i in range(b.ndim) if i not in (*right, *right_batch)]
    sizes = [math.prod(a.shape[i] for i in axes) for axes in (left_batch, free, left)]
    columns = math.prod(b.shape[i] for i in others)
    if 0 in (*sizes, columns):
        return None  # nothing to multiply
    batch, m, k = sizes
    rows = jnp.transpose(a, (*left_batch, *free, *left)).reshape(batch, m, k)
    cols = jnp.transpose(b, (*right_batch, *right, *others)).reshape(batch, k, columns)
    c = product(rows, cols, result.dtype)
    return None if c is None else c.reshape(result.shape)


def ragged(a: Any, b: Any, sizes: Any, params: Any, result: Any, product: Callable[..., Any]) -> Any:
    """`jax.lax.ragged_dot`: all rows of A by the B of every group, of which each row takes its own group's; zero beyond them.

    None where `product` gives none, and for the other forms of `ragged_dot_general` (gradients, batches).
    """
    numbers = params["ragged_dot_dimension_numbers"]
    if numbers.dot_dimension_numbers != (((1,), (1,)), ((), ())) or tuple(numbers.lhs_ragged_dimensions) != (0,) or 0 in a.shape:
        return None
    c = product(jnp.broadcast_to(a, (len(b), *a.shape)), b, result.dtype)
    if c is None:
        return None
    ends = jnp.cumsum(sizes)[:, None]
    rows = jnp.arange(len(a))
    own = (rows < ends) & (rows >= ends - sizes[:, None])
    return jnp.sum(jnp.where(own[:, :, None], c, 0), axis=0, dtype=result.dtype)


def convolution(x: Any, w: Any, params: Any, result: Any, product: Callable[..., Any]) -> Any:
    """`jax.lax.conv_general_dilated` as products of patches, K ordered by tap and then channel, as the KPU orders it.

    Strides, padding (also negative), dilation of either side, and groups of features or of the batch.
    """
    if 0 in (*x.shape, *w.shape, *result.shape):
        return None
    numbers = params["dimension_numbers"]
    x, w = jnp.transpose(x, numbers.lhs_spec), jnp.transpose(w, numbers.rhs_spec)  # (N, C, ...) and (O, I, ...)
    shape = tuple(result.shape[i] for i in numbers.out_spec)
    outputs, kernel, out = shape[1], w.shape[2:], shape[2:]
    gaps = [(low, high, gap - 1) for (low, high), gap in zip(params["padding"], params["lhs_dilation"], strict=True)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *gaps])
    taps = [_tap(x, at, out, params["window_strides"], params["rhs_dilation"]) for at in itertools.product(*map(range, kernel))]
    patches = jnp.stack(taps, axis=2)  # (N, C, tap, ...)
    patches = jnp.moveaxis(patches, (2, 1), (-2, -1))  # (N, ..., tap, C)

    features, images = params["feature_group_count"], params["batch_group_count"]
    groups = features * images
    k = math.prod(kernel) * w.shape[1]
    if images > 1:
        rows = patches.reshape(images, -1, k)
    else:
        split = patches.reshape(-1, math.prod(kernel), features, w.shape[1])
        rows = jnp.moveaxis(split, 2, 0).reshape(features, -1, k)
    cols = jnp.moveaxis(w, 1, -1).reshape(groups, outputs // groups, k).swapaxes(1, 2)
    c = product(rows, cols, result.dtype)
    if c is None:
        return None
    c = jnp.moveaxis(c, 0, 1).reshape(shape[0], *out, outputs)  # (N, ..., O)
    return jnp.transpose(jnp.moveaxis(c, -1, 1), [numbers.out_spec.index(i) for i in range(len(shape))])


def _tap(x: Any, at: tuple[int, ...], out: tuple[int, ...], strides: Any, dilation: Any) -> Any:
    """The input under one tap of the window, for all outputs: (N, C, ...)."""
    starts = [a * d for a, d in zip(at, dilation, strict=True)]
    ends = [s + (n - 1) * stride + 1 for s, n, stride in zip(starts, out, strides, strict=True)]
    return jax.lax.slice(x, (0, 0, *starts), (*x.shape[:2], *ends), (1, 1, *strides))
