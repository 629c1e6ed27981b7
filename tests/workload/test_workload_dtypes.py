"""Number formats: names, aliases, codes, accumulators."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.workload import FORMATS, MAC_FORMATS, common_mac, default_accumulator, parse_dtype


def test_codes_are_positions():
    assert [f.code for f in FORMATS] == list(range(len(FORMATS)))
    assert {f.mac for f in FORMATS} == set(MAC_FORMATS)


@pytest.mark.parametrize(
    ("given", "name", "bits"),
    [
        ("int4", "int4", 4),
        ("fp8_e4m3", "fp8", 8),
        ("float8_e4m3fn", "fp8", 8),
        ("float16", "fp16", 16),
        ("bfloat16", "bf16", 16),
        ("float32", "fp32", 32),
        (np.int8, "int8", 8),
        (np.dtype("int16"), "int16", 16),
        (jnp.int32, "int32", 32),
        (jnp.bfloat16, "bf16", 16),
        (jnp.zeros(1, jnp.float32).dtype, "fp32", 32),
        (ml_dtypes.float8_e4m3fn, "fp8", 8),
        (ml_dtypes.float8_e5m2, "fp8_e5m2", 8),
        (ml_dtypes.float4_e2m1fn, "fp4", 4),
        (ml_dtypes.int4, "int4", 4),
    ],
)
def test_parse(given, name, bits):
    fmt = parse_dtype("dtype", given)
    assert (fmt.name, fmt.bits) == (name, bits)
    assert parse_dtype("dtype", fmt) is fmt


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("float64", "widest format is fp32"),
        (np.float64, "'float64' is not a number format"),
        (float, "widest format is fp32"),
        ("int9", "did you mean 'int"),
        (np.uint8, "did you mean 'int8'"),
        (np.complex64, "not a number format"),
        (bool, "not a number format"),
        (None, "x.dtype = None"),
        (8, "x.dtype = 8"),
        ([], "not a number format"),
    ],
)
def test_rejects(given, match):
    with pytest.raises(KPUError, match=match):
        parse_dtype("x.dtype", given)


def test_accumulators():
    assert {f.name: default_accumulator(f).name for f in FORMATS} == {
        f.name: "fp32" if f.is_float else "int32" for f in FORMATS
    }


@pytest.mark.parametrize(
    ("a", "b", "mac"),
    [
        ("int8", "int4", "int8"),
        ("int4", "int8", "int8"),
        ("fp8", "fp8_e5m2", "fp8"),
        ("int8", "fp8", "fp8"),
        ("int16", "fp8", "fp16"),
        ("bf16", "int8", "bf16"),
        ("fp32", "fp16", "fp32"),
    ],
)
def test_mixed_operands_use_the_wider_multiplier(a, b, mac):
    assert MAC_FORMATS[common_mac(parse_dtype("a", a), parse_dtype("b", b))] == mac
