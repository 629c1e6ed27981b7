"""The data-movement program of one operation: every block that moves, in program order."""

from kpu_jax.program.build import MOST_INSTRUCTIONS, build
from kpu_jax.program.isa import INSTRUCTIONS, Engine, Need, Opcode, Operand
from kpu_jax.program.program import Program, same_program
from kpu_jax.program.schedule import Schedule, expand

__all__ = [
    "INSTRUCTIONS",
    "MOST_INSTRUCTIONS",
    "Engine",
    "Need",
    "Opcode",
    "Operand",
    "Program",
    "Schedule",
    "build",
    "expand",
    "same_program",
]
