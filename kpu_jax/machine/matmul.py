"""`matmul`: the product that the machine computes, as a pure function of arrays; jit, vmap and grad go through.

Gradients are those of the real product and activation. Where operands or results are rounded (`dtype`, or a narrow
float format) they are straight-through: rounding has slope 1 within the format's range and 0 where it saturates, and
scales count as constants. Products of integer arrays are exact modulo 2^32 and have none.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.errors import DtypeError, QuantisationError, ShapeError, check_choice
from kpu_jax.base.pytree import is_traced
from kpu_jax.machine.arithmetic import Arithmetic, arithmetic
from kpu_jax.machine.formats import as_array, format_of, number_format, storage
from kpu_jax.machine.order import Bounds, Order, one_chain
from kpu_jax.machine.tile_path import product, sums
from kpu_jax.machine.vector_engine import LEAST_SCALE, activated, are_scales, check_scale, quantise, rounded_to, widest_scale
from kpu_jax.workload.dtypes import NumberFormat
from kpu_jax.workload.op import ACTIVATIONS

SCALED_BITS = 8  # floats as narrow as this, and integers, are scaled to their range when a wider array is quantised


class Formats(NamedTuple):
    """Number formats of one product; static under jit."""

    a: NumberFormat
    b: NumberFormat
    c: NumberFormat
    how: Arithmetic


def formats_of(a: Any, b: Any, dtype: Any = None, c_dtype: Any = None, acc_dtype: Any = None) -> Formats:
    """The formats of a product of these arrays. `DtypeError` for what the KPU does not have.

    `dtype`: what float arrays are quantised to (None: they stay as they are). C defaults to int32 for integer arrays, to
    the wider operand's format for float arrays, and to fp32 for quantised ones.
    """
    fa, fb = (_operand_format(name, x, dtype) for name, x in (("A", a), ("B", b)))
    for name, x, fmt in (("A", a, fa), ("B", b, fb)):
        if not is_float(a, b) and np.dtype(x.dtype) != storage(fmt):
            raise DtypeError(f"dtype = {fmt.name} quantises floats, and {name} is {x.dtype}: convert it, or leave dtype out")
    acc = None if acc_dtype is None else number_format("acc_dtype", acc_dtype)
    how = arithmetic(fa, fb, acc)
    if c_dtype is not None:
        fc = number_format("c_dtype", c_dtype)
    elif dtype is not None and is_float(a, b):
        fc = number_format("c_dtype", "fp32")
    elif how.is_float:
        fc = max((f for f in (fa, fb) if f.is_float), key=lambda f: f.bits, default=how.accumulator)
    else:
        fc = how.accumulator
    return Formats(fa, fb, fc, how)


def _operand_format(name: str, x: Any, dtype: Any) -> NumberFormat:
    if dtype is None:
        return format_of(name, x)
    if np.dtype(x.dtype) != np.float64:  # the one wider type that may be narrowed
        format_of(name, x)
    return number_format("dtype", dtype)


def is_float(*arrays: Any) -> bool:
    """Does any of them hold floats?"""
    return any(jnp.issubdtype(x.dtype, jnp.floating) for x in arrays)


def result_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of A B by NumPy's rules for matmul; `ShapeError` naming both shapes where there is none."""
    if not a or not b:
        raise ShapeError(f"matmul multiplies arrays of one dimension or more, got shapes {a} and {b}")
    rows = b[-2] if len(b) > 1 else b[0]
    if a[-1] != rows:
        raise ShapeError(f"A of shape {a} has {a[-1]} columns and B of shape {b} has {rows} rows; they must be equal")
    if 0 in (*a, *b):
        raise ShapeError(f"matmul needs at least one element along every axis, got shapes {a} and {b}")
    try:
        lead = np.broadcast_shapes(a[:-2], b[:-2])
    except ValueError:
        raise ShapeError(f"the leading axes of A, of shape {a}, and B, of shape {b}, do not broadcast") from None
    return (*lead, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


def as_batches(a: Any, b: Any) -> tuple[Any, Any]:
    """A [batch, m, k] and B [batch, k, n]; one B for all of A makes one batch of taller rows."""
    a = a[None, :] if a.ndim == 1 else a
    b = b[:, None] if b.ndim == 1 else b
    if b.ndim == 2:
        return a.reshape(1, -1, a.shape[-1]), b[None]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    xp = np if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) else jnp
    a, b = xp.broadcast_to(a, lead + a.shape[-2:]), xp.broadcast_to(b, lead + b.shape[-2:])
    return a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:])


def scale_for(x: Any, fmt: NumberFormat, k: int, given: Any = None) -> Any:
    """The scale at which `x` is quantised to `fmt`: `given`, or the least at which nothing saturates or overflows over `k`.

    1 for floats of more than 8 bits and for arrays that are in the format already.
    """
    if given is not None:
        return jnp.asarray(given, jnp.float32)
    narrow = fmt.bits <= SCALED_BITS or not fmt.is_float
    if np.dtype(x.dtype) == storage(fmt) or not is_float(x) or not narrow:
        return jnp.float32(1)
    return widest_scale(jnp.asarray(x, jnp.float32), fmt, k)


