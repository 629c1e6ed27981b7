"""The path for whole matrices: fused whatever the shape and whatever is compiled around it, within the error bound, in strips."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.machine import matmul, tile_path
from kpu_jax.machine.arithmetic import fused_by_hand

fused = jax.jit(fused_by_hand)


def one_chain(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A B, every element k after k in one chain of multiply-adds that are rounded by hand."""
    acc = np.zeros((*a.shape[:-1], b.shape[-1]), np.float32)
    for k in range(a.shape[-1]):
        acc = np.asarray(fused(np.broadcast_to(a[..., k, None], acc.shape), np.broadcast_to(b[..., k, None, :], acc.shape), acc))
    return acc


SHAPES = [(1, 1, 1), (1, 1, 2), (1, 1, 9), (1, 7, 2), (7, 1, 3), (1, 8, 1), (2, 3, 4), (8, 8, 8), (17, 3, 2), (3, 17, 9), (33, 65, 20)]


def operands(m: int, n: int, k: int, batch: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng((m, n, k, batch))
    return rng.standard_normal((batch, m, k)).astype(np.float32), rng.standard_normal((batch, k, n)).astype(np.float32)


@pytest.mark.parametrize("shape", [*SHAPES, *(pytest.param(s, marks=pytest.mark.long) for s in np.ndindex(9, 9, 9) if all(s))])
def test_every_sum_is_a_chain_of_fused_multiply_adds(shape):
    for batch in (1, 3):
        a, b = operands(*shape, batch)
        assert np.asarray(matmul(a, b)).tobytes() == one_chain(a, b).tobytes()


def test_it_is_fused_inside_other_compiled_functions():
    a, b = operands(6, 5, 7, 4)
    expected = one_chain(a, b)
    around = {
        "vmap": jax.jit(jax.vmap(lambda x, y: matmul(x, y))),
        "scan": jax.jit(lambda x, y: jax.lax.map(lambda v: matmul(v[0], v[1]), (x, y))),
        "product of sums": jax.jit(lambda x, y: matmul(x + 0 * y.sum(), y) * 1.0),
    }
    for name, function in around.items():
        assert np.asarray(function(a, b)).tobytes() == expected.tobytes(), name
    _, pulled = jax.vjp(lambda x: matmul(x, b), jnp.asarray(a))
    np.testing.assert_allclose(pulled(jnp.ones(expected.shape))[0], np.broadcast_to(b.sum(-1)[:, None, :], a.shape), rtol=1e-5)


def test_strips_of_rows_change_nothing(monkeypatch):
    a, b = operands(37, 10, 30)  # a shape of its own, so that it is compiled here
    monkeypatch.setattr(tile_path, "CACHED", 80)
    assert np.asarray(matmul(a, b)).tobytes() == one_chain(a, b).tobytes()


def test_it_is_within_the_error_bound_and_close_to_the_product():
    a, b = (x[0] for x in operands(40, 30, 500))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert (np.abs(np.asarray(matmul(a, b)) - exact) <= kpu.matmul_error_bound(a, b)).all()


def test_sums_that_vanish_keep_their_sign_as_the_stepped_grid_has_it():
    """No bias is not a bias of zero: -0 plus 0 is 0."""
    chip, op = kpu.presets.minimal(), kpu.Gemm(2, 3, 4, dtype="fp32")
    mapping = kpu.Mapping(l3_tile=(2, 3, 4), l2_tile=(2, 3, 4))
    a, b = (np.full(shape, 1e-30, np.float32) for shape in ((2, 4), (4, 3)))
    a[0] *= -1
    done = kpu.machine.run(kpu.program.build(chip, op, mapping), {"A": a, "B": b}).arrays["C"]
    assert np.signbit(done[0]).all() and not done.any()
    assert np.asarray(matmul(a, b)).tobytes() == done.tobytes()


def test_without_jit_the_numbers_are_the_same():
    a, b = operands(1, 2, 3)
    with jax.disable_jit():
        eager = np.asarray(matmul(a, b))
    assert eager.tobytes() == np.asarray(matmul(a, b)).tobytes()


def test_stricter_rules_of_promotion_change_nothing():
    a, b = (x[0] for x in operands(5, 6, 7))
    formats = {"dtype": "int8", "b_scale": np.full(6, 0.02), "c_dtype": "fp8", "c_scale": np.full(6, 0.5)}
    options = {"bias": a[0, :6], "activation": "leaky_relu", **formats}
    expected = np.asarray(matmul(a, b, **options))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert np.asarray(matmul(a, b, **options)).tobytes() == expected.tobytes()
        assert jax.grad(lambda x: matmul(x, b, **options).astype(jnp.float32).sum())(jnp.asarray(a)).shape == a.shape
        assert kpu.machine.wave(2, 2, 3, rows=2, cols=2).fired.sum() == 12
        assert kpu.machine.wave(3, 2, 2, rows=2, cols=2, dataflow="weight_stationary").fired.sum() == 12


def test_with_x64_the_numbers_are_the_same():
    a, b = operands(5, 6, 7)
    with jax.enable_x64(True):
        wide = matmul(jnp.asarray(a), jnp.asarray(b))
    assert wide.dtype == jnp.float32 and np.asarray(wide).tobytes() == np.asarray(matmul(a, b)).tobytes()
