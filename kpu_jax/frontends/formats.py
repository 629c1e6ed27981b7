"""JAX's dtypes as the chip stores and multiplies them."""

from __future__ import annotations

from typing import Any

from kpu_jax.workload.dtypes import NumberFormat, parse_dtype

_WIDTHS = {
    **{"bool": 8, "token": 0, "float0": 0, "int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "bfloat16": 16},
    **{f"{kind}{bits}": bits for kind in ("int", "uint", "float", "complex") for bits in (8, 16, 32, 64, 128)},
}
_FORMATS = {"bool": "int8", "int2": "int4", "uint2": "int4", "uint4": "int4", "float8_e4m3": "fp8", "float8_e5m2": "fp8_e5m2"}
_FORMATS |= {f"{sign}int{bits}": f"int{bits}" for sign in ("", "u") for bits in (4, 8, 16, 32)}
_FORMATS |= {"float4_e2m1fn": "fp4", "float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}


class Formats:
    """Number formats of a traced function; `override` takes the place of every floating-point dtype."""

    def __init__(self, override: Any = None) -> None:
        self._override = None if override is None else parse_dtype("dtype", override)

    def bits(self, dtype: str) -> float:
        """Stored bits per element: 8 for a boolean, 64 for a random key."""
        if self._override is not None and _is_float(dtype):
            return self._override.bits
        if dtype.startswith("float8"):
            return 8
        if dtype.startswith("float4"):
            return 4
        return 64 if dtype.startswith("key<") else _WIDTHS.get(dtype, 32)

    def format(self, dtype: str) -> NumberFormat | None:
        """The format whose multiplier takes this dtype, None if the chip has none (float64, int64, complex)."""
        if self._override is not None and _is_float(dtype):
            return self._override
        if dtype.startswith("float8") and dtype not in _FORMATS:
            return parse_dtype("dtype", "fp8_e5m2" if "e5m2" in dtype else "fp8")
        return parse_dtype("dtype", _FORMATS[dtype]) if dtype in _FORMATS else None

    def runs_on_vector_engine(self, dtype: str) -> bool:
        """False for float64 and complex numbers; 64-bit integers and random keys are two words of 32 bits."""
        return self._override is not None and _is_float(dtype) or dtype != "float64" and not dtype.startswith("complex")


def _is_float(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat")) and dtype != "float0"
