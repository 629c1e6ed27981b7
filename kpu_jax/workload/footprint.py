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
    xp = jnp if isinstance(op.a_bits, jax.Array) or isinstance(op.density_a, jax.Array) else np

    def stored(bits: Any, density: Any) -> Any:
        sparse = density * (bits + BLOCK_INDEX_BITS / BLOCK_ELEMENTS) / 8
        return xp.where(density < 1, sparse, bits / 8)

    return stored(op.a_bits, op.density_a), stored(op.b_bits, op.density_b), op.c_bits / 8, op.acc_bits / 8


def vector_primitives(op: Any) -> Any:
    """Primitive operations per element of a vector operation; traceable."""
    xp = jnp if isinstance(op.activation, jax.Array) else np
    return op.vector_simple + op.vector_exp + op.vector_div + op.vector_sqrt + xp.where(op.activation > 0, 1.0, 0.0)