def check_options(a: Any, b: Any, bias: Any, activation: Any, a_scale: Any, b_scale: Any, c_scale: Any) -> None:
    """`KPUError` of its kind for an unknown activation, a bias that does not fit A and B, and scales that cannot be."""
    check_choice("activation", activation, ACTIVATIONS)
    columns = (b.shape[-1] if b.ndim > 1 else 1,)
    for name, scale, shapes in (("a_scale", a_scale, [()]), ("b_scale", b_scale, [(), columns]), ("c_scale", c_scale, [(), columns])):
        if scale is not None:
            check_scale(name, scale)
            if name != "c_scale" and not is_float(a, b):
                raise QuantisationError(f"{name} is a step of quantised floats, and A and B are integers: give c_scale, the step of C")
            if np.shape(scale) not in shapes:
                raise ShapeError(f"{name} must have shape {' or '.join(map(str, shapes))}, got {np.shape(scale)}")
    if bias is not None:
        if bias.shape != columns:
            raise ShapeError(f"the bias must have shape {columns}, one number per column of B, got {bias.shape}")
        format_of("bias", bias)
        if is_float(bias) and not is_float(a, b):
            raise DtypeError(f"the bias of a product of integers is added to integer sums: it must be int32, got {bias.dtype}")


def quantised(a: Any, b: Any, bias: Any, a_scale: Any, b_scale: Any, *, formats: Formats) -> tuple[Any, Any, Any, Any]:
    """(A, B, bias) as the PEs take them and the scale of their sums, [()] or [n]; A and B divided by their scales and rounded.

    float32 that holds values of the formats, differentiable; a bias is divided by both scales, None stays None.
    `QuantisationError` for values that no scale holds, and scales whose product float32 does not hold (traced ones pass:
    what they multiply is NaN or zero).
    """
    taken = _quantised(a, b, bias, a_scale, b_scale, formats=formats)
    if not is_traced(taken[-1]) and not are_scales(taken[-1]).all():
        for name, x, given in (("A", a, a_scale), ("B", b, b_scale)):
            if given is None and not np.isfinite(np.asarray(x, np.float32)).all():
                raise QuantisationError(f"{name} holds infinity or NaN, which no step measures: give {name.lower()}_scale or finite values")
        raise QuantisationError(
            f"the sums of A's and B's steps have the step a_scale b_scale = {np.min(taken[-1]):.3g}, beyond float32's "
            f"{LEAST_SCALE:.3g} to {1 / LEAST_SCALE:.3g}: multiply A or B by a power of two"
        )
    return taken


@functools.partial(jax.jit, static_argnames="formats")
def _quantised(a: Any, b: Any, bias: Any, a_scale: Any, b_scale: Any, *, formats: Formats) -> tuple[Any, Any, Any, Any]:
    k = a.shape[-1]
    a_scale, b_scale = scale_for(a, formats.a, k, a_scale), scale_for(b, formats.b, k, b_scale)
    scale = a_scale * b_scale
    return (
        rounded_to(jnp.asarray(a, jnp.float32), formats.a, a_scale),
        rounded_to(jnp.asarray(b, jnp.float32), formats.b, b_scale),
        None if bias is None else rounded_to(jnp.asarray(bias, jnp.float32), formats.how.accumulator, scale),
        scale,
    )


@functools.partial(jax.jit, static_argnames=("formats", "bounds", "activation"))
def multiply(
    a: Any,
    b: Any,
    bias: Any,
    scale: Any,
    c_scale: Any,
    orders: tuple[Order, ...],
    *,
    formats: Formats,
    bounds: tuple[Bounds, ...],
    activation: str,
) -> jax.Array:
    """C [batch, m, n] in its format, of A [batch, m, k], B [batch, k, n] and a bias [n] (or None) as the PEs take them.

    `scale` (None: 1) multiplies the sums ahead of the activation, `c_scale` (None: 1) divides the result. Compiled, so
    that multiply-adds are fused.
    """
    if is_float(a, b):
        acc = product(formats.how, bounds, orders, *jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (a, b, bias)))
    else:
        acc = sums(formats.how, bounds, orders, *jax.tree.map(formats.how.widen, (a, b, bias)))
    x = activated(acc, activation, scale)
    if is_float(x) and formats.c.is_float:
        return rounded_to(x, formats.c, 1.0 if c_scale is None else c_scale).astype(storage(formats.c))
    return quantise(x, formats.c, c_scale)


def matmul(
    a: Any,
    b: Any,
    *,
    bias: Any = None,
    activation: str = "none",
    dtype: Any = None,
    c_dtype: Any = None,
    acc_dtype: Any = None,
    a_scale: Any = None,
    b_scale: Any = None,
    c_scale: Any = None,
    regions: tuple[tuple[Bounds, ...], tuple[Order, ...]] | None = None,
) -> jax.Array:
    """activation(A B + bias) as the machine computes it, for A [..., m, k] and B [..., k, n] by NumPy's rules.

    `dtype` quantises A and B to a format (None: as the arrays are); `a_scale`, `b_scale` are the values of one step
    (None: `scale_for`), `c_scale` that of C. C is in `c_dtype` (None: `formats_of`). `regions` is the order of
    accumulation (`order.regions_of`); None: k ascending in one chain, as output-stationary. Bias [n], any float or int32.

    Raises `ShapeError`, `DtypeError`, `QuantisationError`. Gradients: see the module.
    """
    a, b, bias = as_array("A", a), as_array("B", b), None if bias is None else as_array("the bias", bias)
    formats = formats_of(a, b, dtype, c_dtype, acc_dtype)
    shape = result_shape(a.shape, b.shape)
    check_options(a, b, bias, activation, a_scale, b_scale, c_scale)
    a, b = as_batches(a, b)
    bounds, orders = one_chain(a.shape[1], b.shape[2], a.shape[2]) if regions is None else regions
    if is_float(a, b):
        a, b, bias, scale = quantised(a, b, bias, a_scale, b_scale, formats=formats)
    else:
        scale = None
    c = multiply(a, b, bias, scale, c_scale, orders, formats=formats, bounds=bounds, activation=activation)
    return c.reshape(shape)
