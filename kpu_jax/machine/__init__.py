"""The functional KPU: numbers out of the fabric, in the order in which a schedule adds them."""

from kpu_jax.machine.conversion import Conversion
from kpu_jax.machine.formats import convert
from kpu_jax.machine.grid import Activity, step_pass
from kpu_jax.machine.matmul import matmul
from kpu_jax.machine.order import regions_of
from kpu_jax.machine.places import MachineError
from kpu_jax.machine.run import Run, run
from kpu_jax.machine.vector_engine import dequantise, quantise
from kpu_jax.machine.wave import wave

__all__ = [
    "Activity",
    "Conversion",
    "MachineError",
    "Run",
    "convert",
    "dequantise",
    "matmul",
    "quantise",
    "regions_of",
    "run",
    "step_pass",
    "wave",
]
