"""Tables of operations padded to common lengths, so that networks padded alike share compiled kernels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.pytree import build
from kpu_jax.workload.gemm import Gemm
from kpu_jax.workload.op import Op, leaves

LENGTHS = (1, 4, 8, 16, 24, *(int(step * 2**k) for k in range(5, 31) for step in (1, 1.5)))


def padded_length(rows: int) -> int:
    """The next of `LENGTHS`: 1, 4, 8, 16, 24, 32, 48, 64, 96, ..."""
    return next(length for length in LENGTHS if length >= rows)


def pad_rows(ops: Op, length: int | None = None) -> Op:
    """A table of operations (leaves [row]) with 1 x 1 x 1 GEMMs of count 0 appended, up to `length` or `padded_length`."""
    rows = len(ops.m)
    missing = (padded_length(rows) if length is None else length) - rows
    if missing <= 0:
        return ops
    blank = {**leaves(Gemm(1, 1, 1)), "count": np.float64(0.0)}
    out = {}
    for name, leaf in leaves(ops).items():
        xp = jnp if isinstance(leaf, jax.Array) else np
        out[name] = xp.concatenate([leaf, xp.full(missing, blank[name], leaf.dtype)])
    return build(Op, **out)


def repeat_last(tree: Any, length: int) -> Any:
    """NumPy leaves [row] with the last row repeated up to `length`: what goes with operations that `pad_rows` appended."""
    return jax.tree.map(lambda v: np.pad(v, (0, length - len(v)), mode="edge"), tree)
