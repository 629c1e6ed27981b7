"""Conversions between number formats: rounding and saturation against NumPy and ml_dtypes; quantisation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kpu_jax.base.errors import DtypeError, QuantisationError
from kpu_jax.machine import convert, dequantise, quantise
from kpu_jax.machine.formats import format_with_bits, limits, number_format, storage
from kpu_jax.machine.vector_engine import LEAST_SCALE, check_scale, rounded_to, widest_scale
from kpu_jax.workload.dtypes import FORMATS

FLOATS = [f for f in FORMATS if f.is_float]
INTEGERS = [f for f in FORMATS if not f.is_float]


def boundary_values(fmt) -> np.ndarray:
    """Every value of a narrow format (a sample of fp32's), every midpoint, and their neighbours in float32."""
    size = storage(fmt).itemsize
    codes = np.arange(16 if fmt.bits == 4 else 2 ** min(fmt.bits, 16), dtype={1: np.uint8, 2: np.uint16, 4: np.uint32}[size])
    with np.errstate(invalid="ignore"):
        values = np.sort(codes.view(storage(fmt)).astype(np.float64))
    values = values[np.isfinite(values)]
    points = np.concatenate([values, (values[1:] + values[:-1]) / 2]).astype(np.float32)
    beyond = np.array([np.inf, -np.inf, 1e30, -1e30], np.float32)
    near = np.concatenate([np.nextafter(points, np.float32(s)) for s in (-np.inf, np.inf)])
    out = np.concatenate([points, near, beyond])
    tiny = np.finfo(np.float32).tiny
    return out[(out == 0) | (np.abs(out) >= tiny)]  # back ends flush subnormal float32


@pytest.mark.parametrize("fmt", FLOATS, ids=lambda f: f.name)
def test_floats_round_to_nearest_even(fmt):
    x = boundary_values(fmt)
    top = limits(fmt)[1] if fmt.bits <= 8 else np.inf
    with np.errstate(over="ignore"):
        expected = np.clip(x, -top, top).astype(storage(fmt))
    got = np.asarray(jax.jit(lambda v: convert(v, fmt))(x))
    np.testing.assert_array_equal(got.astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("fmt", INTEGERS, ids=lambda f: f.name)
def test_integers_round_to_nearest_even_and_saturate(fmt):
    low, high = (int(v) for v in limits(fmt))
    halves = np.arange(-300, 300, dtype=np.float32) / 2
    x = np.concatenate([halves, np.array([1e30, -1e30, np.inf, -np.inf, 2.0**31, -(2.0**31), 2.0**31 - 128, high, low], np.float32)])
    expected = [min(max(int(np.rint(v)) if np.isfinite(v) else int(np.sign(v)) * 2**40, low), high) for v in x.astype(np.float64)]
    assert [int(v) for v in jax.jit(lambda v: convert(v, fmt))(x)] == expected
    whole = np.array([0, 1, -1, low, high, 2**31 - 1, -(2**31), 1000], np.int64).astype(np.int32)
    assert [int(v) for v in convert(jnp.asarray(whole), fmt)] == [min(max(int(v), low), high) for v in whole]


def test_nan_becomes_zero_where_there_is_none():
    for fmt in FORMATS:
        got = float(np.asarray(convert(jnp.float32(np.nan), fmt)).astype(np.float32))
        assert np.isnan(got) if fmt.is_float and fmt.bits > 4 else got == 0, fmt.name


@pytest.mark.parametrize("fmt", [f for f in FORMATS if f.bits <= (8 if f.is_float else 16)], ids=lambda f: f.name)
def test_quantising_and_back_is_within_half_a_step(fmt):
    x = np.random.default_rng(1).standard_normal(500).astype(np.float32)
    scale = widest_scale(jnp.asarray(x), fmt, 1)
    back = np.asarray(dequantise(quantise(x, fmt, scale), scale))
    step = float(scale) if not fmt.is_float else np.maximum(np.abs(x) * float(jnp.finfo(storage(fmt)).eps), float(scale) * 0.5)
    assert np.all(np.abs(back - x) <= 0.5001 * step)
    assert np.abs(quantise(x, fmt, scale).astype(np.float32)).max() == pytest.approx(limits(fmt)[1], rel=1e-2)


def test_default_scales_do_not_overflow_the_accumulator():
    x = jnp.linspace(-1.0, 1.0, 101)
    q = np.abs(np.asarray(quantise(x, number_format("", "int16"), widest_scale(x, number_format("", "int16"), 1000)))).max()
    assert 1000 * int(q) ** 2 < 2**31 <= 1000 * (int(q) + 1) ** 2
    assert widest_scale(jnp.zeros(3), number_format("", "int8"), 5) == 1
    tiny = jnp.array([3e-38, -1.5e-38], jnp.float32)  # a step of 2^-133 would have no reciprocal
    assert widest_scale(tiny, number_format("", "int8"), 5) == LEAST_SCALE
    for bad in (np.nan, np.inf):
        assert not np.isfinite(widest_scale(jnp.array([1.0, bad]), number_format("", "int8"), 5))


def test_rounding_has_a_straight_through_gradient():
    fmt = number_format("", "int8")
    slope = jax.grad(lambda x: rounded_to(x, fmt, 0.5).sum())(jnp.array([0.3, 63.5, 64.0, -64.2, -64.4]))
    np.testing.assert_array_equal(slope, [2, 2, 0, 2, 0])
    assert jax.grad(lambda s: rounded_to(jnp.float32(3), fmt, s))(0.5) == 0


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, [1.0, np.nan], "x", None])
def test_wrong_scales_are_named(scale):
    with pytest.raises(QuantisationError, match="a_scale"):
        check_scale("a_scale", scale)


def test_formats_by_name_and_width():
    with pytest.raises(DtypeError, match="float64"):
        number_format("A", "float64")
    for bits, like, name in ((16, "fp8", "fp16"), (8, "fp8_e5m2", "fp8_e5m2"), (8, "bf16", "fp8"), (4, "int32", "int4")):
        assert format_with_bits(bits, number_format("", like)).name == name
