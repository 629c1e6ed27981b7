"""One move of a schedule: a gang operation with all that time, traffic and a program need to know of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from kpu_jax.program.isa import INSTRUCTIONS, Engine, Need, Opcode, Operand, route

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

    def accesses(self) -> list[tuple[str, str, str, float]]:
        """("read" or "write", memory, operand, bytes) of everything that it touches."""
        x = "bias" if self.operand == Operand.BIAS else self.operand.name
        source, target = route(self.opcode, self.operand)
        found = [("read", source, x, self.read), ("write", target, x, self.written)]
        found += [("read", target, "C", self.reread), ("read", "l1", "bias", self.bias_read)]
        for name, size in (("A", self.pass_a), ("B", self.pass_b), ("C", self.pass_c_in)):
            found += [("read", "l1", name, size), ("write", "pe", name, size)]
        found += [("read", "pe", "C", self.pass_c_out), ("write", "l1", "C", self.pass_c_out)]
        return [access for access in found if access[3]]
