"""`MemoryPort`: a memory of a simulator as its user reads and writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kpu_jax.base.errors import DtypeError
from kpu_jax.machine import memory
from kpu_jax.machine.formats import format_of, number_format
from kpu_jax.machine.memory import Memory


class MemoryPort:
    """Bytes and arrays of one memory, by address from 0 to `size` - 1. What was never written reads as zero."""

    def __init__(self, state: Memory, check_open: Callable[[], None]) -> None:
        self.state = state
        self._check_open = check_open

    @property
    def size(self) -> int:
        """Capacity [byte]."""
        return self.state.size

    @property
    def base(self) -> int:
        """Address of the first byte in the machine's address map."""
        return self.state.base

    @property
    def occupied(self) -> int:
        """Bytes that running operations hold."""
        return self.state.occupied

    @property
    def high_water(self) -> int:
        """Most bytes that operations held at once, in whole lines of 64."""
        return self.state.high_water

    def __repr__(self) -> str:
        return f"{self.state.name}: {self.size:,} bytes from {self.base:#x}, {len(self.state.pages) * memory.PAGE:,} of them in use"

    def read(self, address: int, size: int) -> np.ndarray:
        """`size` bytes [uint8] from `address` on. Raises `AddressError` beyond the memory."""
        self._check_open()
        return memory.read(self.state, address, size)

    def write(self, address: int, data: Any) -> None:
        """Write `data` (uint8, any shape, row-major) from `address` on. Raises `AddressError`, `DtypeError`."""
        self._check_open()
        self.state = memory.write(self.state, address, data)

    def read_array(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of a number format, row-major, from an `address` that is a multiple of its element's bytes."""
        self._check_open()
        return memory.read_array(self.state, address, shape, number_format("dtype", dtype))

    def write_array(self, address: int, array: Any) -> None:
        """Write an array in its own number format, row-major; 4-bit elements two to a byte."""
        self._check_open()
        values = np.asarray(array)
        if values.dtype == np.uint8:
            raise DtypeError("write_array takes an array of a number format; use write for plain bytes")
        self.state = memory.write_array(self.state, address, values, format_of("array", values))
