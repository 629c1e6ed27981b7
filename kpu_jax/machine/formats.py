"""Number formats as arrays hold them: storage types, ranges, and conversion with rounding and saturation.

Conversions round to nearest, ties to even. Integers, fp8 and fp4 saturate at their largest finite value (the OCP
saturating mode); fp16 and bf16 overflow to infinity, as IEEE 754 has it. NaN becomes 0 where a format has none.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.errors import DtypeError, KPUError, shown
from kpu_jax.workload.dtypes import FORMATS, NumberFormat, parse_dtype

_STORAGE = {
    "int4": jnp.int4, "int8": jnp.int8, "int16": jnp.int16, "int32": jnp.int32,
    "fp4": jnp.float4_e2m1fn, "fp8": jnp.float8_e4m3fn, "fp8_e5m2": jnp.float8_e5m2,
    "fp16": jnp.float16, "bf16": jnp.bfloat16, "fp32": jnp.float32,
}  # fmt: skip
SATURATING = ("fp4", "fp8", "fp8_e5m2")


def storage(fmt: NumberFormat) -> np.dtype:
    """The NumPy type (`ml_dtypes` for the narrow ones) whose elements are values of `fmt`."""
    return np.dtype(_STORAGE[fmt.name])


def number_format(field: str, value: Any) -> NumberFormat:
    """The format that a name or dtype stands for; `DtypeError` naming `field` for any other."""
    try:
        return parse_dtype(field, value)
    except KPUError as error:
        raise DtypeError(str(error)) from None


def is_format(dtype: Any) -> bool:
    """Does an array of this type hold numbers of a KPU format?"""
    return np.dtype(dtype) in map(np.dtype, _STORAGE.values())


def format_of(field: str, array: Any) -> NumberFormat:
    """The format of an array's elements; `DtypeError` naming `field` for types that the KPU does not have."""
    return number_format(f"{field}.dtype", np.dtype(array.dtype))


def format_with_bits(bits: float, like: NumberFormat) -> NumberFormat:
    """The format of `bits` in the family of `like`: `like` itself if it is as wide, else the first of that width."""
    if like.bits == bits:
        return like
    return next(f for f in FORMATS if f.bits == bits and f.is_float == like.is_float)


def as_array(field: str, value: Any) -> Any:
    """`value` as an array, jax's own as they are; `DtypeError` naming `field` for what is none."""
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.extended):
            raise DtypeError(f"{field} must be an array of numbers, got one of {value.dtype}")
        return value
    try:
        return np.asarray(value)  # a plain one: a matrix, say, has rules of its own
    except (TypeError, ValueError):
        raise DtypeError(f"{field} must be an array of numbers, got {shown(value)}") from None


def limits(fmt: NumberFormat) -> tuple[float, float]:
    """Least and greatest finite value."""
    info: Any = jnp.finfo(storage(fmt)) if fmt.is_float else jnp.iinfo(storage(fmt))
    return float(info.min), float(info.max)


def convert(x: jax.Array, fmt: NumberFormat) -> jax.Array:
    """`x` (float32 or int32) in `fmt`, rounded to nearest even and saturated as the module says. Traceable."""
    dtype = storage(fmt)
    if fmt.is_float:
        x = x.astype(jnp.float32)
        if fmt.name in SATURATING:
            low, high = limits(fmt)
            x = jnp.clip(x, low, high)
        if fmt.name == "fp4":
            x = jnp.where(jnp.isnan(x), 0.0, x)
        return x.astype(dtype)
    info = jnp.iinfo(dtype)
    if jnp.issubdtype(x.dtype, jnp.floating):
        x = jnp.rint(jnp.where(jnp.isnan(x), 0.0, x))
        below = jnp.nextafter(jnp.float32(info.max), jnp.float32(0)) if fmt.name == "int32" else jnp.float32(info.max)
        whole = jnp.clip(x, float(info.min), below).astype(jnp.int32)  # float32 has no 2^31 - 1
        return jnp.where(x >= float(info.max), info.max, whole).astype(dtype)
    return jnp.clip(x, int(info.min), int(info.max)).astype(dtype)
