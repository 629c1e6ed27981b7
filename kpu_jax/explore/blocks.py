"""A space cut into blocks of one shape, each evaluated at once on one device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kpu_jax.explore.space import Space
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES
from kpu_jax.workload import Op
from kpu_jax.workload.padding import pad_rows

BLOCK_EVALUATIONS = 8_000_000  # chips x operations x mappings on the device at once: bounds the memory


@dataclass(frozen=True)
class Blocks:
    """A space cut into blocks of one shape, which the space and the workload alone decide.

    A chip is always in the same lane of the same block, so its figures are the same to the last bit whatever range,
    part, device or process evaluates it.
    """

    geometries: int  # per block
    speeds: int
    of_geometries: int  # in the space
    of_speeds: int

    @classmethod
    def of(cls, space: Space, per_chip: int) -> Blocks:
        """Blocks of at most `BLOCK_EVALUATIONS`, at `per_chip` evaluations for each chip."""
        speeds = max(1, min(space.speeds, BLOCK_EVALUATIONS // per_chip))
        whole = speeds == space.speeds  # else one geometry at a time, so that every block is a range of indices
        geometries = max(1, min(space.geometries, BLOCK_EVALUATIONS // (per_chip * speeds))) if whole else 1
        return cls(geometries, speeds, space.geometries, space.speeds)

    @property
    def per_row(self) -> int:
        """Blocks that share their geometries."""
        return -(-self.of_speeds // self.speeds)

    def __len__(self) -> int:
        return -(-self.of_geometries // self.geometries) * self.per_row

    def first(self, block: int) -> tuple[int, int]:
        """(first geometry, first speed) of a block."""
        row, column = divmod(block, self.per_row)
        return row * self.geometries, column * self.speeds

    def first_chip(self, block: int) -> int:
        """Index of the first chip of a block; of one past the last: the number of chips."""
        geometry, speed = self.first(block)
        return min(geometry, self.of_geometries) * self.of_speeds + speed

    def over(self, start: int, stop: int) -> Iterator[int]:
        """The blocks that hold the chips [start, stop)."""
        row = start // self.of_speeds // self.geometries
        for block in range(row * self.per_row, len(self)):
            if self.first_chip(block) >= stop:
                return
            if self.first_chip(block + 1) > start:
                yield block


def blocks_of(space: Space, ops: Op, strategies: np.ndarray = SWEEP_STRATEGIES) -> Blocks:
    """The blocks in which a sweep of `space` with this workload is evaluated."""
    return Blocks.of(space, len(pad_rows(ops).m) * len(strategies))
