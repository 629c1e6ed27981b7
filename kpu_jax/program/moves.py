"""One move of a schedule: a gang operation with all that time, traffic and a program need to know of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from kpu_jax.program.isa import INSTRUCTIONS, Engine, Need, Opcode, Operand

NOWHERE = (-1,) * 9
_ENGINES = {opcode: entry.engine for opcode, entry in INSTRUCTIONS.items()}


@dataclass(slots=True)
class Move:
    """An engine class moves (or the fabric computes) one block of one operand. Fields as in `Program`."""

    opcode: Opcode
    operand: Operand = Operand.NONE
    batch: int = 0
    tile: tuple[int, ...] = NOWHERE  # (M, N, K) of L3, of L2, of the pass
    bytes: float = 0.0
    burst_bytes: float = 0.0
    read: float = 0.0
    written: float = 0.0
    height: int = 0
    width: int = 0
    stream: int = 0
    bias_lanes: float = 0.0
    activation_lanes: float = 0.0
    reread: float = 0.0
    bias_read: float = 0.0
    pass_a: float = 0.0
    pass_b: float = 0.0
    pass_c_in: float = 0.0
    pass_c_out: float = 0.0
    macs: int = 0
    label: str = ""
    needs: list[tuple[int, Need]] = field(default_factory=list)  # at most one per engine, the last

    @property
    def engine(self) -> Engine:
        return _ENGINES[self.opcode]
