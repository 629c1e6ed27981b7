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


@jax.custom_jvp
def nearest_whole(x: ArrayLike) -> jax.Array:
    """x rounded to the nearest integer, with derivative 1: for quotients that are whole by construction."""
    return jnp.round(x)


@nearest_whole.defjvp
def _nearest_whole_jvp(primals, tangents):
    return jnp.round(primals[0]), tangents[0]


# A quotient may be off by a rounding: XLA divides by a broadcast value by multiplying with its reciprocal, and
# GPUs divide float32 to two units in the last place. That is less than a half, so the nearest integer is the floor
# or the ceiling of the true quotient (or itself, if whole), and one multiplication, which is exact, tells which.


def ceil_div(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """ceil(a / b). Exact for integers as long as a fits the mantissa (2^53 in float64, 2^24 in float32)."""
    nearest = nearest_whole(jnp.divide(a, b))
    return nearest + (nearest * b < a)


def floor_div(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """floor(a / b). Exact for integers as long as a fits the mantissa."""
    nearest = nearest_whole(jnp.divide(a, b))
    return nearest - (nearest * b > a)
