"""Host-side errors: each names the field, the value, the unit and what to do about it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

MAX_DIMENSION = 2**31 - 1  # one side of a matrix
MAX_MACS = 2**53  # batch x M x N x K: float64 counts exactly up to here


class KPUError(ValueError):
    """A wrong input to kpu_jax; the message names field, value, unit and remedy."""


class InfeasibleError(KPUError):
    """A schedule that does not fit the chip; the message names the memory and the overflow in bytes."""


def nearest(name: object, valid: Iterable[str]) -> str:
    """`'did you mean ...?'` plus the full list, for a name that is not one of `valid`."""
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(map(repr, close))}? " if close else ""
    return f"{hint}valid: {', '.join(names)}"


def check_choice(field: str, value: object, valid: Iterable[str]) -> str:
    """`value` if it is one of `valid`, else a `KPUError` with the nearest names."""
    names = list(valid)
    if not isinstance(value, str) or value not in names:
        raise KPUError(f"{field} = {value!r} is unknown: {nearest(value, names)}")
    return value


def check_number(
    field: str,
    value: Any,
    unit: str,
    *,
    low: float = 0.0,
    high: float = math.inf,
    integer: bool = False,
    low_open: bool = False,
) -> float:
    """A finite number in [low, high] (or (low, high]) as a Python float.

    Raises `KPUError` naming `field`, the value and the `unit` for booleans, strings, NaN, infinities,
    fractions where an integer is due, and values outside the range.
    """
    span = f"{'greater than' if low_open else 'at least'} {low:g}" + (f" and at most {high:g}" if high < math.inf else "")
    kind = "an integer" if integer else "a number"
    want = f"{field} must be {kind} {span} [{unit}]"
    if isinstance(value, (bool, np.bool_, str, bytes)) or value is None:
        raise KPUError(f"{want}, got {value!r}")
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise KPUError(f"{want}, got {value!r}") from None
    if array.ndim != 0:
        raise KPUError(f"{want}, got an array of shape {array.shape}; stack whole pytrees and use jax.vmap instead")
    number = float(array)
    if not math.isfinite(number):
        raise KPUError(f"{want}, got {number}")
    if integer and number != math.floor(number):
        raise KPUError(f"{want}, got the fraction {number:g}")
    if number < low or (low_open and number <= low) or number > high:
        raise KPUError(f"{want}, got {number:g}")
    return number


def check_flag(field: str, value: object) -> float:
    """A boolean as 0.0 or 1.0; anything else is a `KPUError`."""
    if isinstance(value, (bool, np.bool_)):
        return float(value)
    raise KPUError(f"{field} must be true or false, got {value!r}")
