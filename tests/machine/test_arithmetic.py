"""The PE's multiply-add: fused, rounded once, wherever it is computed; integers that wrap around."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_model import fused, nearest_float32, wrapped

from kpu_jax.base.errors import DtypeError
from kpu_jax.machine import arithmetic as pe
from kpu_jax.machine.arithmetic import arithmetic, fused_multiply_add
from kpu_jax.workload.dtypes import parse_dtype


def triples(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Operands and addends of all relative sizes; a quarter cancel, a quarter lie near a rounding boundary."""
    rng = np.random.default_rng(5)
    a, b = ((rng.standard_normal(count) * 2.0 ** rng.integers(-8, 9, count)).astype(np.float32) for _ in range(2))
    c = (rng.standard_normal(count) * 2.0 ** rng.integers(-30, 31, count)).astype(np.float32)
    quarter = count // 4
    c[:quarter] = -(a * b)[:quarter]
    a[quarter : 2 * quarter] = np.round(a[quarter : 2 * quarter] * 8) / 8
    b[quarter : 2 * quarter] = 2.0 ** rng.integers(-30, 1, quarter)
    return a, b, c


def scanned(a, b, c):
    return jax.lax.scan(lambda s, x: (s, fused_multiply_add(*x)), 0, (a, b, c))[1]


def looped(a, b, c):
    return jax.lax.fori_loop(0, len(a), lambda i, out: out.at[i].set(fused_multiply_add(a[i], b[i], c[i])), jnp.zeros_like(a))


WAYS = {
    "jit": jax.jit(fused_multiply_add),
    "vmap": jax.jit(jax.vmap(fused_multiply_add)),
    "scan": jax.jit(scanned),
    "loop": jax.jit(looped),
    "by hand": lambda *x: pe.fused_by_hand(*map(jnp.asarray, x)),
    "by hand, jit": jax.jit(pe.fused_by_hand),
    "by hand, vmap": jax.jit(jax.vmap(pe.fused_by_hand)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_multiply_add_is_rounded_once(way):
    a, b, c = triples(4000)
    exact = np.array([fused(float(z), float(x), float(y)) for x, y, z in zip(a, b, c, strict=True)], np.float32)
    np.testing.assert_array_equal(np.asarray(WAYS[way](a, b, c)), exact)
    assert (a * b + c != exact).mean() > 0.1, "the operands tell fused from unfused"


def test_without_jit_it_is_done_by_hand():
    a, b, c = triples(100)
    with jax.disable_jit():
        eager = np.asarray(fused_multiply_add(*map(jnp.asarray, (a, b, c))))
    np.testing.assert_array_equal(eager, np.asarray(WAYS["jit"](a, b, c)))


def test_by_hand_keeps_infinities_nans_and_slopes():
    a, b, c = (jnp.asarray(x, jnp.float32) for x in ([np.inf, 3e38, np.nan, np.inf, 0], [1, 10, 1, 0, 5], [0, 0, 0, 0, 0]))
    np.testing.assert_array_equal(pe.fused_by_hand(a, b, c), [np.inf, np.inf, np.nan, np.nan, 0])
    slopes = jax.grad(lambda *x: pe.fused_by_hand(*x), argnums=(0, 1, 2))(jnp.float32(2), jnp.float32(3), jnp.float32(4))
    assert [float(s) for s in slopes] == [3, 2, 1]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_short_chains_from_nothing_are_fused_too(count):
    """XLA drops the zero of a first sum and inlines loops of one turn; then the first product would be the one contracted."""
    how = arithmetic(parse_dtype("", "fp32"), parse_dtype("", "fp32"))
    rng = np.random.default_rng(count)
    a, b = (rng.standard_normal((count, 500)).astype(np.float32) for _ in range(2))

    @jax.jit
    def chain(a, b):
        acc = how.zeros((500,))
        for k in range(count):
            acc = how.multiply_add(acc, a[k], b[k])
        return acc

    expected = np.zeros(500, np.float32)
    for k in range(count):
        expected = np.array([fused(float(s), float(x), float(y)) for s, x, y in zip(expected, a[k], b[k], strict=True)], np.float32)
    np.testing.assert_array_equal(chain(a, b), expected)


@pytest.mark.parametrize(("name", "bits"), [("int32", 32), ("int16", 16), ("int8", 8), ("int4", 4)])
def test_integers_wrap_around(name, bits):
    fmt = parse_dtype("", name)
    how = arithmetic(parse_dtype("", "int32"), parse_dtype("", "int32"), fmt)
    rng = np.random.default_rng(bits)
    acc, a, b = (rng.integers(-(2**31), 2**31, 1000) for _ in range(3))
    acc = np.array([wrapped(bits)(int(x)) for x in acc])
    got = jax.jit(how.multiply_add)(*(jnp.asarray(x.astype(np.int32)) for x in (acc, a, b)))
    assert [int(x) for x in got] == [wrapped(bits)(int(s) + int(x) * int(y)) for s, x, y in zip(acc, a, b, strict=True)]


def test_narrow_float_accumulators_round_every_step():
    how = arithmetic(parse_dtype("", "fp16"), parse_dtype("", "fp16"), parse_dtype("", "bf16"))
    got = jax.jit(how.multiply_add)(jnp.float32(256), jnp.float32(1), jnp.float32(1))
    assert got == 256, "257 needs nine bits, bfloat16 has eight"


def test_float_operands_need_a_float_accumulator():
    with pytest.raises(DtypeError, match="int32 cannot hold products of fp8 and int8"):
        arithmetic(*(parse_dtype("", name) for name in ("fp8", "int8", "int32")))


def test_the_oracle_rounds_ties_to_even():
    assert nearest_float32(Fraction(2**24 + 1)) == 2**24 and nearest_float32(Fraction(2**24 + 3)) == 2**24 + 4
    assert nearest_float32(-Fraction(1, 3)) == float(np.float32(-1 / 3))
