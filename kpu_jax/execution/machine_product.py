"""The product that the machine computes, for the interpreter."""

from __future__ import annotations

from typing import Any

from kpu_jax.execution.interpreter import Product
from kpu_jax.machine.formats import is_format, number_format
from kpu_jax.machine.matmul import is_float, matmul


def machine_product(dtype: Any = None, acc_dtype: Any = None) -> Product:
    """A [batch, m, k] B [batch, k, n] by `machine.matmul`, floats quantised to `dtype` (None: as they are).

    None for arrays of types that the KPU does not have. Raises `DtypeError` for unknown formats.
    """
    given = {"dtype": dtype, "acc_dtype": acc_dtype}
    options: dict[str, Any] = {name: number_format(name, v).name for name, v in given.items() if v is not None}

    def product(a: Any, b: Any, c_dtype: Any) -> Any:
        if not (is_format(a.dtype) and is_format(b.dtype)):
            return None
        wanted: dict[str, Any] = options if is_float(a, b) else {}  # integers stay what they are
        return matmul(a, b, **wanted).astype(c_dtype)

    return product
