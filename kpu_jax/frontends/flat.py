"""A program as one flat list of steps: calls inlined, loops as repeats, branches chosen. What the front ends agree on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(eq=False)
class Array:
    """A value of the program. Views and merges have no maker of their own."""

    shape: tuple[int, ...]
    dtype: str
    maker: Step | None = None
    view_of: Array | None = None  # the array of which this is a reshape, slice, broadcast ...
    merges: tuple[Array, ...] = ()  # the arrays of which this is one: a loop's start, the branches' results
    carried: Array | None = None  # of a loop's carry: what the iteration before wrote
    constant: bool = False  # a literal, or a broadcast of one: no bytes move
    literal: Any = None
    name: str = ""

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def base(self) -> Array:
        """The array whose memory this one looks at."""
        array = self
        while array.view_of is not None:
            array = array.view_of
        return array

    @property
    def narrowest(self) -> Array:
        """The view of fewest elements between this array and its base, both included: more of the base cannot be read."""
        array = least = self
        while array.view_of is not None:
            array = array.view_of
            least = array if array.size <= least.size else least
        return least

    def roots(self) -> Iterator[tuple[Array, bool]]:
        """(array, whether it is of the iteration before) of all that this value may be: made by a step, or an argument."""
        seen: set[tuple[int, bool]] = set()
        pending = [(self, False)]
        while pending:
            array, carried = pending.pop()
            array = array.base
            if (id(array), carried) in seen:
                continue
            seen.add((id(array), carried))
            if array.carried is not None:
                pending.append((array.carried, True))
            if array.merges:
                pending += [(a, carried) for a in array.merges]
            elif not array.constant:
                yield array, carried


@dataclasses.dataclass(eq=False)
class Loop:
    """A loop whose body is listed once."""

    name: str
    length: float
    inputs: list[Array]


@dataclasses.dataclass(eq=False)
class Step:
    """One primitive, `repeats` times."""

    primitive: str
    params: dict[str, Any]
    reads: list[Array]
    writes: list[Array]
    scope: str
    source: str
    repeats: float
    loops: tuple[Loop, ...]

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        inside = f" in {self.scope}" if self.scope else ""
        return f"{self.primitive}{inside} at {self.source or 'an unknown line'}"


@dataclasses.dataclass
class Flat:
    """A whole function."""

    steps: list[Step]
    results: list[Array]
