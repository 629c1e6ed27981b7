"""Helpers around a matrix product: sizes of formats and operands, shapes, work and rates, comparison of results."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kpu_jax.base.errors import ShapeError, check_number
from kpu_jax.machine.formats import number_format
from kpu_jax.machine.matmul import result_shape
from kpu_jax.workload.dtypes import default_accumulator

__all__ = [
    "Comparison",
    "compare",
    "dtype_size",
    "gflops",
    "matmul_error_bound",
    "matmul_flops",
    "matmul_memory",
    "matmul_shape",
]


def dtype_size(dtype: Any) -> float:
    """Bytes of one element of a number format of the KPU (0.5 for 4 bits). Raises `DtypeError` for others."""
    return number_format("dtype", dtype).bits / 8


def matmul_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of A B for arrays of these shapes, by NumPy's rules. Raises `ShapeError` naming both."""
    for name, shape in (("a", a), ("b", b)):
        if not isinstance(shape, (tuple, list)):
            raise ShapeError(f"{name} must be a shape, a tuple of sizes, got {type(shape).__name__}")
        for size in shape:
            check_number(f"a size in {name}", size, "elements", integer=True)
    return result_shape(tuple(int(size) for size in a), tuple(int(size) for size in b))


def matmul_flops(m: int, n: int, k: int, batch: int = 1) -> int:
    """Floating-point (or integer) operations of `batch` products [m, k] by [k, n]: two per multiply-add."""
    return 2 * _whole("m", m) * _whole("n", n) * _whole("k", k) * _whole("batch", batch)


def matmul_memory(m: int, n: int, k: int, *, dtype: Any = "fp32", c_dtype: Any = None, batch: int = 1) -> dict[str, int]:
    """Bytes of main memory that A, B and C of a product take, and their "total"; 4-bit elements are packed.

    `c_dtype`: None takes the accumulators' format for integers and `dtype` for floats, as `Simulator.matmul` does.
    """
    fmt = number_format("dtype", dtype)
    out = number_format("c_dtype", c_dtype) if c_dtype is not None else fmt if fmt.is_float else default_accumulator(fmt)
    m, n, k, batch = (_whole(name, size) for name, size in (("m", m), ("n", n), ("k", k), ("batch", batch)))
    bits = {"A": m * k * fmt.bits, "B": k * n * fmt.bits, "C": m * n * out.bits}
    counted = {name: -(-batch * size // 8) for name, size in bits.items()}
    return {**counted, "total": sum(counted.values())}


def gflops(flops: float, seconds: float) -> float:
    """Rate in 10^9 operations per second. Raises `KPUError` for a time that is not positive."""
    time = check_number("seconds", seconds, "s", low_open=True)
    return check_number("flops", flops, "operations") / time * 1e-9


def matmul_error_bound(A: Any, B: Any) -> np.ndarray:
    """What a float32 product may differ from the exact one at most, element by element: gamma_k |A| |B|.

    gamma_k = k u / (1 - k u), u = 2^-24, for sums in any order (Higham, 'Accuracy and Stability of Numerical
    Algorithms', 2nd edition, section 3.5), barring underflow.
    """
    a, b = (np.abs(np.asarray(x, np.float64)) for x in (A, B))
    matmul_shape(a.shape, b.shape)
    ku = a.shape[-1] * 2.0**-24
    return ku / (1 - ku) * (a @ b)


class Comparison(NamedTuple):
    """How two arrays differ."""

    equal: bool  # every element within atol + rtol |expected|
    max_abs: float  # largest absolute difference
    max_rel: float  # largest difference relative to the expected element (infinite where that is 0)
    mean_abs: float
    mismatches: int  # elements beyond the tolerance
    first: tuple[int, ...] | None  # index of the first of them

    def __bool__(self) -> bool:
        return self.equal


def compare(actual: Any, expected: Any, *, rtol: float = 0.0, atol: float = 0.0) -> Comparison:
    """Compare two arrays of one shape, in float64; NaN equals NaN. Truthy if they agree. Raises `ShapeError`."""
    x, y = (np.asarray(v).astype(np.float64) for v in (actual, expected))
    if x.shape != y.shape:
        raise ShapeError(f"arrays of shapes {x.shape} and {y.shape} cannot be compared element by element")
    relative, absolute = check_number("rtol", rtol, "fraction"), check_number("atol", atol, "value")
    with np.errstate(invalid="ignore", divide="ignore"):
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        gap = np.where(same, 0.0, np.abs(x - y))
        wrong = ~(gap <= absolute + relative * np.abs(y)) & ~same
        ratio = np.where(gap == 0, 0.0, gap / np.abs(y))
    if not x.size:
        return Comparison(True, 0.0, 0.0, 0.0, 0, None)
    where = np.argwhere(wrong)
    first = tuple(int(i) for i in where[0]) if len(where) else None
    return Comparison(not len(where), float(gap.max()), float(ratio.max()), float(gap.mean()), len(where), first)


def _whole(field: str, value: Any) -> int:
    return int(check_number(field, value, "elements", low=1, integer=True))
