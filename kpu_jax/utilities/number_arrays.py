"""Arrays in the chip's number formats: bytes as they lie in memory, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from kpu_jax.base.errors import MAX_DIMENSION, KPUError, check_number, shown
from kpu_jax.workload.dtypes import NumberFormat, parse_dtype

_DTYPES: dict[str, Any] = {
    "int4": ml_dtypes.int4,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "fp4": ml_dtypes.float4_e2m1fn,
    "fp8": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "fp32": np.float32,
}
ROUNDINGS = ("nearest", "exact")


def numpy_dtype(dtype: Any) -> np.dtype:
    """The NumPy (or ml_dtypes) dtype of one of the chip's formats."""
    return np.dtype(_DTYPES[parse_dtype("dtype", dtype).name])


def to_bytes(array: Any, dtype: Any, *, rounding: str = "nearest") -> np.ndarray:
    """The bytes [uint8] of `array` (NumPy, jax or torch; any shape, row-major) in the chip's format `dtype`.

    Little-endian; two 4-bit elements share a byte, the first in the low half, an odd last one beside a zero.
    `rounding`: "nearest" (ties to even, out of range saturates to the largest finite value of fp4, fp8 and the
    integers), or "exact", which refuses values that the format does not hold.

    Raises `KPUError` for no numbers, NaN in integers, and with "exact" for the first value that would change.
    """
    fmt = parse_dtype("dtype", dtype)
    if rounding not in ROUNDINGS:
        raise KPUError(f"rounding = {shown(rounding)} is unknown: valid: {', '.join(ROUNDINGS)}")
    values = _numpy(array)
    cast = _cast(values, fmt)
    if rounding == "exact":
        wide = np.asarray(values, np.float64)
        changed = (cast.astype(np.float64) != wide) & ~(np.isnan(wide) & np.isnan(cast.astype(np.float64)))
        if changed.any():
            raise KPUError(f"{shown(wide[changed].flat[0].item())} is no value of {fmt.name}; round with rounding='nearest'")
    flat = np.ascontiguousarray(cast).reshape(-1)
    if fmt.bits == 4:
        nibbles = flat.view(np.uint8) & 0xF
        nibbles = np.append(nibbles, np.uint8(0)) if len(nibbles) % 2 else nibbles
        return nibbles[0::2] | (nibbles[1::2] << 4)
    return flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(np.uint8) if flat.size else np.zeros(0, np.uint8)


def from_bytes(data: Any, dtype: Any, shape: Sequence[int]) -> np.ndarray:
    """The array of `shape` that `to_bytes` turned into `data`, in the dtype of `numpy_dtype`; exact.

    Raises `KPUError` for what are no bytes, for a shape that is no list of sizes, and if the bytes are not as many as
    the shape needs.
    """
    fmt = parse_dtype("dtype", dtype)
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise KPUError(f"shape must be a list of sizes [elements], got {shown(shape)}")
    shape = [int(check_number("shape", n, "elements", high=MAX_DIMENSION, integer=True)) for n in shape]
    count = math.prod(shape)
    packed = isinstance(data, (bytes, bytearray, memoryview))
    raw = np.frombuffer(bytes(data), np.uint8) if packed else _bytes(data)
    needed = -(-count * fmt.bits // 8)
    if len(raw) != needed:
        raise KPUError(f"an array of shape {tuple(shape)} in {fmt.name} is {needed} [byte], got {len(raw)}")
    if fmt.bits == 4:
        nibbles = np.stack([raw & 0xF, raw >> 4], -1).reshape(-1)[:count]
        if not fmt.is_float:  # ml_dtypes keeps int4 sign-extended in its byte
            nibbles = np.where(nibbles > 7, nibbles | 0xF0, nibbles).astype(np.uint8)
        return np.ascontiguousarray(nibbles).view(numpy_dtype(fmt)).reshape(shape)
    return raw.copy().view(numpy_dtype(fmt)).reshape(shape)


def _bytes(data: Any) -> np.ndarray:
    """A flat array or list of bytes as uint8."""
    try:
        wide = np.asarray(data)
        raw = wide.astype(np.uint8).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise KPUError(f"data must be bytes, got {shown(data)}") from None
    if wide.size and (wide.dtype.kind not in "iu" or (wide.reshape(-1) != raw).any()):
        raise KPUError(f"data must be bytes, integers from 0 to 255, got {shown(data)}")
    return raw


def _numpy(array: Any) -> np.ndarray:
    """A NumPy array of numbers from NumPy, jax, torch or nested lists."""
    if hasattr(array, "detach") and hasattr(array, "cpu"):  # torch, whose bfloat16 NumPy does not know
        array = array.detach().cpu()
        array = array.float() if str(array.dtype) in ("torch.bfloat16",) or "float8" in str(array.dtype) else array
        array = array.numpy()
    try:
        values = np.asarray(array)
    except (TypeError, ValueError) as error:
        raise KPUError(f"no array of numbers: {shown(array)} ({error})") from None
    if values.dtype.kind in "OSUcMm":
        raise KPUError(f"no array of numbers that the chip has: dtype {values.dtype}")
    return values


def _cast(values: np.ndarray, fmt: NumberFormat) -> np.ndarray:
    target = numpy_dtype(fmt)
    if values.dtype == target:
        return values
    if not fmt.is_float:
        wide = values.astype(np.float64) if values.dtype.kind not in "iu" else values
        if wide.dtype.kind == "f" and not np.isfinite(wide).all():
            raise KPUError(f"{fmt.name} holds no NaN and no infinity")
        high = 2 ** (fmt.bits - 1) - 1
        return np.clip(np.rint(wide), -high - 1, high).astype(target)
    if fmt.name in ("fp4", "fp8", "fp8_e5m2"):
        top = float(ml_dtypes.finfo(target).max)
        wide = np.asarray(values, np.float32) if values.dtype.itemsize <= 4 and values.dtype.kind == "f" else values.astype(np.float64)
        if fmt.name == "fp4" and np.isnan(wide).any():
            raise KPUError("fp4 holds no NaN")
        return np.where(np.isnan(wide), wide, np.clip(wide, -top, top)).astype(target)
    with np.errstate(over="ignore"):
        return values.astype(target)
