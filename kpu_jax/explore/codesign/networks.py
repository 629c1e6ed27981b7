"""Several networks, each with a weight, as one table of operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, check_number, nearest, shown
from kpu_jax.workload import Op, Workload, check_workload
from kpu_jax.workload.padding import pad_rows


@dataclass(frozen=True)
class Networks:
    """Networks that one chip is to run; what counts is the weighted geometric mean of their objectives."""

    names: tuple[str, ...]
    workloads: tuple[Workload, ...]
    weights: np.ndarray  # [network], sum 1
    ops: Op  # rows of all networks, padded; leaves [row]
    count: np.ndarray  # [network, row] instances of each row

    @property
    def rows(self) -> int:
        """Rows that are not padding."""
        return int(np.sum(self.count > 0))


def networks_of(workload: Any, weights: Any) -> Networks:
    """From one workload or operation, a sequence of them, or {name: workload}; `weights` alike (default: equal)."""
    if isinstance(workload, Mapping):
        named = dict(workload)
    elif isinstance(workload, Sequence) and not isinstance(workload, str):
        named = {f"network {i}": w for i, w in enumerate(workload)}
    else:
        named = {"network": workload}
    if not named:
        raise KPUError("workload is empty: give a Workload, a list of them, or {name: Workload}")
    for net in named.values():
        check_workload(net)
    workloads = tuple(w if isinstance(w, Workload) else Workload.from_ops([("op", w)]) for w in named.values())
    tables = [jax.tree.map(lambda v: np.asarray(v, np.float64), w.ops) for w in workloads]
    ops = pad_rows(jax.tree.map(lambda *v: np.concatenate(v), *tables))
    owner = np.repeat(np.arange(len(tables)), [len(t.m) for t in tables])
    count = np.zeros((len(tables), len(ops.m)))
    count[owner, np.arange(len(owner))] = ops.count[: len(owner)]
    return Networks(tuple(map(str, named)), workloads, _weights(weights, list(named)), ops, count)


def _weights(given: Any, names: list[Any]) -> np.ndarray:
    if given is None:
        return np.full(len(names), 1 / len(names))
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                raise KPUError(f"weights: {shown(name)} is no network of the workload: {nearest(name, map(str, names))}")
        given = [given.get(name, 0.0) for name in names]
    if isinstance(given, str) or not isinstance(given, (Sequence, np.ndarray)) or len(given) != len(names):
        raise KPUError(f"weights must be {len(names)} numbers, one per network, got {shown(given)}")
    values = np.array([check_number(f"weights[{n}]", w, "relative weight", low=0) for n, w in zip(names, given, strict=True)])
    if not values.sum() > 0:
        raise KPUError("weights: all are 0; give at least one network a positive weight")
    return values / values.sum()
