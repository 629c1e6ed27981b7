"""Input rows that the L3 blocks of a convolution move: unique rows plus the halo of each block, exactly."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.numerics import ceil_div, nearest_whole

Scalar = jax.Array


class InputRows(NamedTuple):
    """Input rows of a convolution (meaningless for other operations), of all its images unless a block's."""

    whole: Scalar  # that its windows span, each once
    first: Scalar  # of the first L3 block
    moved: Scalar  # of all L3 blocks along M, each once; exact for legal tiles
    reserved: Scalar  # for which a place in L3 is reserved: an inner block's, at most the image's


class _Window(NamedTuple):
    height: Scalar  # rows of the dilated kernel
    added: Scalar  # rows that each further output row adds
    below: Scalar  # rows lost below the last one


def _window(op: Any) -> _Window:
    height = (op.kernel_h - 1) * op.dilation_h + 1
    below = jnp.maximum(0.0, (op.out_h - 1) * op.stride_h + height - op.pad_top - op.in_h)
    return _Window(height, jnp.minimum(op.stride_h, height), below)


def _series(first: Scalar, step: Scalar, limit: Scalar) -> Scalar:
    """Sum over j = 0 .. limit-1 of max(0, first - j step)."""
    terms = jnp.clip(ceil_div(first, step), 0, limit)
    return terms * first - step * terms * (terms - 1) / 2


def block_rows(op: Any, first: Scalar | float, count: Scalar) -> Scalar:
    """In-bounds input rows for `count` output rows of one image, starting at output row `first`. Exact.

    More than one image's worth (`count` > out_h) must be whole images.
    """
    window = _window(op)
    rows = jnp.minimum(count, op.out_h)
    above = jnp.maximum(0.0, op.pad_top - first * op.stride_h)
    below = jnp.maximum(0.0, (first + rows - 1) * op.stride_h + window.height - op.pad_top - op.in_h)
    return jnp.maximum(1.0, nearest_whole(count / op.out_h)) * ((rows - 1) * window.added + window.height - above - below)


def _moved(op: Any, window: _Window, rows: Scalar) -> Scalar:
    """In-bounds input rows of all L3 blocks of `rows` output rows (of an image at most)."""
    per_block = jnp.clip(rows, 1, op.out_h)
    blocks = ceil_div(op.out_h, per_block)
    last = op.out_h - (blocks - 1) * per_block
    step = per_block * op.stride_h
    lost_above = _series(op.pad_top, step, blocks)
    lost_below = window.below + _series(jnp.maximum(0.0, window.below - last * op.stride_h), step, blocks - 1)
    return op.images * (window.added * op.out_h + blocks * (window.height - window.added) - lost_above - lost_below)


def _reserved(op: Any, window: _Window, rows: Scalar) -> Scalar:
    inner = jnp.minimum((jnp.minimum(rows, op.out_h) - 1) * window.added + window.height, op.in_h)
    return jnp.maximum(1.0, jnp.minimum(nearest_whole(rows / op.out_h), op.images)) * inner


def count_rows(op: Any, l3_m: Scalar, first_m: Scalar) -> InputRows:
    """Input rows of `op` with L3 tiles of `l3_m` elements along M, of which the first block has `first_m`."""
    window, rows = _window(op), jnp.round(l3_m / op.out_w)
    width = jnp.maximum(op.out_w, 1)
    whole, first = (block_rows(op, 0.0, ceil_div(size, width)) for size in (op.m, first_m))
    return InputRows(whole, first, _moved(op, window, rows), _reserved(op, window, rows))
