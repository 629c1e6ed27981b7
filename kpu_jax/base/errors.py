"""Host-side errors: each names the field, the value, the unit and what to do about it."""

from __future__ import annotations

import difflib
import math
import numbers
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

MAX_DIMENSION = 2**31 - 1  # one side of a matrix
MAX_MACS = 2**53  # batch x M x N x K: float64 counts exactly up to here


class KPUError(ValueError):
    """A wrong input to kpu_jax; the message names field, value, unit and remedy."""


class InfeasibleError(KPUError):
    """A schedule that does not fit the chip; the message names the memory and the overflow in bytes."""


class AddressError(KPUError):
    """An address range that lies outside its memory, is misaligned, or overlaps another; the message gives both."""


class MemoryFullError(KPUError):
    """No free range of a memory is large enough; the message names the memory and the bytes wanted and free."""


class ClosedError(KPUError):
    """A simulator used after it was closed."""


class ShapeError(KPUError):
    """Arrays whose shapes do not fit an operation; the message names both shapes."""


class DtypeError(KPUError):
    """An array whose elements are no number format of the KPU; the message names the nearest that is."""


class QuantisationError(KPUError):
    """A quantisation scale that is no positive, finite number."""


class _Short(reprlib.Repr):
    """Stops early where `repr` grows without bound: nested values, and integers that Python refuses to print."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 60, 60

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**20 else f"an integer of about {int(x.bit_length() * math.log10(2)) + 1} digits"


_SHORT = _Short()


def shown(value: object) -> str:
    """`repr` for a message: one line of at most 200 characters, whatever the value."""
    text = _SHORT.repr(value)
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= 200 else f"{text[:197]}..."


def word(name: str) -> str:
    """A name for a message: as it is, or as `shown` where it is empty, long or would not print."""
    return name if 0 < len(name) <= 100 and name.isprintable() else shown(name)


def plain(number: Any) -> str:
    """A number for a message: integers in full, others with the digits that tell them from their neighbours."""
    return str(int(number)) if abs(number) < 1e16 and number == math.floor(number) else repr(float(number))


def nearest(name: object, valid: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """`'did you mean ...?'` plus the full list, for a name that is not one of `valid`; case does not matter.

    `aliases` are other words for valid names (lower case), which the hint translates.
    """
    names = sorted(valid)
    spelled = {**(aliases or {}), **{n.lower(): n for n in names}}
    close = difflib.get_close_matches(name.lower()[:100], spelled, n=3, cutoff=0.5) if isinstance(name, str) else []
    if close and close[0] == name.lower():  # type: ignore[attr-defined]
        close = close[:1]
    hint = f"did you mean {', '.join(dict.fromkeys(repr(spelled[c]) for c in close))}? " if close else ""
    return f"{hint}valid: {', '.join(names)}"


def check_choice(field: str, value: object, valid: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """`value` if it is one of `valid`, else a `KPUError` with the nearest names."""
    names = list(valid)
    if not isinstance(value, str) or value not in names:
        raise KPUError(f"{field} = {shown(value)} is unknown: {nearest(value, names, aliases)}")
    return value


def is_number(value: object) -> bool:
    """True for integers, floats and arrays of them; not for booleans, text, complex numbers and dates."""
    if isinstance(value, (np.ndarray, jax.Array)):
        return any(jax.dtypes.issubdtype(value.dtype, kind) for kind in (np.integer, np.floating))
    return isinstance(value, (numbers.Real, np.number)) and not isinstance(value, (bool, np.complexfloating, np.timedelta64))


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
    """A finite number in [low, high] (or (low, high]) as a Python float; an array of shape () counts as a number.

    Raises `KPUError` naming `field`, the value and the `unit` for booleans, strings, NaN, infinities,
    fractions where an integer is due, and values outside the range.
    """
    span = f"{'greater than' if low_open else 'at least'} {plain(low)}" + (f" and at most {plain(high)}" if high < math.inf else "")
    kind = "an integer" if integer else "a number"
    want = f"{field} must be {kind} {span} [{unit}]"
    if not is_number(value):
        raise KPUError(f"{want}, got {shown(value)}")
    if isinstance(value, jax.core.Tracer):
        raise KPUError(f"{want}, got a traced value; this one must be known outside jit, vmap and grad")
    if np.ndim(value):
        raise KPUError(f"{want}, got an array of shape {np.shape(value)}; stack whole pytrees and use jax.vmap instead")
    try:
        number = float(value)
    except OverflowError:
        raise KPUError(f"{want}, got {shown(value)}") from None
    if not math.isfinite(number):
        raise KPUError(f"{want}, got {number}")
    if integer and number != math.floor(number):
        raise KPUError(f"{want}, got the fraction {plain(number)}")
    if number < low or (low_open and number <= low) or number > high:
        raise KPUError(f"{want}, got {plain(number)}")
    return number


def check_flag(field: str, value: object) -> float:
    """A boolean, or an array of one of shape (), as 0.0 or 1.0; anything else is a `KPUError`."""
    scalar = isinstance(value, (np.ndarray, jax.Array)) and value.dtype == bool and not value.ndim
    if isinstance(value, (bool, np.bool_)) or (scalar and not isinstance(value, jax.core.Tracer)):
        return float(value)  # type: ignore[arg-type]
    raise KPUError(f"{field} must be true or false, got {shown(value)}")
