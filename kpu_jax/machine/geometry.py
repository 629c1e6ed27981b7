"""Which elements each block of a schedule covers, and the operands as the schedule's matrices see them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kpu_jax.base.errors import ShapeError
from kpu_jax.machine.order import k_indices
from kpu_jax.machine.places import MachineError
from kpu_jax.program.blocks import Blocks, input_rows


class Part(NamedTuple):
    """A compute tile along one axis, with work: its number, and the elements of its block within the block above."""

    tile: int
    span: slice


class Geometry:
    """Spans of the blocks of one operation under one mapping; block indices are rows (M, N, K) of a program's `tile`."""

    def __init__(self, op: Any, blocks: Blocks) -> None:
        self._op, self._blocks = op, blocks
        self._trips = {a: blocks.l3_trips(a) for a in "mnk"}
        self._starts = {a: np.cumsum([0] + [blocks.l3_size(a, i) for i in range(blocks.l3_trips(a))]) for a in "mn"}

    def groups(self, batch: int) -> dict[int, int]:
        """Batch groups that have an element at this step of the batch loop: group -> batch element."""
        b, length = self._blocks, self._blocks.batch_steps()
        elements = {g: g * length + batch for g in range(b.parts["b"])}
        return {g: e for g, e in elements.items() if e < min((g + 1) * length, b.batch)}

    def l3_indices(self, a: str, i: int) -> np.ndarray:
        """Elements of the whole operand along an axis that L3 block i holds. `MachineError` for a block that is none."""
        if not 0 <= i < self._trips[a]:
            raise MachineError(f"an instruction names L3 block {i} along {a.upper()}, where there are {self._trips[a]}")
        if a == "k":
            return k_indices(self._op, self._blocks, i)
        return np.arange(self._starts[a][i], self._starts[a][i + 1])

    def l2_parts(self, a: str, i: int, j: int) -> list[Part]:
        """Compute tiles along an axis with L2 block j of L3 block i, and its elements within the L3 block."""
        b = self._blocks
        share = -(-b.l3_size(a, i) // b.parts[a])
        sizes = [b.l2_size(a, i, j, t) for t in range(b.parts[a])]
        firsts = [t * share + j * b.tile2[a] for t in range(b.parts[a])]
        return [Part(t, slice(first, first + size)) for t, (first, size) in enumerate(zip(firsts, sizes, strict=True)) if size]

    def pass_parts(self, a: str, i: int, j: int, p: int) -> list[Part]:
        """Compute tiles along an axis with work in pass p over L2 block j, and its elements within the L2 block."""
        b = self._blocks
        first = p * b.pass_size[a]
        sizes = [min(b.pass_size[a], b.l2_size(a, i, j, t) - first) for t in range(b.parts[a])]
        return [Part(t, slice(first, first + size)) for t, size in enumerate(sizes) if size > 0]

    def whole_indices(self, l3: tuple[int, int], spot: tuple[int, ...]) -> list[np.ndarray]:
        """Rows and columns of C that a piece covers, at `spot` = (L2 block along M, N, pass along M, N, group, tile along M, N)."""
        found = []
        for a, i, j, p, tile in zip("mn", l3, spot[0:2], spot[2:4], spot[5:7], strict=True):
            span = next(part.span for part in self.l2_parts(a, i, j) if part.tile == tile)
            inside = next(part.span for part in self.pass_parts(a, i, j, p) if part.tile == tile)
            found.append(self.l3_indices(a, i)[span][inside])
        return found


class Input:
    """A convolution's input [images, height, width, channels] of one group, read by whole rows."""

    def __init__(self, op: Any, blocks: Blocks, values: np.ndarray) -> None:
        self.values, self._op, self._blocks = values, op, blocks

    def rows(self, m: np.ndarray) -> set[tuple[int, int]]:
        """(image, input row) of the in-bounds rows that the windows of the output elements `m` span."""
        op = self._op
        outputs = np.unique(m // int(op.out_w))
        images = np.unique(outputs // int(op.out_h))
        found = set()
        for image in images:
            ours = outputs[outputs // int(op.out_h) == image] % int(op.out_h)
            found |= {(int(image), row) for row in input_rows(op, int(ours[0]), len(ours))}
        return found

    def channels(self, k: np.ndarray) -> np.ndarray:
        """The input channels of a slice of K."""
        return np.unique(k % int(self._op.channels))

    def patches(self, m: np.ndarray, k: np.ndarray, rows: set[tuple[int, int]]) -> np.ndarray:
        """The windows of output elements `m` at positions `k` as a matrix, from these input rows; zero outside."""
        op = self._op
        image, place = np.divmod(m, int(op.out_h) * int(op.out_w))
        p, q = np.divmod(place, int(op.out_w))
        window, channel = np.divmod(k, int(op.channels))
        r, s = np.divmod(window, int(op.kernel_w))
        y = p[:, None] * int(op.stride_h) - int(op.pad_top) + r * int(op.dilation_h)
        x = q[:, None] * int(op.stride_w) - int(op.pad_left) + s * int(op.dilation_w)
        inside = (y >= 0) & (y < int(op.in_h)) & (x >= 0) & (x < int(op.in_w))
        held = np.zeros(self.values.shape[:2], bool)
        if rows:
            held[tuple(np.array(sorted(rows)).T)] = True
        y, x = np.clip(y, 0, int(op.in_h) - 1), np.clip(x, 0, int(op.in_w) - 1)
        images = np.broadcast_to(image[:, None], y.shape)
        if not held[images, y][inside].all():
            raise ShapeError("BM_RESHAPE_TILE reads input rows that are not in L3")
        values = self.values[images, y, x, np.broadcast_to(channel, y.shape)]
        return np.where(inside, values, np.zeros_like(values))


def matrices(op: Any, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A per batch element, [batch, M, K] or a convolution's input [group, images, height, width, channels], and B [batch, K, N].

    A GEMM takes [M, K] and [K, N], with a leading batch axis if `op.batch` > 1; a convolution NHWC and HWIO, as
    `jax.lax.conv_general_dilated` does. `ShapeError` otherwise.
    """
    batch, m, n, k = (int(v) for v in (op.batch, op.m, op.n, op.k))
    if int(op.kind) == 1:
        channels, kernel = int(op.channels), (int(op.kernel_h), int(op.kernel_w))
        _check("A", a, (int(op.images), int(op.in_h), int(op.in_w), batch * channels))
        _check("B", b, (*kernel, channels, batch * n))
        groups = np.moveaxis(a.reshape(*a.shape[:3], batch, channels), 3, 0)
        return groups, np.moveaxis(b.reshape(k, batch, n), 1, 0)
    lead = () if batch == 1 and a.ndim == b.ndim == 2 else (batch,)
    _check("A", a, (*lead, m, k))
    _check("B", b, (*lead, k, n))
    return a.reshape(batch, m, k), b.reshape(batch, k, n)


def result_shape(op: Any, c: np.ndarray, a_dimensions: int) -> np.ndarray:
    """C [batch, M, N] as the operation's user sees it."""
    if int(op.kind) == 1:
        pixels = (int(op.images), int(op.out_h), int(op.out_w))
        return np.moveaxis(c, 0, 1).reshape(*pixels, -1)
    return c[0] if a_dimensions == 2 else c


def _check(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ShapeError(f"arrays[{name!r}] must have shape {shape} for this program, got {array.shape}")
