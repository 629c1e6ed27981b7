"""Passes of all compute tiles at once: stepped cycle by cycle, or by the tile path, with the same numbers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.machine.arithmetic import Arithmetic
from kpu_jax.machine.grid import INPUT_STATIONARY, OUTPUT_STATIONARY, step_pass
from kpu_jax.machine.tile_path import chain

FABRICS = ("stepped", "tiles")


class Fabric(NamedTuple):
    """The arrays of a chip: their shape, the multiply-adds of a PE per cycle, and how they compute."""

    how: Arithmetic
    dataflow: int
    rows: int
    cols: int
    rate: int
    stepped: bool


class Pass(NamedTuple):
    """One compute tile's part of a pass."""

    a: np.ndarray  # [m, k]
    b: np.ndarray  # [k, n]
    acc: np.ndarray | None  # [m, n] partial sums to begin with (output-stationary), None: nothing


class Done(NamedTuple):
    """What a pass of all tiles gave."""

    sums: list[np.ndarray]  # per tile [m, n]
    fired: np.ndarray  # [rows, cols] multiply-adds of each PE, all tiles together
    switched: np.ndarray  # [rows, cols] those of two operands other than zero
    cycles: int  # that the arrays were held


def run_pass(fabric: Fabric, tiles: Sequence[Pass]) -> Done:
    """One pass on every compute tile. Blocks are padded to few sizes, so that few versions are compiled."""
    rows, deep, cols = fabric.rows, fabric.rows * fabric.rate, fabric.cols
    extents = np.array([(t.a.shape[0], t.b.shape[1], t.a.shape[1]) for t in tiles], np.int32)
    most = extents.max(axis=0)
    if fabric.dataflow == OUTPUT_STATIONARY:
        m, n, k = rows, cols, fabric.rate * _bucket(-(-most[2] // fabric.rate))
    elif fabric.dataflow == INPUT_STATIONARY:
        m, n, k = cols, _bucket(most[1]), deep
    else:
        m, n, k = _bucket(most[0]), cols, deep
    count = _bucket(len(tiles), base=8, least=8)
    a, b, acc = (np.zeros((count, *shape), fabric.how.dtype) for shape in ((m, k), (k, n), (m, n)))
    for i, tile in enumerate(tiles):
        a[i, : tile.a.shape[0], : tile.a.shape[1]] = tile.a
        b[i, : tile.b.shape[0], : tile.b.shape[1]] = tile.b
        if tile.acc is not None:
            acc[i, : tile.acc.shape[0], : tile.acc.shape[1]] = tile.acc
    padded = np.zeros((count, 3), np.int32)
    padded[: len(tiles)] = extents
    sums, fired, switched, cycles = jax.tree.map(np.asarray, _passes(fabric, a, b, acc, padded))
    parts = [s[:height, :width] for s, (height, width, _) in zip(sums, extents, strict=False)]
    return Done(parts, fired, switched, int(cycles))


def _bucket(size: int, base: int = 4, least: int = 16) -> int:
    """The least of least, least base, least base^2 ... that is no smaller than `size`."""
    while least < size:
        least *= base
    return least


@functools.partial(jax.jit, static_argnums=0)
def _passes(fabric: Fabric, a: jax.Array, b: jax.Array, acc: jax.Array, extents: jax.Array) -> Any:
    """(sums, multiply-adds and switching ones by PE, cycles) of all tiles."""
    how, flow = fabric.how, fabric.dataflow
    if fabric.stepped:
        sums, activity = jax.vmap(functools.partial(step_pass, how, flow, fabric.rate))(a, b, acc, extents)
        return sums, activity.fired.sum((0, 1)), activity.switched.sum((0, 1)), activity.cycles.max()

    def tile(a: jax.Array, b: jax.Array, acc: jax.Array, extents: jax.Array) -> jax.Array:
        start = acc if flow == OUTPUT_STATIONARY else how.zeros(acc.shape)
        return chain(how, start, a.T, b, extents[2])

    none = jnp.zeros((fabric.rows, fabric.cols), jnp.int32)
    return jax.vmap(tile)(a, b, acc, extents), none, none, 0


def elementwise(function: Any, *arrays: np.ndarray) -> np.ndarray:
    """A compiled element-wise function of arrays of one shape, padded to few sizes."""
    shape, size = arrays[0].shape, arrays[0].size
    flat = [np.pad(x.ravel(), (0, _bucket(size, least=64) - size)) for x in arrays]
    return np.asarray(_compiled(function)(*flat))[:size].reshape(shape)


@functools.cache
def _compiled(function: Any) -> Any:
    return jax.jit(function)
