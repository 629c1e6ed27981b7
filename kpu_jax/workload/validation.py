"""Checks of an operation's leaves, single or stacked, that no constructor saw."""

from __future__ import annotations

from typing import Any

import numpy as np

from kpu_jax.base.errors import MAX_DIMENSION, MAX_MACS, KPUError, plain
from kpu_jax.base.pytree import is_traced
from kpu_jax.base.validation import LeafRules, Limits, check_type
from kpu_jax.workload.dtypes import MAC_FORMATS
from kpu_jax.workload.op import ACTIVATIONS, FIELDS, KINDS, LOCATIONS, VECTOR, Op


def _code(names: tuple[str, ...]) -> Limits:
    return Limits(f"code of {', '.join(names)}", high=len(names) - 1, integer=True)


_SIZE = Limits("elements", 1, MAX_DIMENSION, integer=True)
_PIXELS = Limits("pixels", 1, MAX_DIMENSION, integer=True)
_PADDING = Limits("pixels", 0, MAX_DIMENSION, integer=True)
_BITS = Limits("bit", 0, low_open=True)
_FRACTION = Limits("fraction", 0, 1, low_open=True)
_PRIMITIVES = Limits("primitives/element", 0, MAX_DIMENSION)
_LIMITS: dict[str, Limits] = {
    **dict.fromkeys(FIELDS, _PIXELS),  # the geometry of windows
    "kind": _code(KINDS),
    "m": Limits("elements", 1, MAX_MACS, integer=True),  # a vector operation's elements; others below
    "n": _SIZE,
    "k": _SIZE,
    "batch": Limits("products", 1, MAX_DIMENSION, integer=True),
    "count": Limits("operations", 0, MAX_DIMENSION),
    "a_bits": _BITS,
    "b_bits": Limits("bit", 0),
    "c_bits": _BITS,
    "acc_bits": _BITS,
    "mac_format": _code(MAC_FORMATS),
    "has_bias": Limits("0 or 1", 0, 1, integer=True),
    "activation": _code(ACTIVATIONS),
    **dict.fromkeys(("density_a", "density_b", "zero_gating"), _FRACTION),
    **dict.fromkeys(("loc_a", "loc_b", "loc_c"), _code(LOCATIONS)),
    "reserved_l3_bytes": Limits("bytes", 0, MAX_MACS),
    "images": Limits("images", 1, MAX_DIMENSION, integer=True),
    "channels": Limits("channels", 1, MAX_DIMENSION, integer=True),
    "pad_top": _PADDING,
    "pad_left": _PADDING,
    **dict.fromkeys(("vector_simple", "vector_exp", "vector_div", "vector_sqrt"), _PRIMITIVES),
}
_RULES = LeafRules(_LIMITS, lambda path, value: _LIMITS[path.rpartition(".")[2]].check(path, value))
_JOINT = ("kind", "batch", "m", "n", "k", "b_bits")


def check_op(op: Any) -> None:
    """Raise a `KPUError` unless `op` is an operation, or a table of them, whose leaves a constructor could have made.

    Counts may be 0 (padded rows) or fractions (averages). Traced leaves are passed over. The message names the
    dotted path, the value and the unit.
    """
    check_type("the operation", op, Op, "build a Gemm, Conv or VectorOp; a Workload's table is its `ops`")
    name = "op" if type(op) is Op else type(op).__name__
    _RULES(op, f"{name}.")
    if is_traced(*(getattr(op, x) for x in _JOINT)):
        return
    try:
        kind, batch, m, n, k, b_bits = np.broadcast_arrays(*(np.asarray(getattr(op, x), np.float64) for x in _JOINT))
    except ValueError:
        shapes = ", ".join(f"{x} {np.shape(getattr(op, x))}" for x in _JOINT)
        raise KPUError(f"{name}: leaves must have one shape, got {shapes}") from None
    fabric = kind != VECTOR
    if np.any(fabric & (m > MAX_DIMENSION)):
        raise KPUError(f"{name}.m must be at most {MAX_DIMENSION} [elements], got {plain(np.max(m[fabric]))}")
    if np.any(fabric & (b_bits <= 0)):
        raise KPUError(f"{name}.b_bits must be greater than 0 [bit] unless the operation is a vector's, got 0")
    if np.any(macs := batch * m * n * k > MAX_MACS):
        size = " x ".join(plain(x[macs].flat[0]) for x in (batch, m, n, k))
        raise KPUError(f"{name}: batch x m x n x k = {size} exceeds 2^53 = {MAX_MACS} [MACs], up to which counts are exact")
