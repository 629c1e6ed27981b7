"""A list of named operations under construction, with what each reads."""

from __future__ import annotations

from typing import Any

from kpu_jax.base.errors import MAX_DIMENSION, check_flag, check_number
from kpu_jax.workload.op import Op
from kpu_jax.workload.table import Workload


class Graph:
    """Collects (name, op, predecessors) for `Workload.from_ops`."""

    def __init__(self) -> None:
        self._items: list[tuple[str, Op, tuple[str, ...]]] = []

    def add(self, name: str, op: Op, *reads: str | None) -> str:
        """Append `op`, which reads the results of `reads` (None: an input of the network). Returns `name`."""
        self._items.append((name, op, tuple(r for r in reads if r is not None)))
        return name

    def workload(self) -> Workload:
        """The finished workload."""
        return Workload.from_ops(self._items)


def size(field: str, value: Any, unit: str, low: int = 1) -> int:
    """A host integer from `low` to 2^31-1; networks cannot be built from traced sizes. Else `KPUError`."""
    return int(check_number(field, value, unit, low=low, high=float(MAX_DIMENSION), integer=True))


def flag(field: str, value: Any) -> bool:
    """A boolean, else `KPUError`."""
    return bool(check_flag(field, value))
