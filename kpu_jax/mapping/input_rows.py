"""Input rows that the L3 blocks of a convolution move: unique rows plus the halo of each block, exactly."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div, nearest_whole

Scalar = jax.Array


def _window(op: Any) -> tuple[Scalar, Scalar, Scalar]:
    """(rows of the dilated kernel, rows that each further output row adds, rows lost below the last one)."""
    window = (op.kernel_h - 1) * op.dilation_h + 1
    added = jnp.minimum(op.stride_h, window)
    below = jnp.maximum(0.0, (op.out_h - 1) * op.stride_h + window - op.pad_top - op.in_h)
    return window, added, below


def _series(first: Scalar, step: Scalar, limit: Scalar) -> Scalar:
    """Sum over j = 0 .. limit-1 of max(0, first - j step)."""
    terms = jnp.clip(ceil_div(first, step), 0, limit)
    return terms * first - step * terms * (terms - 1) / 2


def block_rows(op: Any, first: Scalar, count: Scalar) -> Scalar:
    """In-bounds input rows for `count` output rows of one image, starting at output row `first`. Exact.

    More than one image's worth (`count` > out_h) must be whole images.
    """
    window, added, _ = _window(op)
    rows = jnp.minimum(count, op.out_h)
    above = jnp.maximum(0.0, op.pad_top - first * op.stride_h)
    below = jnp.maximum(0.0, (first + rows - 1) * op.stride_h + window - op.pad_top - op.in_h)
    return jnp.maximum(1.0, nearest_whole(count / op.out_h)) * ((rows - 1) * added + window - above - below)


def total_rows(op: Any, l3_m: Scalar) -> Scalar:
    """In-bounds input rows moved by all L3 blocks along M, each once. Exact for legal tiles."""
    window, added, below = _window(op)
    per_block = jnp.clip(jnp.round(l3_m / op.out_w), 1, op.out_h)
    blocks = ceil_div(op.out_h, per_block)
    last = op.out_h - (blocks - 1) * per_block
    lost_above = _series(op.pad_top, per_block * op.stride_h, blocks)
    lost_below = below + _series(jnp.maximum(0.0, below - last * op.stride_h), per_block * op.stride_h, blocks - 1)
    return op.images * (added * op.out_h + blocks * (window - added) - lost_above - lost_below)


def largest_rows(op: Any, l3_m: Scalar) -> Scalar:
    """Input rows for which a place in L3 is reserved: an inner block's, at most the image's."""
    window, added, _ = _window(op)
    rows = jnp.round(l3_m / op.out_w)
    inner = jnp.minimum((jnp.minimum(rows, op.out_h) - 1) * added + window, op.in_h)
    return jnp.maximum(1.0, jnp.minimum(nearest_whole(rows / op.out_h), op.images)) * inner
