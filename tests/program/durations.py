"""How long a move takes, from `design.md` section 2; written apart from the player, for the event simulation."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from kpu_jax.program.moves import Move


def duration(move: Move, case: Any, rates: Any) -> tuple[Fraction, Fraction]:
    """(cycles for which the engine is held, cycles from then to completion), as exact rationals."""
    fill = Fraction(rates.fill_drain)
    if move.engine.name == "FABRIC":
        if case.op.kind == 2:
            return move.stream * Fraction(float(rates.element)), Fraction(0)
        return (move.stream + Fraction(0), fill) if rates.overlap else (move.stream + fill, Fraction(0))
    gang = getattr(rates, move.engine.name.lower())
    on_the_way = move.bias_lanes * Fraction(rates.bias) + move.activation_lanes * Fraction(rates.activation)
    return max(_transfer(move.burst_bytes, gang), on_the_way), Fraction(gang.latency)


def _transfer(size: float, gang: Any) -> Fraction:
    """The engines share the bytes evenly; each sends its part in whole bus words; the memory behind may be slower."""
    part = _ceil(Fraction(size) / Fraction(gang.engines))
    words = _ceil(Fraction(part) / Fraction(gang.bus))
    return max(words * Fraction(gang.cycles), Fraction(size) / Fraction(gang.limit))


def _ceil(x: Fraction) -> int:
    return -(-x.numerator // x.denominator)
