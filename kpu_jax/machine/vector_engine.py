"""The vector engine on the output path: scale, activation and rounding of what leaves the fabric, and quantisation.

It computes in fp32, but integers that are only clipped (no activation, or ReLU) and not scaled stay integers. GELU is
its tanh form (Hendrycks and Gimpel, arXiv:1606.08415, section 2); leaky ReLU has the slope 0.01.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.errors import QuantisationError, shown
from kpu_jax.base.pytree import is_traced
from kpu_jax.machine.formats import convert, limits
from kpu_jax.workload.dtypes import NumberFormat
from kpu_jax.workload.op import ACTIVATIONS

LEAST_SCALE = 2.0**-126  # below it, float32 has no normal reciprocal

FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "none": lambda x: x,
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=True),
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.01),
}
assert tuple(FUNCTIONS) == ACTIVATIONS


def per_column(scale: Any, values: jax.Array) -> jax.Array:
    """A scale, a number or one per column, as float32 that `values` takes along its last axis."""
    step = jnp.asarray(scale, jnp.float32)
    return step.reshape((1,) * (values.ndim - 1) + step.shape) if step.ndim == 1 else step


def activated(acc: jax.Array, activation: str, scale: Any = None) -> jax.Array:
    """Accumulators times `scale` (None: 1; a number or one per column), through the activation of that name.

    float32, or int32 for unscaled integers without activation or with ReLU. Differentiable where it is float32.
    """
    if scale is not None or activation not in ("none", "relu"):
        acc = acc.astype(jnp.float32)
    x = acc if scale is None else acc * per_column(scale, acc)
    return jnp.maximum(x, 0) if x.dtype == jnp.int32 and activation == "relu" else FUNCTIONS[activation](x)


def delivered(acc: jax.Array, activation: str, scale: Any, fmt: NumberFormat, c_scale: Any = None) -> jax.Array:
    """What the vector engine makes of complete accumulators: `activated`, divided by `c_scale` (None: 1), in format `fmt`."""
    return quantise(activated(acc, activation, scale), fmt, c_scale)


def quantise(x: Any, fmt: NumberFormat, scale: Any = None) -> jax.Array:
    """x / scale in `fmt`, rounded to nearest even and saturated (`formats`); x is multiplied by the scale's reciprocal.

    `scale`: a number, one per column, or None for 1 without a way through float32.
    """
    x = jnp.asarray(x)
    return convert(x if scale is None else x.astype(jnp.float32) * (1 / per_column(scale, x)), fmt)


def dequantise(q: jax.Array, scale: Any) -> jax.Array:
    """q scale in float32."""
    return q.astype(jnp.float32) * scale


@jax.custom_jvp
def _straight_through(x: jax.Array, rounded: jax.Array, inside: jax.Array) -> jax.Array:
    return rounded


@_straight_through.defjvp
def _straight_through_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return _straight_through(*primals), jnp.where(primals[2], tangents[0], 0.0)  # itself, for the second derivative


def rounded_to(x: jax.Array, fmt: NumberFormat, scale: Any = 1.0) -> jax.Array:
    """The value x / scale, quantised to `fmt`, as float32, with a straight-through gradient.

    Its derivative in x is 1 / scale where x / scale lies within the format's range, and 0 where it saturates
    (Bengio et al., arXiv:1308.3432; Hubara et al., arXiv:1609.07061); the scale counts as a constant.
    """
    low, high = limits(fmt)
    slack = 0.0 if fmt.name == "fp32" else high * 2.0**-20 if fmt.is_float else 0.5  # the largest over its own scale is inside
    ratio = x * (1 / jax.lax.stop_gradient(per_column(scale, x)))
    fixed = jax.lax.stop_gradient(ratio)
    return _straight_through(ratio, convert(fixed, fmt).astype(jnp.float32), (fixed >= low - slack) & (fixed <= high + slack))


def widest_scale(x: jax.Array, fmt: NumberFormat, k: int) -> jax.Array:
    """The least scale at which no element of `x` saturates, nor a sum of `k` products overflows int32.

    The largest magnitude over the format's (for integers at most sqrt((2^31 - 1) / k)), but no less than `LEAST_SCALE`;
    1 for zeros. Infinity and NaN have none: the scale is then no number either, and so is all that it multiplies.
    """
    steps = limits(fmt)[1] if fmt.is_float else min(limits(fmt)[1], math.isqrt((2**31 - 1) // k))
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), initial=0.0))
    return jnp.where(largest == 0, 1.0, jnp.maximum(largest / steps, LEAST_SCALE)).astype(jnp.float32)


def are_scales(values: Any) -> np.ndarray:
    """Which elements are positive and finite, as their reciprocals are."""
    with np.errstate(over="ignore"):
        steps = np.asarray(values, np.float32)  # what the engine multiplies by, or by the reciprocal of
    return (steps >= LEAST_SCALE) & (steps <= 1 / LEAST_SCALE)


def check_scale(field: str, scale: Any) -> None:
    """`QuantisationError` naming `field` unless every element of `scale` is positive and finite, as its reciprocal is.

    Traced ones pass.
    """
    if is_traced(scale):
        return
    try:
        wrong = np.asarray(scale)[~are_scales(scale)]
    except (TypeError, ValueError):
        raise QuantisationError(f"{field} must be a positive number, or one per column, got {shown(scale)}") from None
    if wrong.size:
        raise QuantisationError(
            f"{field} must be positive and finite [value of one step], from {LEAST_SCALE:.3g} to {1 / LEAST_SCALE:.3g}, "
            f"got {wrong.flat[0]}; "
            "take the largest magnitude over the format's largest value"
        )
