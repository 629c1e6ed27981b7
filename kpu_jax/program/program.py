"""`Program`: one operation's data movement, instruction by instruction, as a struct of arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from kpu_jax.base.validation import check_type
from kpu_jax.program.isa import Need, Opcode

NO_NEED = -1  # pads `needs`
NO_BLOCK = -1  # in `tile`: below the level of the block, or along an axis that the operand lacks

COLUMNS: dict[str, type] = {
    "opcode": np.int32,
    "operand": np.int32,
    "batch": np.int32,
    "tile": np.int32,
    "bytes": np.float64,
    "burst_bytes": np.float64,
    "read": np.float64,
    "written": np.float64,
    "height": np.int32,
    "width": np.int32,
    "engine": np.int32,
    "queue": np.int32,
    "stream": np.float64,
    "bias_lanes": np.float64,
    "activation_lanes": np.float64,
    "reread": np.float64,
    "bias_read": np.float64,
    "pass_a": np.float64,
    "pass_b": np.float64,
    "pass_c_in": np.float64,
    "pass_c_out": np.float64,
    "macs": np.float64,
    "needs": np.int32,
    "need_kind": np.int32,
    "label": np.int32,
}
"""Columns and their dtypes: [n], but `tile` [n, 3, 3], `needs` and `need_kind` [n, P]."""
HEADER = ("op", "mapping", "rows", "cols", "macs_per_pe", "burst")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Program:
    """A pytree of NumPy arrays on the host; one row per instruction, in program order.

    Bytes are those of all compute tiles together. Traffic is a sum over the rows, see `traffic`.
    """

    op: Any  # the plain `Op` that it computes
    mapping: Any  # the `Mapping` that it was built from
    rows: Any  # of the array that it was built for
    cols: Any
    macs_per_pe: Any  # multiply-adds of a PE per cycle
    burst: Any  # of the external memory [byte]

    opcode: Any  # [n] isa.Opcode
    operand: Any  # [n] isa.Operand
    batch: Any  # [n] index of the step of the batch loop; groups of compute tiles each take a contiguous part
    tile: Any  # [n, (L3, L2, pass), (M, N, K)] indices of the block at each level, -1 where there is none
    bytes: Any  # [n] that the gang carries together [byte]
    burst_bytes: Any  # [n] the same in whole bursts: what durations are made of [byte]
    read: Any  # [n] at the source memory [byte]
    written: Any  # [n] at the target memory; a multicast writes more than it reads [byte]
    height: Any  # [n] of the block, for the first compute tile; of the whole L3 block for moves into and out of L3 [elements]
    width: Any
    engine: Any  # [n] isa.Engine
    queue: Any  # [n] the in-order queue that serves it
    stream: Any  # [n] passes: cycles' worth of elements that stream through the array, or rows of vector lanes
    bias_lanes: Any  # [n] elements per vector lane that get the bias on their way out
    activation_lanes: Any  # [n] ... and the activation
    reread: Any  # [n] read at the target to be added to: parts of K in L3, partial sums in L1 [byte]
    bias_read: Any  # [n] of L1 by a drain [byte]
    pass_a: Any  # [n] of A from L1 into the PEs [byte]
    pass_b: Any
    pass_c_in: Any  # [n] partial sums of C from L1 into the PEs
    pass_c_out: Any  # [n] of C from the PEs to L1
    macs: Any  # [n] multiply-adds
    needs: Any  # [n, P] instructions that it waits for, -1 for none
    need_kind: Any  # [n, P] isa.Need
    label: Any  # [n] index into `labels`

    labels: tuple[str, ...]  # static

    def __len__(self) -> int:
        return len(self.opcode)

    def __repr__(self) -> str:
        n = np.shape(self.opcode)[-1]
        return f"Program of {n:,} instructions: {self.op!r}"

    def columns(self) -> dict[str, np.ndarray]:
        """Column name -> array."""
        return {name: getattr(self, name) for name in COLUMNS}

    def replace(self, **changes: Any) -> Program:
        """The same program with other columns or header fields (unchecked; see `check_program`)."""
        return dataclasses.replace(self, **changes)


jax.tree_util.register_dataclass(Program, data_fields=[*HEADER, *COLUMNS], meta_fields=["labels"])


def same_program(a: Program, b: Program) -> bool:
    """Do two programs have the same header, columns (values and dtypes) and labels? `KPUError` for anything else."""
    for program in (a, b):
        check_type("the program", program, Program, "make one with kpu.program.build")
    (ours, structure), (theirs, other) = jax.tree.flatten(a), jax.tree.flatten(b)
    if structure != other:  # type: ignore[operator]
        return False
    pairs = zip(ours, theirs, strict=True)
    return all(np.shape(x) == np.shape(y) and np.asarray(x).dtype == np.asarray(y).dtype and np.array_equal(x, y) for x, y in pairs)


def empty_columns(n: int, prerequisites: int) -> dict[str, np.ndarray]:
    """Columns of `n` instructions that do nothing and need nothing, to be filled in."""
    shapes = {"tile": (n, 3, 3), "needs": (n, prerequisites), "need_kind": (n, prerequisites)}
    fill = {"opcode": int(Opcode.NOP), "tile": NO_BLOCK, "needs": NO_NEED, "need_kind": int(Need.OPERAND)}
    return {name: np.full(shapes.get(name, (n,)), fill.get(name, 0), dtype) for name, dtype in COLUMNS.items()}
