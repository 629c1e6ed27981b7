"""Integer division on floats: exact whatever XLA makes of the quotient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kpu_jax.base.numerics import ceil_div, floor_div, nearest_whole


@pytest.mark.parametrize("x64", [False, True])
def test_exact_when_the_divisor_is_broadcast(x64):
    """XLA multiplies by the reciprocal of a broadcast divisor, which is off by a rounding for 49, 98, 103, ..."""
    b = np.arange(1, 700)
    times = np.arange(0, 60)
    a = np.unique(np.concatenate([b[:, None] * times + d for d in (-1, 0, 1)], axis=1).clip(0), axis=1)
    with jax.enable_x64(x64):
        by_row = jax.jit(jax.vmap(lambda a, b: (ceil_div(a, b), floor_div(a, b))))
        up, down = by_row(jnp.asarray(a, float), jnp.asarray(b, float))
    np.testing.assert_array_equal(up, -(-a // b[:, None]))
    np.testing.assert_array_equal(down, a // b[:, None])


def test_gradients_pass_straight_through():
    with jax.enable_x64(True):
        for f in (ceil_div, floor_div):
            assert jax.grad(f, argnums=(0, 1))(7.0, 2.0) == (0.5, -7.0 / 4)
        assert jax.grad(nearest_whole)(2.4) == 1.0
