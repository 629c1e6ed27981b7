"""The schedule written out: every block that moves, in program order."""

from kpu_jax.program.schedule import Move, Schedule, expand

__all__ = ["Move", "Schedule", "expand"]
