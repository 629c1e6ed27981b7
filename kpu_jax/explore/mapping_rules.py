"""How a machine whose times were measured maps operations: the mappings that its own compiler chooses among."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kpu_jax.base.errors import KPUError, check_choice
from kpu_jax.mapping.mapping import DATAFLOWS
from kpu_jax.mapping.proposals import CUTS, STRATEGIES, SWEEP_STRATEGIES
from kpu_jax.workload import Workload


@dataclass(frozen=True)
class MappingRules:
    """The mappings among which the machine takes the fastest; by default those of a sweep.

    `dataflows`: those that its array has. `largest_stays`: the largest of A, B and C stays in the PEs (at a tie C, then
    B), also where another dataflow would be faster. `whole_blocks`: L3 takes an operation whole if it fits, else in
    blocks as large as fit, and never in smaller ones that would let loading and computing overlap.
    """

    dataflows: Sequence[str] = DATAFLOWS
    largest_stays: bool = False
    whole_blocks: bool = False

    def __post_init__(self) -> None:
        names = (self.dataflows,) if isinstance(self.dataflows, str) else tuple(self.dataflows)
        if not names:
            raise KPUError(f"dataflows must name at least one of {', '.join(DATAFLOWS)}")
        object.__setattr__(self, "dataflows", tuple(check_choice("dataflows", name, DATAFLOWS) for name in names))

    @property
    def codes(self) -> list[int]:
        return [DATAFLOWS.index(name) for name in self.dataflows]

    def strategies(self) -> np.ndarray:
        """The rows [strategy, field] of the stated set that the rules admit for some operation."""
        stated = STRATEGIES[STRATEGIES[:, 3] == min(CUTS)] if self.whole_blocks else SWEEP_STRATEGIES
        return stated[np.isin(stated[:, 0], self.codes)]

    def admitted(self, workload: Workload) -> np.ndarray:
        """[row, strategy] bool: which of `strategies` the machine considers for each operation."""
        flows = self.strategies()[:, 0]
        if not self.largest_stays:
            return np.ones((workload.rows, len(flows)), bool)
        m, n, k, kind = (np.asarray(getattr(workload.ops, name), np.float64) for name in ("m", "n", "k", "kind"))
        stays = np.stack([m * n, k * n, m * k], axis=1)  # C, B, A: what the dataflows keep, in the order of their codes
        stays[:, [code for code in range(3) if code not in self.codes]] = -1
        return (flows == stays.argmax(axis=1)[:, None]) | (kind == 2)[:, None]
