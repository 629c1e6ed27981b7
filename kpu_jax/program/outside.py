"""Bytes of L3 blocks outside the chip: whole bursts in external memory, whole input rows of a convolution."""

from __future__ import annotations

import functools
from typing import Any

from kpu_jax.program.blocks import OPERAND_AXES, Blocks, Step, input_rows


class Outside:
    """How many bytes an L3 block has in external memory, and in how many bursts they come."""

    def __init__(self, op: Any, blocks: Blocks, burst: int) -> None:
        self._op, self._blocks, self._burst = op, blocks, burst
        self._sizes: dict[tuple, tuple[float, float]] = {}
        self._rows_of = functools.cache(lambda first, count: frozenset(input_rows(op, first, count)))

    def size(self, x: str, step: Step, complete: bool = True) -> tuple[float, float]:
        """(bytes, bytes of the bursts that carry them) of the operand's L3 block, for all batch groups."""
        rows_axis, cols_axis = OPERAND_AXES[x]
        key = x, step.batch, step.l3[rows_axis], step.l3[cols_axis], complete
        if key not in self._sizes:
            self._sizes[key] = self._size(x, step, complete)
        return self._sizes[key]

    def _size(self, x: str, step: Step, complete: bool) -> tuple[float, float]:
        b, groups = self._blocks, self._blocks.groups(step.batch)
        rows_axis, cols_axis = OPERAND_AXES[x]
        h, w = b.l3_size(rows_axis, step.l3[rows_axis]), b.l3_size(cols_axis, step.l3[cols_axis])
        width = b.bytes[x] if complete or x != "C" else b.acc_bytes
        if x == "A" and b.kind == 1:
            op = self._op
            channels = w // (int(op.kernel_h) * int(op.kernel_w))
            rows, line = self._input_rows(step), int(op.in_w) * channels * width
            if channels == int(op.channels):
                padded = rows * self._bursts(1, line, True)
            else:
                padded = self._bursts(rows * int(op.in_w), channels * width, False)
            return groups * rows * line, groups * padded
        contiguous = w == b.size[cols_axis]
        return groups * h * w * width, groups * self._bursts(h, w * width, contiguous)

    def bias(self, step: Step) -> tuple[float, float]:
        """The same of the bias of the L3 block's columns, one row per batch group."""
        b, groups = self._blocks, self._blocks.groups(step.batch)
        line = b.l3_size("n", step.l3["n"]) * b.acc_bytes
        return groups * line, groups * self._bursts(1, line, True)

    def fresh_input(self, step: Step) -> float:
        """Bytes of a convolution's input rows that no earlier block along M has brought from the host."""
        b, op = self._blocks, self._op
        first, count = self._output_rows(step)
        rows = self._input_rows(step)
        if count <= int(op.out_h):
            rows = len(self._rows_of(first, count) - self._rows_of(0, first))
        channels = b.l3_size("k", step.l3["k"]) // (int(op.kernel_h) * int(op.kernel_w))
        return b.groups(step.batch) * rows * int(op.in_w) * channels * b.bytes["A"]

    def _output_rows(self, step: Step) -> tuple[int, int]:
        """(first output row within its image, output rows) of a convolution's L3 block."""
        b, out_w = self._blocks, int(self._op.out_w)
        per_unit = -(-b.unit["m"] // b.tile3["m"])
        first = (step.l3["m"] % per_unit) * b.tile3["m"] // out_w
        return first % int(self._op.out_h), b.l3_size("m", step.l3["m"]) // out_w

    def _input_rows(self, step: Step) -> int:
        out_h = int(self._op.out_h)
        first, count = self._output_rows(step)
        if count > out_h:
            return (count // out_h) * len(self._rows_of(0, out_h))
        return len(self._rows_of(first, count))

    def _bursts(self, h: float, w: float, contiguous: bool) -> float:
        """Bytes of the bursts that carry h rows of w bytes."""
        burst = self._burst
        return -(-h * w // burst) * burst if contiguous else h * -(-w // burst) * burst
