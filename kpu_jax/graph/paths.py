"""Critical paths of a network: the longest chain of operations that depend on each other, and the time by engine."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from graphlib import TopologicalSorter
from typing import Any, NamedTuple

import jax
import numpy as np

from kpu_jax.analysis.critical_path import critical_path
from kpu_jax.hardware import KPUConfig
from kpu_jax.mapping import Mapping
from kpu_jax.model.timing import ENGINES
from kpu_jax.workload import Workload


class NetworkPath(NamedTuple):
    """Where a network's time goes.

    `engines` splits the whole time (operations in order, host transfers) by engine class and adds up to it, by the
    gradient of each operation's exact time (`kpu.critical_path`). `names` is the longest path by dependence alone:
    no schedule of these operations under these mappings is shorter, however many run at once; `path_engines` splits it. A
    loop's iterations count as depending on each other.
    """

    cycles: float  # of the whole network [fabric cycles]
    engines: dict[str, float]
    names: tuple[str, ...]
    path_cycles: float
    path_engines: dict[str, float]

    def __repr__(self) -> str:
        lines = [f"{self.cycles:,.0f} cycles: " + _parts(self.engines)]
        lines.append(f"longest path {self.path_cycles:,.0f} cycles through {len(self.names)} operations: " + _parts(self.path_engines))
        return "\n".join(lines)


def _parts(engines: MappingType[str, float]) -> str:
    return ", ".join(f"{name} {cycles:,.0f}" for name, cycles in engines.items() if cycles)


def engine_cycles(cfg: KPUConfig, workload: Workload, mappings: Mapping) -> dict[str, np.ndarray]:
    """Cycles of every operation of a workload by engine class, [op], repeats included: exact, by the gradient."""
    rows = [
        critical_path(cfg, workload.row(row), jax.tree.map(lambda v, row=row: v[row], mappings)) for row in range(workload.rows)
    ]
    total = np.array([[parts[name] for parts in rows] for name in ENGINES])
    once = total / np.asarray(workload.ops.count)
    repeats = np.array(workload.repeats or np.ones(len(workload)))
    each = once[:, list(workload.row_of)] * repeats
    return dict(zip(ENGINES, each, strict=True))


def longest_path(cycles: Sequence[float], before: MappingType[Any, Sequence[Any]]) -> list[int]:
    """Nodes of the path of most cycles in a graph without cycles; `before`: node -> the nodes that it waits for."""
    until: dict[int, float] = {}
    previous: dict[int, int | None] = {}
    for node in TopologicalSorter(before).static_order():
        waited = max(before.get(node, ()), key=lambda p: until[p], default=None)
        previous[node] = waited
        until[node] = cycles[node] + (until[waited] if waited is not None else 0.0)
    node = max(until, key=lambda n: until[n], default=None)
    path = []
    while node is not None:
        path.append(node)
        node = previous[node]
    return path[::-1]
