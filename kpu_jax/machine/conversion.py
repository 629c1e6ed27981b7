"""Quantisation and dequantisation of what passes through a mover: a DMA engine, a BlockMover or a Streamer."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from kpu_jax.base.errors import DtypeError, QuantisationError, check_choice
from kpu_jax.machine.fabric import elementwise
from kpu_jax.machine.formats import convert, format_of, number_format, storage
from kpu_jax.machine.vector_engine import check_scale, dequantise, quantise
from kpu_jax.workload.dtypes import NumberFormat

MOVERS = ("dma", "block_mover", "streamer")  # from external memory to the fabric


class Conversion:
    """What a mover does to an operand's elements: x / scale towards the narrower format, q scale towards the wider one.

    One of the two formats is a float. Rounding and saturation are those of `formats`: to nearest even, and the largest
    value. Raises `KPUError` for an unknown mover, `DtypeError` for a format that the KPU does not have, and
    `QuantisationError` for a scale that is no positive, finite number.
    """

    def __init__(self, on: str, dtype: Any, scale: float = 1.0) -> None:
        """`on`: which mover of `MOVERS` converts; `dtype`: the format at its far end; `scale`: the value of one step."""
        self.on = check_choice("Conversion.on", on, MOVERS)
        self.format: NumberFormat = number_format("Conversion.dtype", dtype)
        check_scale("Conversion.scale", scale)
        if np.ndim(scale):
            raise QuantisationError(f"Conversion.scale must be one number, got an array of shape {np.shape(scale)}")
        self.scale = float(scale)

    def __repr__(self) -> str:
        return f"Conversion({self.on!r}, {self.format.name!r}, {self.scale:g})"

    def check(self, field: str, source: NumberFormat) -> None:
        """`DtypeError` naming `field` unless one format is a float."""
        if not source.is_float and not self.format.is_float:
            raise DtypeError(f"{field} is converted from {source.name} to {self.format.name}: one of them must be a float format")

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """`values`, of a number format, in the format at the far end."""
        source = format_of("the converted block", values)
        self.check("the converted block", source)
        narrows = not self.format.is_float or (source.is_float and self.format.bits < source.bits)
        block = values.astype(np.float32)
        converted = elementwise(_converter(self.format, narrows), block, np.full(block.shape, self.scale, np.float32))
        return converted.astype(storage(self.format), copy=False)


@functools.cache
def _converter(fmt: NumberFormat, narrows: bool) -> Any:
    if narrows:
        return lambda x, scale: quantise(x, fmt, scale)
    return lambda q, scale: convert(dequantise(q, scale), fmt)
