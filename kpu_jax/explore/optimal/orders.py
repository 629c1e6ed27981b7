"""The discrete choices of many schedules: loop orders and bufferings, some of them not made yet."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from kpu_jax.mapping import ORDERS, PASS_ORDERS

Array = np.ndarray
FREE = -1  # a choice not made yet: bounds hold for all of its outcomes


def _inside_table(orders: tuple[str, ...]) -> Array:
    """[order, x, u]: is the loop of axis x inside that of u? The last row, for FREE: nowhere."""
    table = np.zeros((len(orders) + 1, 3, 3), bool)
    for code, order in enumerate(orders):
        for depth, x in enumerate(order):
            for u in order[:depth]:
                table[code, "mnk".index(x), "mnk".index(u)] = True
    return table


_INSIDE, _INSIDE_PASS = _inside_table(ORDERS), _inside_table(PASS_ORDERS)


class Choices(NamedTuple):
    """Codes of `Mapping` [schedule], or `FREE`."""

    l3_order: Array
    l2_order: Array
    pass_order: Array
    double_l3: Array
    double_l2: Array
    double_l1: Array

    def inside_l3(self, x: int, u: int) -> Array:
        return _INSIDE[self.l3_order, x, u]

    def inside_l2(self, x: int, u: int) -> Array:
        return _INSIDE[self.l2_order, x, u]

    def inside_pass(self, x: int, u: int) -> Array:
        return _INSIDE_PASS[self.pass_order, x, u]

    def places(self, level: int) -> Array:
        """Places per block at L3, L2 or L1 (0, 1, 2), at least."""
        return 1 + (self[3 + level] == 1)

    def single(self, level: int) -> Array:
        """Surely single-buffered at L3, L2 or L1?"""
        return self[3 + level] == 0


@functools.cache
def distinct_orders(orders: tuple[str, ...], mask: int) -> tuple[int, ...]:
    """Codes of the orders that differ for the axes in `mask` (m: 1, n: 2, k: 4): a loop of one trip can stand anywhere."""
    first: dict[str, int] = {}
    for code, order in enumerate(orders):
        first.setdefault("".join(a for a in order if mask >> "mnk".index(a) & 1), code)
    return tuple(first.values())


_INNERMOST = np.full((len(ORDERS) + 1, 8), -1)
for _code, _order in enumerate(ORDERS):
    for _mask in range(1, 8):
        _INNERMOST[_code, _mask] = next("mnk".index(a) for a in reversed(_order) if _mask >> "mnk".index(a) & 1)


def innermost(order: Array, iterates: list[Array]) -> Array:
    """Axis (0, 1, 2) of the innermost loop that `iterates` [axis], bool; -1 where there is none or it is not known."""
    return _INNERMOST[order, iterates[0] + 2 * iterates[1] + 4 * iterates[2]]
