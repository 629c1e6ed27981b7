"""What a search has proven about the mapping that it returns."""

from __future__ import annotations

from typing import NamedTuple


class Certificate(NamedTuple):
    """The objective of every mapping of the space is at least `lower_bound`; that of the returned one is `value`."""

    space: int  # mappings in the space, legal or not
    bounded: int  # sets of mappings that were bounded, single mappings among them
    timed: int  # mappings that were timed exactly
    value: float  # objective of the returned mapping, by exact time
    lower_bound: float  # on the objective over the whole space, to 1e-9 relative
    closed_by: str  # "bound": every mapping was timed, or lies in a set whose bound is no better; "budget": some are left

    @property
    def gap(self) -> float:
        """How much better, relative to `value`, an unseen mapping might still be."""
        return max(0.0, 1 - self.lower_bound / self.value)

    @property
    def certified(self) -> bool:
        """Is the mapping proven best (within the `gap` that was asked for)?"""
        return self.closed_by != "budget"
