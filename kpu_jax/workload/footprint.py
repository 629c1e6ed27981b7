"""Bytes that an element of each operand occupies in the memories."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BLOCK_ELEMENTS = 64  # block-sparse storage: 8 x 8 blocks
BLOCK_INDEX_BITS = 16  # one index per stored block


def element_bytes(op: Any) -> tuple[Any, Any, Any, Any]:
    """Bytes per element of A, B, C and of the accumulator [byte], traceable.

    Dense elements take bits / 8. With a density d < 1 only the stored 8 x 8 blocks and their 16-bit
    indices move: d (bits + 16/64) / 8 per element of the dense matrix, on average.
    """
    xp = jnp if any(isinstance(v, jax.Array) for v in (op.a_bits, op.b_bits, op.density_a, op.density_b)) else np

    def stored(bits: Any, density: Any) -> Any:
        sparse = density * (bits + BLOCK_INDEX_BITS / BLOCK_ELEMENTS) / 8
        return xp.where(density < 1, sparse, bits / 8)

    return stored(op.a_bits, op.density_a), stored(op.b_bits, op.density_b), op.c_bits / 8, op.acc_bits / 8


def operand_bytes(op: Any) -> tuple[Any, Any, Any]:
    """Bytes of the whole A (of a convolution its input), B and C (in its own dtype) per batch element [byte], traceable."""
    xp = jnp if isinstance(op.m, jax.Array) else np
    ea, eb, ec, _ = element_bytes(op)
    size_a = xp.where(op.kind == 1, op.images * op.in_h * op.in_w * op.channels, op.m * op.k)
    return size_a * ea, op.k * op.n * eb, op.m * op.n * ec
