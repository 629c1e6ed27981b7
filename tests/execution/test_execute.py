"""Functions run with their products on the machine give what JAX gives, up to the order of sums."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.base.errors import ClosedError, DtypeError
from kpu_jax.execution import machine_product, on_machine


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def close(found, wanted, rtol=2e-5):
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * np.max(np.abs(wanted)))


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("bij,bkj->bik", [(2, 3, 4), (2, 5, 4)]),
        ("ijk,kj->i", [(3, 4, 5), (5, 4)]),
        ("bhqd,bhkd->bhqk", [(2, 2, 3, 4), (2, 2, 5, 4)]),
        ("i,i->", [(7,), (7,)]),
        ("abc,dbe->adce", [(2, 3, 4), (5, 3, 2)]),
    ],
)
def test_products_of_any_dimension_numbers(spec, shapes):
    args = [normal(*s, seed=i) for i, s in enumerate(shapes)]
    fn = lambda *a: jnp.einsum(spec, *a)  # noqa: E731
    close(on_machine(fn, machine_product())(*args), fn(*args))


CONVOLUTIONS = {
    "strided and padded": dict(x=(2, 3, 9, 8), w=(4, 3, 3, 2), window_strides=(2, 1), padding=((1, 2), (0, 1))),
    "cropped": dict(x=(1, 2, 8, 8), w=(3, 2, 3, 3), window_strides=(1, 1), padding=((-1, 0), (0, -2))),
    "dilated": dict(x=(1, 2, 9, 9), w=(3, 2, 3, 3), window_strides=(1, 2), padding="VALID", rhs_dilation=(2, 3)),
    "transposed": dict(x=(2, 2, 4, 5), w=(3, 2, 3, 3), window_strides=(1, 1), padding=((2, 2), (2, 1)), lhs_dilation=(2, 3)),
    "groups": dict(x=(2, 6, 5, 5), w=(4, 3, 2, 2), window_strides=(1, 1), padding="SAME", feature_group_count=2),
    "depthwise": dict(x=(1, 4, 6, 6), w=(8, 1, 3, 3), window_strides=(1, 1), padding="SAME", feature_group_count=4),
    "batch groups": dict(x=(6, 2, 5, 5), w=(4, 2, 3, 3), window_strides=(1, 1), padding="VALID", batch_group_count=2),
    "one axis": dict(x=(2, 3, 11), w=(5, 3, 4), window_strides=(3,), padding="SAME"),
    "three axes": dict(x=(1, 2, 4, 5, 6), w=(3, 2, 2, 3, 2), window_strides=(1, 2, 1), padding="SAME"),
    "channels last": dict(
        x=(2, 7, 6, 3), w=(3, 3, 3, 4), window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_of_every_kind(name):
    options = dict(CONVOLUTIONS[name])
    x, w = normal(*options.pop("x")), normal(*options.pop("w"), seed=1)
    fn = lambda x, w: jax.lax.conv_general_dilated(x, w, **options)  # noqa: E731
    close(on_machine(fn, machine_product())(x, w), fn(x, w))


def test_rows_in_groups_multiply_the_matrix_of_their_group():
    a, b = normal(6, 8), normal(3, 8, 5)
    used = []

    def product(x, y, dtype):
        used.append((x.shape, y.shape))
        return machine_product()(x, y, dtype)

    for sizes in ([2, 1, 3], [0, 4, 1]):  # the second leaves a row without a group
        fn = lambda a, b, sizes=sizes: jax.lax.ragged_dot(a, b, jnp.array(sizes, jnp.int32))  # noqa: E731
        close(on_machine(fn, product)(a, b), fn(a, b))
    assert used == [((3, 6, 8), (3, 8, 5))] * 2


def layered(x, w, v):
    """Products in a jitted call, a scan, a while, a cond, a rematerialised call and a vmap."""
    x = jax.jit(lambda a: jax.nn.relu(a @ w))(x)
    x, sums = jax.lax.scan(lambda c, k: (jnp.tanh(c @ w.T @ w * k), c.sum()), x, jnp.array([0.1, 0.2, 0.3], jnp.float32))
    x = jax.lax.fori_loop(0, 2, lambda i, c: c @ (w.T @ w) * 0.1, x)
    x = jax.lax.cond(sums.sum() > 1e9, lambda c: c, lambda c: jnp.sin(c @ w.T @ w), x)
    x = jax.checkpoint(lambda c: jax.nn.gelu(c @ v))(x)
    return {"rows": jax.vmap(lambda row: row @ v.T)(x), "sums": sums}


def test_calls_loops_and_branches_run_from_within_under_jit_and_vmap():
    x, w, v = normal(5, 7), normal(7, 6) * 0.3, normal(6, 4)
    used = []
    product = machine_product()

    def counted(a, b, dtype):
        used.append(a.shape)
        return product(a, b, dtype)

    run = on_machine(layered, counted)
    wanted = layered(x, w, v)
    for found in (run(x, w, v), jax.jit(run)(x, w, v)):
        jax.tree.map(close, found, wanted)
    assert len(used) == 2 * 9, "every product, the bodies of loops once"
    batch = np.stack([x, 2 * x])
    stacked = jax.vmap(run, in_axes=(0, None, None))(batch, w, v)
    jax.tree.map(close, stacked, jax.vmap(layered, in_axes=(0, None, None))(batch, w, v))


def test_gradients_are_those_of_the_function():
    x, w, v = normal(5, 7), normal(7, 6) * 0.3, normal(6, 4)

    def loss(w, run):
        x_, (y, _) = x, jax.lax.scan(lambda c, _: (jnp.tanh(c @ w @ w.T), None), x, None, length=2)
        return jnp.sum(run(y, w) ** 2) + jnp.sum(x_)

    def plain(w):
        return loss(w, lambda y, w: jax.nn.gelu(y @ w) @ v)

    close(jax.grad(on_machine(plain, machine_product()))(w), jax.grad(plain)(w), rtol=1e-4)
    slope = jax.grad(on_machine(plain, machine_product("int8")))(w)
    assert np.all(np.isfinite(slope)) and np.corrcoef(slope.ravel(), jax.grad(plain)(w).ravel())[0, 1] > 0.95


def test_the_facade_returns_value_and_report():
    a, b = normal(20, 30), normal(30, 10)
    fn = lambda a, b: jax.nn.softmax(a @ b)  # noqa: E731
    with kpu.Simulator() as sim:
        value, report = sim.execute(fn)(a, b)
        close(value, fn(a, b))
        assert sim.report is report and float(report.macs) == 20 * 30 * 10 and np.isfinite(report.cycles)
        narrow, cheaper = sim.execute(fn, dtype="int8")(a, b)
        assert 0 < np.max(np.abs(narrow - value)) < 0.1 and cheaper.energy_pj < report.energy_pj
        layer = {"a": a, "activation": jax.nn.softmax}  # as modules hold their functions
        same, _ = sim.execute(lambda p, b, squash: p["activation"](p["a"] @ b) if squash else b)(layer, b, True)
        np.testing.assert_array_equal(same, value)
        with pytest.raises(kpu.KPUError, match=r"an argument holds \{1\}, which is neither an array nor hashable"):
            sim.execute(lambda a, b, unused: a @ b)(a, b, {1})
        with pytest.raises(DtypeError, match="int7"):
            sim.execute(fn, dtype="int7")
        run = sim.execute(fn)
    with pytest.raises(ClosedError):
        run(a, b)


def test_types_that_the_machine_lacks_are_left_to_jax():
    a = normal(4, 5).astype(np.complex64)
    found = on_machine(lambda a: a @ a.T, machine_product())(a)
    np.testing.assert_array_equal(found, jnp.asarray(a) @ a.T)
    ints = np.arange(12, dtype=np.int8).reshape(3, 4)
    exact = lambda a: jax.lax.dot(a, a.T, preferred_element_type=jnp.int32)  # noqa: E731
    np.testing.assert_array_equal(on_machine(exact, machine_product("int4"))(ints), exact(ints))
