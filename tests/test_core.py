"""The helpers: sizes, shapes, rates and comparison."""

from __future__ import annotations

import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.base.errors import DtypeError, KPUError, ShapeError


def test_sizes_of_formats():
    sizes = {"int4": 0.5, "fp4": 0.5, "int8": 1, "fp8_e5m2": 1, "bfloat16": 2, np.float16: 2, np.int32: 4, "fp32": 4}
    assert {name: kpu.dtype_size(name) for name in sizes} == sizes
    with pytest.raises(DtypeError, match="float64"):
        kpu.dtype_size(np.float64)


MATRICES = [((2, 3), (3, 4)), ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 1, 2, 3), (7, 3, 4)), ((6, 2, 3), (3, 4))]
MISFITS = [((2, 3), (2, 4)), ((), (3,)), ((2, 0), (0, 4)), ((2, 5, 3), (3, 3, 4)), (3, (3, 4)), ((2, 1.5), (3, 4))]


@pytest.mark.parametrize(("a", "b"), MATRICES)
def test_shapes_are_numpys(a, b):
    assert kpu.matmul_shape(a, b) == (np.ones(a) @ np.ones(b)).shape


@pytest.mark.parametrize(("a", "b"), MISFITS)
def test_wrong_shapes_are_named(a, b):
    with pytest.raises(KPUError):
        kpu.matmul_shape(a, b)


def test_work_memory_and_rates():
    assert kpu.matmul_flops(100, 150, 200, batch=3) == 18_000_000 and kpu.matmul_flops(4096, 4096, 4096) == 2**37
    assert kpu.matmul_memory(100, 150, 200) == {"A": 80_000, "B": 120_000, "C": 60_000, "total": 260_000}
    assert kpu.matmul_memory(3, 3, 5, dtype="int4") == {"A": 8, "B": 8, "C": 36, "total": 52}
    assert kpu.matmul_memory(8, 8, 8, dtype="int8", c_dtype="int8", batch=2)["C"] == 128
    assert kpu.gflops(2e9, 0.5) == 4.0
    for wrong in (lambda: kpu.gflops(1, 0), lambda: kpu.gflops(float("nan"), 1), lambda: kpu.matmul_flops(0, 1, 1)):
        with pytest.raises(KPUError):
            wrong()


def test_comparison():
    x = np.array([[1.0, 2.0], [0.0, np.nan]])
    assert kpu.compare(x, x) and kpu.compare(x, x).max_abs == 0
    found = kpu.compare(x + [[0, 0.5], [0, 0]], x, rtol=0.1)
    assert not found and (found.mismatches, found.first, found.max_abs, found.max_rel) == (1, (0, 1), 0.5, 0.25)
    assert kpu.compare(x + 0.25, x, rtol=0.1, atol=0.25) and kpu.compare([], []).equal
    assert kpu.compare([np.inf], [np.inf]) and not kpu.compare([np.inf], [1.0], rtol=1.0) and not kpu.compare([np.nan], [1.0], atol=9)
    with pytest.raises(ShapeError, match=r"\(2, 2\) and \(2,\)"):
        kpu.compare(x, x[0])


def test_the_error_bound_holds_and_is_not_idle():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((20, 300)).astype(np.float32), rng.standard_normal((300, 10)).astype(np.float32)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = kpu.matmul_error_bound(a, b)
    one_chain = np.zeros((20, 10), np.float32)
    for k in range(300):
        one_chain += a[:, k, None] * b[k]
    error = np.abs(one_chain - exact)
    assert (error <= bound).all() and error.max() > bound.max() / 1000
