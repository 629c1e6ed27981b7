"""Arguments that all operations share: number formats, fusion, sparsity, where the data live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kpu_jax.base.errors import MAX_DIMENSION, MAX_MACS, KPUError, check_choice, check_flag, check_number
from kpu_jax.base.pytree import as_leaf, is_traced
from kpu_jax.workload.dtypes import common_mac, default_accumulator, parse_dtype
from kpu_jax.workload.op import ACTIVATIONS, FIELDS, LOCATIONS, NEUTRAL_WINDOW, Op


def checked(field: str, value: Any, unit: str, **limits: Any) -> Any:
    """`check_number` for values (a Python float); tracers pass, integers as floats of the ambient precision.

    Integer tracers become floats because int32 products overflow silently.
    """
    if isinstance(value, jax.core.Tracer):
        return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(jnp.result_type(float))
    return check_number(field, value, unit, **limits)


def dimension(field: str, value: Any, unit: str = "elements", *, high: int = MAX_DIMENSION) -> Any:
    """An integer from 1 to `high`."""
    return checked(field, value, unit, low=1.0, high=float(high), integer=True)


def fraction(field: str, value: Any) -> Any:
    """A number in (0, 1]."""
    return checked(field, value, "fraction", low=0.0, high=1.0, low_open=True)


def check_macs(title: str, batch: Any, m: Any, n: Any, k: Any) -> None:
    """Reject an operation of more than 2^53 MACs, which float64 could not count. Traced sizes pass."""
    if not is_traced(batch, m, n, k) and (macs := int(batch) * int(m) * int(n) * int(k)) > MAX_MACS:
        raise KPUError(
            f"{title}: batch x m x n x k = {int(batch)} x {int(m)} x {int(n)} x {int(k)} = {macs} [MACs] exceeds "
            f"2^53 = {MAX_MACS}, up to which counts are exact; split the operation"
        )


def locations(field: str, data_on: Any) -> dict[str, float]:
    """`loc_a, loc_b, loc_c` codes from one name for all operands, or a mapping {"A": name, ...} (others external)."""
    if not isinstance(data_on, Mapping):
        return dict.fromkeys(("loc_a", "loc_b", "loc_c"), _location(field, data_on))
    for operand in data_on:
        check_choice(f"{field} key", operand, ("A", "B", "C"))
    return {f"loc_{x.lower()}": _location(f"{field}[{x!r}]", data_on.get(x, "external")) for x in "ABC"}


def _location(field: str, name: Any) -> float:
    return float(LOCATIONS.index(check_choice(field, name, LOCATIONS)))


def matrix_options(
    title: str,
    *,
    dtype: Any,
    a_dtype: Any,
    b_dtype: Any,
    c_dtype: Any,
    acc_dtype: Any,
    bias: Any,
    activation: Any,
    density_a: Any,
    density_b: Any,
    zero_gating: Any,
    data_on: Any,
    reserved_l3_bytes: Any,
    count: Any,
) -> dict[str, Any]:
    """Checked leaves of the options common to `Gemm` and `Conv`. Raises `KPUError` naming `title.option`."""
    base = parse_dtype(f"{title}.dtype", dtype)
    a, b, c = (
        base if given is None else parse_dtype(f"{title}.{name}", given)
        for name, given in (("a_dtype", a_dtype), ("b_dtype", b_dtype), ("c_dtype", c_dtype))
    )
    summed = default_accumulator(a if a.is_float else b)
    acc = summed if acc_dtype is None else parse_dtype(f"{title}.acc_dtype", acc_dtype)
    return {
        "a_bits": a.bits,
        "b_bits": b.bits,
        "c_bits": c.bits,
        "acc_bits": acc.bits,
        "mac_format": common_mac(a, b),
        "has_bias": checked(f"{title}.bias", bias, "flag") if is_traced(bias) else check_flag(f"{title}.bias", bias),
        "activation": ACTIVATIONS.index(check_choice(f"{title}.activation", activation, ACTIVATIONS)),
        "density_a": fraction(f"{title}.density_a", density_a),
        "density_b": fraction(f"{title}.density_b", density_b),
        "zero_gating": fraction(f"{title}.zero_gating", zero_gating),
        **locations(f"{title}.data_on", data_on),
        "reserved_l3_bytes": checked(f"{title}.reserved_l3_bytes", reserved_l3_bytes, "bytes", high=float(MAX_MACS)),
        "count": dimension(f"{title}.count", count, "operations"),
    }


def fill(op: Op, **fields: Any) -> None:
    """Set every leaf of a frozen `op` under construction; window fields not given are neutral, others 0."""
    values = {**dict.fromkeys(FIELDS, 0.0), **NEUTRAL_WINDOW, **fields}
    for name in FIELDS:
        object.__setattr__(op, name, as_leaf(values[name]))
