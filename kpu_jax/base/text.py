"""Text of tables and command lines as the values that it stands for."""

from __future__ import annotations


def number_or_text(text: str) -> int | float | str:
    """The integer or float that `text` writes, or `text` itself."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:  # also of integers with thousands of digits
            pass
    return text
