"""How many multiply-adds a PE does per cycle for an operation."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from kpu_jax.hardware import derived


def rate_of(cfg: Any, op: Any) -> Any:
    """Multiply-adds of a PE per cycle for this operation: set by the wider of A and B.

    Vector operations do none; the operands of one of their elements may have more than 32 bits together.
    """
    return derived.macs_per_pe(cfg, jnp.clip(jnp.maximum(op.a_bits, op.b_bits), 1.0, 32.0))
