"""Where an operation of a workload comes from, the arrays it reads and writes, and the work that the chip cannot do."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class Tensor(NamedTuple):
    """An array that an operation reads or writes.

    `producers` are positions of the workload's operations, `host` positions of its host work, that write it; both
    empty: an argument or a constant, whose name is then `name` where it has one. With `carried` it is the value
    of the iteration before; the first iteration's comes from operations outside the loop, listed with the rest.
    """

    shape: tuple[int, ...]
    dtype: str
    bytes: float  # as stored, fractions of a byte for packed formats
    producers: tuple[int, ...] = ()
    host: tuple[int, ...] = ()
    carried: bool = False
    result: bool = False  # an array written: whether the caller receives it
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a front end knows of one operation beside its numbers. Host only; empty for operations made by hand."""

    source: str = ""  # "model.py:41 (attention)", or a file and its node
    scope: str = ""  # named scopes, outermost first, with JAX's jvp(...) and transpose(...)
    primitives: tuple[str, ...] = ()  # what was fused into the operation, in program order
    loops: tuple[str, ...] = ()  # names of the loops around it, outermost first
    reads: tuple[Tensor, ...] = ()
    writes: tuple[Tensor, ...] = ()
    meets_itself: tuple[str, ...] = ()  # primitives where an array meets a function of itself: mul in x * sigmoid(x), integer_pow in x**2
    zero_macs: float = 0.0  # multiply-accumulates of one instance whose input is padding, or a zero put in by a stride


@dataclasses.dataclass(frozen=True)
class HostWork:
    """Work that the chip cannot do: its arrays go to the host and come back. Not in the table, never dropped."""

    name: str
    function: str  # the primitive or node type
    reason: str
    repeats: float
    origin: Origin
    readers: tuple[int, ...] = ()  # operations that read a result

    @property
    def bytes_to_host(self) -> float:
        """Bytes that one instance reads, each array once [byte]."""
        return float(sum(t.bytes for t in self.origin.reads))

    @property
    def bytes_from_host(self) -> float:
        """Bytes that one instance writes [byte]."""
        return float(sum(t.bytes for t in self.origin.writes))
