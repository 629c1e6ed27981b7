"""Matrix multiplication."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import ArrayLike

from kpu_jax.base.pytree import record
from kpu_jax.workload.op import GEMM, Op
from kpu_jax.workload.options import check_macs, dimension, fill, matrix_options


@record
class Gemm(Op):
    """C[m,n] = A[m,k] B[k,n], `batch` independent times; flattens to the leaves of `Op`."""

    def __init__(
        self,
        m: ArrayLike,
        n: ArrayLike,
        k: ArrayLike,
        *,
        batch: ArrayLike = 1,
        dtype: Any = "int8",
        a_dtype: Any = None,
        b_dtype: Any = None,
        c_dtype: Any = None,
        acc_dtype: Any = None,
        bias: bool = False,
        activation: str = "none",
        density_a: ArrayLike = 1.0,
        density_b: ArrayLike = 1.0,
        zero_gating: ArrayLike = 1.0,
        data_on: str | Mapping[str, str] = "external",
        reserved_l3_bytes: ArrayLike = 0,
        count: ArrayLike = 1,
    ) -> None:
        """Sizes in elements. Any number may be a tracer, which is not checked.

        `dtype` stands for A, B and C unless given apart; `acc_dtype` is int32 for integers, fp32 for floats.
        `density_a/b` are stored fractions under block-sparse encoding; `zero_gating` is the fraction of MACs that
        switch (energy only). `data_on` is "external", "host", "l3" or a mapping per operand ({"A": "l3"}).
        `count` repeats the whole operation.

        Raises `KPUError` for sizes that are not integers from 1 to 2^31-1, more than 2^53 MACs, fractions
        outside (0, 1], and unknown names.
        """
        sizes = {x: dimension(f"Gemm.{x}", v) for x, v in (("m", m), ("n", n), ("k", k), ("batch", batch))}
        check_macs("Gemm", **sizes)
        options = matrix_options(
            "Gemm",
            dtype=dtype,
            a_dtype=a_dtype,
            b_dtype=b_dtype,
            c_dtype=c_dtype,
            acc_dtype=acc_dtype,
            bias=bias,
            activation=activation,
            density_a=density_a,
            density_b=density_b,
            zero_gating=zero_gating,
            data_on=data_on,
            reserved_l3_bytes=reserved_l3_bytes,
            count=count,
        )
        fill(self, kind=GEMM, **sizes, **options)
