"""Operators that nobody here knows, as one primitive that the tracer lists as work of the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

NAME = "onnx_operator"
_primitive = core.Primitive(NAME)
_primitive.multiple_results = True


@_primitive.def_abstract_eval
def _shapes(*_: Any, outputs: tuple[tuple[tuple[int, ...], Any], ...], operator: str) -> list[Any]:
    del operator
    return [jax.core.ShapedArray(shape, dtype) for shape, dtype in outputs]


def host_operator(operator: str, inputs: Sequence[Any], outputs: Sequence[jax.ShapeDtypeStruct], *, skip: bool) -> list[Any]:
    """Values of the given shapes, as the result of `operator` on the host, or with `skip` out of nothing."""
    if skip:
        return [jnp.zeros(o.shape, o.dtype) for o in outputs]
    shapes = tuple((tuple(o.shape), jnp.dtype(o.dtype)) for o in outputs)
    return _primitive.bind(*map(jnp.asarray, inputs), outputs=shapes, operator=operator)
