"""Where blocks are during a run: the places that each memory has for an operand, and the bytes moved and held."""

from __future__ import annotations

from collections.abc import ItemsView
from typing import Any, Generic, TypeVar

from kpu_jax.base.errors import KPUError

LEVELS = ("host", "dram", "l3", "l2", "l1", "pe")
OPERANDS = ("A", "B", "C", "bias")
Block = TypeVar("Block")


class MachineError(KPUError):
    """A program that does not do what it says: it reads what is not there, or overwrites what is still needed."""


class Counters:
    """Bytes read and written at each memory, by operand, and the most bytes that each memory held at once."""

    def __init__(self) -> None:
        self.reads = {level: dict.fromkeys(OPERANDS, 0.0) for level in LEVELS}
        self.writes = {level: dict.fromkeys(OPERANDS, 0.0) for level in LEVELS}
        self.held = dict.fromkeys(LEVELS, 0.0)
        self.high_water = dict.fromkeys(LEVELS, 0.0)

    def move(self, operand: str, source: str, target: str, size: float, copies: float = 1) -> None:
        """`size` bytes read at the source and written `copies` times at the target ("" for none)."""
        if source:
            self.reads[source][operand] += size
        if target:
            self.writes[target][operand] += size * copies

    def hold(self, level: str, size: float) -> None:
        """A memory takes `size` bytes more (or gives them back, if negative)."""
        self.held[level] += size
        self.high_water[level] = max(self.high_water[level], self.held[level])


class Places(Generic[Block]):
    """The blocks of one operand that a memory holds: one, or two if double-buffered (None: as many as come).

    A new block takes the place of the oldest, unless the blocks are `precious`: those leave only when they are taken out.
    """

    def __init__(self, name: str, places: int | None, precious: bool = False) -> None:
        self.name, self._places, self._precious = name, places, precious
        self._blocks: dict[Any, Block] = {}

    def put(self, key: Any, block: Block) -> Block | None:
        """Hold `block`; returns the one that it replaces."""
        gone = self._blocks.pop(key, None)
        if gone is None and self._places is not None and len(self._blocks) == self._places:
            if self._precious:
                raise MachineError(f"{self.name}: block {key} comes before block {next(iter(self._blocks))} has left")
            gone = self._blocks.pop(next(iter(self._blocks)))
        self._blocks[key] = block
        return gone

    def get(self, key: Any) -> Block:
        """The block of these coordinates."""
        if key not in self._blocks:
            raise MachineError(f"{self.name}: block {key} is read and is not there; there are {list(self._blocks) or 'none'}")
        return self._blocks[key]

    def take(self, key: Any) -> Block:
        """The block of these coordinates, which leaves."""
        block = self.get(key)
        del self._blocks[key]
        return block

    def __contains__(self, key: Any) -> bool:
        return key in self._blocks

    def items(self) -> ItemsView[Any, Block]:
        """(coordinates, block) of all blocks."""
        return self._blocks.items()
