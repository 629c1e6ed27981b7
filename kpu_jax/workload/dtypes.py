"""Number formats of the operands: names, stable codes, widths, accumulators and the MAC that multiplies them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, nearest, shown

MAC_FORMATS: tuple[str, ...] = ("int4", "int8", "int16", "int32", "fp4", "fp8", "fp16", "bf16", "fp32")
"""Order of the per-format energy table [pJ/MAC]; `Op.mac_format` is an index into it."""


@dataclasses.dataclass(frozen=True)
class NumberFormat:
    """One number format: public `name`, stable integer `code`, storage `bits`, and its MAC's name."""

    name: str
    code: int
    bits: int
    is_float: bool
    mac: str

    @property
    def mac_format(self) -> int:
        """Index into `MAC_FORMATS`."""
        return MAC_FORMATS.index(self.mac)


FORMATS: tuple[NumberFormat, ...] = (
    NumberFormat("int4", 0, 4, False, "int4"),
    NumberFormat("int8", 1, 8, False, "int8"),
    NumberFormat("int16", 2, 16, False, "int16"),
    NumberFormat("int32", 3, 32, False, "int32"),
    NumberFormat("fp4", 4, 4, True, "fp4"),
    NumberFormat("fp8", 5, 8, True, "fp8"),
    NumberFormat("fp8_e5m2", 6, 8, True, "fp8"),
    NumberFormat("fp16", 7, 16, True, "fp16"),
    NumberFormat("bf16", 8, 16, True, "bf16"),
    NumberFormat("fp32", 9, 32, True, "fp32"),
)
"""All formats, at the position of their code. fp4 is E2M1, fp8 is E4M3 (OCP, finite only)."""

ALIASES: dict[str, str] = {
    "fp4_e2m1": "fp4",
    "float4_e2m1fn": "fp4",
    "fp8_e4m3": "fp8",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8_e5m2",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
}

_BY_NAME = {f.name: f for f in FORMATS}
_BY_NAME.update({alias: _BY_NAME[name] for alias, name in ALIASES.items()})


def parse_dtype(field: str, value: Any) -> NumberFormat:
    """The format that `value` names: one of our names or aliases, a NumPy or JAX dtype, or a `NumberFormat`.

    Raises `KPUError` naming `field` for anything else (float64, unsigned, complex, misspelt names).
    """
    if isinstance(value, NumberFormat):
        return value
    name = value if isinstance(value, str) else _dtype_name(value)
    if name in _BY_NAME:
        return _BY_NAME[name]
    remedy = "; the widest format is fp32" if name in ("float64", "int64", "double", "fp64") else ""
    given = shown(value if name is None else name)
    raise KPUError(f"{field} = {given} is not a number format of the KPU{remedy}: {nearest(name, _BY_NAME)}")


def _dtype_name(value: Any) -> str | None:
    if not isinstance(value, (type, np.dtype)):
        return None
    try:
        return np.dtype(value).name
    except TypeError:
        return None


def default_accumulator(fmt: NumberFormat | str) -> NumberFormat:
    """Where products are summed: int32 for integers, fp32 for floats."""
    return _BY_NAME["fp32" if parse_dtype("dtype", fmt).is_float else "int32"]


def common_mac(a: NumberFormat, b: NumberFormat) -> int:
    """Index into `MAC_FORMATS` of the multiplier for operands `a` and `b`: the wider one's.

    An integer times a float runs on the float multiplier of the wider width (int16 x fp8 on fp16).
    """
    wide = max(a, b, key=lambda f: (f.bits, f.is_float, f.code))
    if wide.is_float or not (a.is_float or b.is_float):
        return wide.mac_format
    return MAC_FORMATS.index(f"fp{wide.bits}")
