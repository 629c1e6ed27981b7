"""How long an instruction takes, from `design.md` section 2; written apart from the executor, for the event simulation."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

ENGINES = ("host", "dma", "block_mover", "streamer", "fabric", "control")


def duration(program: Any, i: int, rates: Any) -> tuple[Fraction, Fraction]:
    """(cycles for which the engine is held, cycles from then to completion), as exact rationals."""
    engine = ENGINES[program.engine[i]]
    if engine == "control":
        return Fraction(0), Fraction(0)
    if engine == "fabric":
        stream, fill, unload = Fraction(float(program.stream[i])), Fraction(rates.fill_drain), Fraction(rates.unload)
        if program.op.kind == 2:
            return stream * Fraction(float(rates.element)), Fraction(0)
        return (stream + unload, fill) if rates.overlap else (stream + unload + fill, Fraction(0))
    gang, size = getattr(rates, engine), Fraction(float(program.burst_bytes[i]))
    # The engines share the bytes evenly; each sends its part in whole bus words; the memory behind may be slower.
    part = _ceil(size / Fraction(gang.engines))
    words = _ceil(Fraction(part) / Fraction(gang.bus))
    on_the_way = Fraction(float(program.bias_lanes[i])) * Fraction(rates.bias)
    on_the_way += Fraction(float(program.activation_lanes[i])) * Fraction(rates.activation)
    return max(words * Fraction(gang.cycles), size / Fraction(gang.limit), on_the_way), Fraction(gang.latency)


def _ceil(x: Fraction) -> int:
    return -(-x.numerator // x.denominator)
