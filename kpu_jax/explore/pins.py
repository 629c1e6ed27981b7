"""Parts of a mapping that a search must keep: `fixed={"dataflow": "weight_stationary", "l3_tile": (64, 64, 64)}`."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from typing import Any

from kpu_jax.base.errors import MAX_DIMENSION, KPUError, check_number, nearest
from kpu_jax.mapping import DATAFLOWS, ORDERS, PASS_ORDERS, Mapping

GROUPS = {  # argument of the constructor -> leaves
    "dataflow": ("dataflow",),
    "l3_tile": ("l3_m", "l3_n", "l3_k"),
    "l2_tile": ("l2_m", "l2_n", "l2_k"),
    "l3_order": ("l3_order",),
    "l2_order": ("l2_order",),
    "pass_order": ("pass_order",),
    "buffering": ("double_l3", "double_l2", "double_l1"),
    "partition": ("partition_b", "partition_m", "partition_n", "partition_k"),
}
MOST = {  # highest code of a leaf
    "dataflow": len(DATAFLOWS) - 1, "l3_order": len(ORDERS) - 1, "l2_order": len(ORDERS) - 1,
    "pass_order": len(PASS_ORDERS) - 1, "double_l3": 1, "double_l2": 1, "double_l1": 1,
}  # fmt: skip


def pins_of(fixed: MappingType[str, Any] | None) -> dict[str, float]:
    """`fixed` as leaves of `Mapping`: by the constructor's arguments with their names, or by leaf with its number.

    A pinned `pass_order` pins its dataflow. Raises `KPUError` naming the field, the value and what is allowed.
    """
    if fixed is None:
        return {}
    if not isinstance(fixed, MappingType):
        raise KPUError(f"fixed must be a mapping such as {{'dataflow': 'weight_stationary'}}, got {type(fixed).__name__}")
    leaves = [leaf for group in GROUPS.values() for leaf in group]
    for key in fixed:
        if key not in GROUPS and key not in leaves:
            raise KPUError(f"fixed: Mapping has no field {key!r}: {nearest(key, {*leaves, *GROUPS})}")
    named = {key: value for key, value in fixed.items() if key in GROUPS and (key not in leaves or isinstance(value, str))}
    if named.get("pass_order") in PASS_ORDERS:
        named.setdefault("dataflow", DATAFLOWS[PASS_ORDERS.index(named["pass_order"]) // 2])
    checked = Mapping(**{"l3_tile": (1, 1, 1), "l2_tile": (1, 1, 1), **named})
    pins = {leaf: float(getattr(checked, leaf)) for key in named for leaf in GROUPS[key]}
    for key in fixed:
        if key not in named:
            low, high = (0, MOST[key]) if key in MOST else (1, MAX_DIMENSION)
            unit = "code" if key in MOST else "compute tiles" if key.startswith("partition") else "elements"
            pins[key] = check_number(f"fixed.{key}", fixed[key], unit, low=low, high=high, integer=True)
    return pins
