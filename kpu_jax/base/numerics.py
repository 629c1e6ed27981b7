"""Integer arithmetic on traced floats: exact to the mantissa, with straight-through gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike


@jax.custom_jvp
def ceil(x: ArrayLike) -> jax.Array:
    """Ceiling whose derivative is 1 (straight-through), so that a count has a usable slope."""
    return jnp.ceil(x)


@ceil.defjvp
def _ceil_jvp(primals, tangents):
    return jnp.ceil(primals[0]), tangents[0]


@jax.custom_jvp
def floor(x: ArrayLike) -> jax.Array:
    """Floor whose derivative is 1 (straight-through)."""
    return jnp.floor(x)


@floor.defjvp
def _floor_jvp(primals, tangents):
    return jnp.floor(primals[0]), tangents[0]


def ceil_div(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """ceil(a / b). Exact for integers as long as a fits the mantissa (2^53 in float64, 2^24 in float32)."""
    return ceil(jnp.divide(a, b))


def floor_div(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """floor(a / b). Exact for integers as long as a fits the mantissa."""
    return floor(jnp.divide(a, b))
