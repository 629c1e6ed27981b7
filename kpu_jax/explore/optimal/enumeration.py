"""The whole space of mappings of one operation on one chip, numbered: a mapping is decoded from its number.

Tiles beyond the dimension, and L2 tiles beyond the L3 tile, are clipped and so coincide with others: they are left out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kpu_jax.base.pytree import build
from kpu_jax.mapping import ORDERS, PASS_ORDERS, Mapping

CODES = {"l3_order": len(ORDERS), "l2_order": len(ORDERS), "double_l3": 2, "double_l2": 2, "double_l1": 2}
PARTITIONS = tuple(f"partition_{axis}" for axis in "bmnk")


class Enumeration:
    """All mappings of `op` on `cfg` that keep `pins` (leaf -> number). `size` counts them without listing them."""

    def __init__(self, cfg: Any, op: Any, pins: dict[str, float]) -> None:
        self._pins, self._sizes = pins, {axis: int(getattr(op, axis)) for axis in "mnk"}
        self._partitions = self._all_partitions(int(cfg.compute.tile_count))
        self._codes = {leaf: self._choices(leaf, range(count)) for leaf, count in CODES.items()}
        passes = self._choices("pass_order", range(len(PASS_ORDERS)))
        # A vector operation has a pass order of no effect; elsewhere it belongs to one dataflow.
        flows = [int(pins.get("dataflow", p // 2)) for p in passes]
        self._passes = [(f, p) for f, p in zip(flows, passes, strict=True) if p // 2 == f or op.kind == 2]
        self.size = math.prod(
            [
                *(self._pair_count(axis) for axis in "mnk"),
                *(len(c) for c in self._codes.values()),
                len(self._passes),
                len(self._partitions),
            ]
        )

    def mappings(self, numbers: np.ndarray) -> Mapping:
        """The mappings of these numbers, below `size`, as leaves [mapping]. Lists all pairs of tiles of each axis."""
        columns: list[np.ndarray] = [np.asarray(self._pairs(axis), np.float64).reshape(-1, 2) for axis in "mnk"]
        columns += [np.asarray(c, np.float64)[:, None] for c in self._codes.values()]
        columns += [np.asarray(c, np.float64).reshape(len(c), -1) for c in (self._passes, self._partitions)]
        names: list[tuple[str, ...]] = [(f"l3_{a}", f"l2_{a}") for a in "mnk"] + [(leaf,) for leaf in self._codes]
        names += [("dataflow", "pass_order"), PARTITIONS]
        digits = np.unravel_index(numbers, [len(c) for c in columns])
        leaves: dict[str, np.ndarray] = {}
        for group, column, digit in zip(names, columns, digits, strict=True):
            leaves.update(zip(group, column[digit].T, strict=True))
        return build(Mapping, **leaves)

    def _choices(self, leaf: str, free: Any) -> list[int]:
        return [int(self._pins[leaf])] if leaf in self._pins else list(free)

    def _pairs(self, axis: str) -> list[tuple[int, int]]:
        outer = self._choices(f"l3_{axis}", range(1, self._sizes[axis] + 1))
        return [(t3, t2) for t3 in outer for t2 in self._choices(f"l2_{axis}", range(1, min(t3, self._sizes[axis]) + 1))]

    def _pair_count(self, axis: str) -> int:
        size = self._sizes[axis]
        if f"l2_{axis}" in self._pins:
            return 1 if f"l3_{axis}" in self._pins else size
        if f"l3_{axis}" in self._pins:
            return min(int(self._pins[f"l3_{axis}"]), size)
        return size * (size + 1) // 2

    def _all_partitions(self, tiles: int) -> list[tuple[int, ...]]:
        divided = [self._choices(leaf, range(1, tiles + 1)) for leaf in PARTITIONS]
        found: list[tuple[int, ...]] = [()]
        for choices in divided:
            found = [(*p, c) for p in found for c in choices if math.prod(p) * c <= tiles]
        return found
