"""Operators by what they do; importing this registers all of them in `run.OPERATORS`."""

from kpu_jax.frontends.onnx.operators import (
    attention,
    control,
    elementwise,
    layout,
    linear,
    quantised,
    recurrent,
    reductions,
    resize,
    runtime_attention,
    sampling,
    sequences,
)

__all__ = [
    "attention",
    "control",
    "elementwise",
    "layout",
    "linear",
    "quantised",
    "recurrent",
    "reductions",
    "resize",
    "runtime_attention",
    "sampling",
    "sequences",
]
