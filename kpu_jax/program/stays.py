"""When the blocks of each operand come and go: a block stays at a level until another one takes its place."""

from __future__ import annotations

from array import array

import numpy as np

from kpu_jax.program.blocks import AXES, OPERAND_AXES, Step

LEVELS = (3, 2, 1)  # L3, L2, L1


class Stays:
    """The stays of one operand's blocks at one level; everything is indexed by step."""

    def __init__(self, table: np.ndarray, level: int, operand: str) -> None:
        """`table` [step, 10]: `Step.indices` of all steps."""
        depths = (4 - level) * len(AXES)  # index columns down to this level
        own = [0] + [1 + i for i in range(depths) if AXES[i % len(AXES)] in OPERAND_AXES[operand]]
        blocks = table[:, own]
        changed = changes(blocks)
        starts = np.flatnonzero(changed)
        self.changes = changed.tobytes()  # [step] bool: a new block becomes resident
        self.number = _indexable(np.cumsum(changed) - 1)  # [step]: which stay it belongs to
        self._starts = _indexable(np.append(starts, len(table)))
        if operand == "C":  # the only one whose blocks are remembered from stay to stay
            stay = np.arange(len(starts))
            _, block = np.unique(blocks[starts], axis=0, return_inverse=True)
            block = block.ravel()
            first, last = np.empty(len(starts), int), np.empty(len(starts), int)
            first[block[::-1]] = stay[::-1]  # of several stays of a block the assignment keeps the last
            last[block] = stay
            self.block = _indexable(block)  # [stay]
            self._first = (first[block] == stay).tobytes()
            self._last = (last[block] == stay).tobytes()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def span(self, s: int) -> range:
        """The steps of the stay that step s belongs to."""
        number = self.number[s]
        return range(self._starts[number], self._starts[number + 1])

    def first_ever(self, s: int) -> bool:
        """Is this the first time that the block of step s is at this level?"""
        return bool(self._first[self.number[s]])

    def last_ever(self, s: int) -> bool:
        """Is step s the last one for which its block is at this level?"""
        number = self.number[s]
        return bool(self._last[number]) and self._starts[number + 1] == s + 1


def _indexable(numbers: np.ndarray) -> array:
    """The same numbers in a compact array whose elements are Python's own."""
    return array("i", numbers.astype(np.int32).tobytes())


def index_table(steps: list[Step]) -> np.ndarray:
    """[step, 10] `Step.indices` of all steps."""
    flat = (i for step in steps for i in step.indices())
    return np.fromiter(flat, np.int32, 10 * len(steps)).reshape(-1, 10)


def changes(columns: np.ndarray) -> np.ndarray:
    """[step] bool: differs from the step before; True for the first one."""
    changed = np.ones(len(columns), bool)
    changed[1:] = np.any(columns[1:] != columns[:-1], axis=1)
    return changed
