"""The data-movement program of one operation: every block that moves, in program order."""

from kpu_jax.program.binary import load_program, save_program
from kpu_jax.program.build import MOST_INSTRUCTIONS, build
from kpu_jax.program.converted import converted
from kpu_jax.program.executor import cycles, execute, execute_durations
from kpu_jax.program.isa import INSTRUCTIONS, Engine, Need, Opcode, Operand
from kpu_jax.program.program import Program, same_program
from kpu_jax.program.schedule import Schedule, expand
from kpu_jax.program.text import assemble, disassemble
from kpu_jax.program.timeline import Idle, Timeline, Wait
from kpu_jax.program.traffic import traffic
from kpu_jax.program.validator import check_program
from kpu_jax.program.wiring import Wiring, wire

__all__ = [
    "INSTRUCTIONS",
    "MOST_INSTRUCTIONS",
    "Engine",
    "Idle",
    "Need",
    "Opcode",
    "Operand",
    "Program",
    "Schedule",
    "Timeline",
    "Wait",
    "Wiring",
    "assemble",
    "build",
    "check_program",
    "converted",
    "cycles",
    "disassemble",
    "execute",
    "execute_durations",
    "expand",
    "load_program",
    "same_program",
    "save_program",
    "traffic",
    "wire",
]
