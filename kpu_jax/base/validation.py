"""Checks of whole records at once: leaves that no constructor saw (`dataclasses.replace`, `jax.tree.map`, stacks)."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, check_number, is_number, shown


class Limited(Protocol):
    """The limits of one leaf: the closed range [low, high], integers only or not, and one value beside the range."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def integer(self) -> bool: ...
    @property
    def special(self) -> float | None: ...


@dataclasses.dataclass(frozen=True)
class Limits:
    """`Limited` with its unit, for leaves that no other table describes; `low_open` excludes `low` itself."""

    unit: str
    low: float = 0.0
    high: float = math.inf
    integer: bool = False
    low_open: bool = False
    special: float | None = None

    def check(self, path: str, value: Any) -> float:
        """`value` as a float, or the `KPUError` that names `path`, value, unit and range."""
        return check_number(
            path, value, self.unit, low=self.low, high=self.high, integer=self.integer, low_open=self.low_open
        )


class LeafRules:
    """The limits of every leaf of a record, checked in one vectorised pass over scalars and stacks alike."""

    def __init__(self, limits: Mapping[str, Limited], check: Callable[[str, Any], Any]) -> None:
        """`limits` by dotted path; `check(path, value)` raises the full message for one wrong number."""
        self._paths = tuple(limits)
        self._read = operator.attrgetter(*self._paths)
        self._check = check
        rows = limits.values()
        self._low = np.array([np.nextafter(r.low, np.inf) if getattr(r, "low_open", False) else r.low for r in rows])
        self._high = np.array([min(r.high, np.finfo(np.float64).max) for r in rows])
        self._integer = np.array([r.integer for r in rows])
        self._special = np.array([np.nan if r.special is None else r.special for r in rows])

    def __call__(self, tree: Any, prefix: str = "") -> None:
        """Raise a `KPUError` for the first leaf of `tree` that is no number or outside its limits.

        Leaves may be NumPy or concrete jax values of any shape; traced ones are passed over. `prefix` stands
        before the dotted paths in messages.
        """
        try:
            leaves = self._read(tree)
        except AttributeError as error:
            raise KPUError(f"{prefix or 'configuration '}is not whole: {error}") from None
        if all(type(leaf) is np.float64 for leaf in leaves):
            flat, sizes = np.array(leaves), None
            low, high, integer, special = self._low, self._high, self._integer, self._special
        else:
            arrays = [_flat(prefix + path, leaf) for path, leaf in zip(self._paths, leaves, strict=True)]
            flat, sizes = np.concatenate(arrays), [len(a) for a in arrays]
            low, high, integer, special = (
                np.repeat(x, sizes) for x in (self._low, self._high, self._integer, self._special)
            )
        good = (flat >= low) & (flat <= high) & (~integer | (flat == np.floor(flat))) | (flat == special)
        if not good.all():
            self._explain(int(np.argmin(good)), flat, sizes, prefix)

    def _explain(self, position: int, flat: np.ndarray, sizes: list[int] | None, prefix: str) -> None:
        starts = np.concatenate([[0], np.cumsum(sizes)]) if sizes else np.arange(len(flat) + 1)
        leaf = int(np.searchsorted(starts, position, side="right")) - 1
        count = int(starts[leaf + 1] - starts[leaf])
        try:
            self._check(prefix + self._paths[leaf], np.float64(flat[position]))
        except KPUError as error:
            where = f" (element {position - int(starts[leaf])} of the stack)" if count > 1 else ""
            raise KPUError(f"{error}{where}") from None


def _flat(path: str, leaf: Any) -> np.ndarray:
    """The numbers of a leaf in a row; none for a tracer."""
    if isinstance(leaf, jax.core.Tracer):
        return np.zeros(0)
    if not is_number(leaf):
        raise KPUError(f"{path} must hold numbers, got {type(leaf).__name__} {shown(leaf)}")
    try:
        return np.asarray(leaf, np.float64).ravel()
    except OverflowError:
        raise KPUError(f"{path} must hold numbers of at most 1.8e308, got {shown(leaf)}") from None


def check_type(name: str, value: Any, kind: type, remedy: str) -> None:
    """`KPUError` with the `remedy` if `value` is no `kind`."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise KPUError(f"{name} must be {article} {kind.__name__}, got {type(value).__name__} {shown(value)}; {remedy}")
