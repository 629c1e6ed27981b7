"""What the machine should compute, in plain Python: every element by itself, in the order of the schedule's loops.

Written from `design.md` section 1 and the fabric's definition, without the package's order, grid or blocks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

ORDERS = ("mnk", "mkn", "nmk", "nkm", "kmn", "knm")
PASS_ORDERS = ("mn", "nm", "kn", "nk", "km", "mk")


def nearest_float32(x: Fraction) -> float:
    """x rounded to float32, ties to even; results below the normal range are not expected here."""
    if x == 0:
        return 0.0
    size = abs(x)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > size  # 2^exponent <= size < 2^(exponent + 1)
    step = Fraction(2) ** (exponent - 23)
    whole, rest = divmod(size, step)
    whole += rest > step / 2 or (rest == step / 2 and whole % 2)
    return float(whole * step) * (-1 if x < 0 else 1)


def fused(acc: float, a: float, b: float) -> float:
    """acc + a b in float32, rounded once."""
    return nearest_float32(Fraction(a) * Fraction(b) + Fraction(acc))


def wrapped(bits: int) -> Callable[[int], int]:
    """Two's complement of so many bits."""
    return lambda x: (x + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


class Numbers:
    """The arithmetic of a PE: integers that wrap around, or float32."""

    def __init__(self, is_float: bool, bits: int = 32, rounded: Callable[[float], float] = lambda x: x) -> None:
        keep = rounded if is_float else wrapped(bits)
        self.multiply_add = (lambda s, a, b: keep(fused(s, a, b))) if is_float else (lambda s, a, b: keep(s + a * b))
        self.add = (lambda x, y: keep(nearest_float32(Fraction(x) + Fraction(y)))) if is_float else (lambda x, y: keep(x + y))


def blocks_of(size: int, tile: int) -> list[tuple[int, int]]:
    """(first, end) of each tile of an axis, the last one clipped."""
    return [(first, min(first + tile, size)) for first in range(0, size, tile)]


def shares_of(block: tuple[int, int], parts: int) -> list[tuple[int, int]]:
    """(first, end) of each compute tile's share of a block; the last ones may be short or empty."""
    share = -(-(block[1] - block[0]) // parts)
    return [(min(block[0] + t * share, block[1]), min(block[0] + (t + 1) * share, block[1])) for t in range(parts)]


def summed(
    a: np.ndarray,
    b: np.ndarray,
    bias: np.ndarray | None,
    mapping: Any,
    rows: int,
    cols: int,
    rate: int,
    numbers: Numbers,
    l3: dict[str, list[tuple[int, int]]],
    k_of: list[int],
) -> list[list[Any]]:
    """Accumulators [m][n] of one batch element, complete, with the bias.

    `l3`: L3 blocks (first, end) along m, n, k; `k_of`: which k each position along K is (a convolution's slices reorder it).
    """
    flow = int(mapping.dataflow)
    depth = rows * rate
    cover = ({"m": rows, "n": cols}, {"k": depth, "n": cols}, {"k": depth, "m": cols})[flow]
    parts = {x: int(getattr(mapping, f"partition_{x}")) for x in "mnk"}
    tile2 = {x: int(getattr(mapping, f"l2_{x}")) for x in "mnk"}
    order3, order2 = ORDERS[int(mapping.l3_order)], ORDERS[int(mapping.l2_order)]
    order1 = PASS_ORDERS[int(mapping.pass_order)]
    total: dict[tuple[int, int], Any] = {}  # what has left L2
    held: dict[tuple[int, int, int], Any] = {}  # (compute tile along k, m, n): partial sums in the tiles
    at: tuple | None = None
    left = dict.fromkeys(itertools.product(range(a.shape[0]), range(b.shape[1])), a.shape[1])  # products to go

    def leave() -> None:
        for t, m, n in sorted(held):
            part = held[t, m, n]
            if t == 0:
                total[m, n] = part if bias is None or left[m, n] else numbers.add(part, bias[n])
            else:
                total[m, n] = numbers.add(total[m, n], part)
        held.clear()

    for i3 in itertools.product(*(range(len(l3[x])) for x in order3)):
        block3 = {x: l3[x][i] for x, i in zip(order3, i3, strict=True)}
        shares = {x: shares_of(block3[x], parts[x]) for x in "mnk"}
        trips = {x: len(blocks_of(shares[x][0][1] - shares[x][0][0], tile2[x])) for x in "mnk"}
        for i2 in itertools.product(*(range(trips[x]) for x in order2)):
            j = dict(zip(order2, i2, strict=True))
            here = (block3["m"], block3["n"], j["m"], j["n"])
            if here != at:
                leave()
            at = here
            block2 = {
                x: [(min(s[0] + j[x] * tile2[x], s[1]), min(s[0] + (j[x] + 1) * tile2[x], s[1])) for s in shares[x]] for x in "mnk"
            }
            first = {x: block2[x][0] for x in "mnk"}
            for i1 in itertools.product(*(range(-(-(first[x][1] - first[x][0]) // cover[x])) for x in order1)):
                p = dict(zip(order1, i1, strict=True))
                for tm, tn, tk in itertools.product(*(range(parts[x]) for x in "mnk")):
                    reach = {}
                    for x, t in (("m", tm), ("n", tn), ("k", tk)):
                        begin, end = block2[x][t]
                        if x in cover:
                            begin, end = begin + p[x] * cover[x], min(begin + (p[x] + 1) * cover[x], end)
                        reach[x] = range(begin, end)
                    for m, n in itertools.product(reach["m"], reach["n"]):
                        if not len(reach["k"]):
                            continue
                        before = held.get((tk, m, n), total.get((m, n)) if tk == 0 else None)
                        s = before if flow == 0 and before is not None else 0
                        for k in reach["k"]:
                            s = numbers.multiply_add(s, a[m, k_of[k]], b[k_of[k], n])
                        held[tk, m, n] = s if flow == 0 or before is None else numbers.add(before, s)
                        left[m, n] -= len(reach["k"])
    leave()
    return [[total[m, n] for n in range(b.shape[1])] for m in range(a.shape[0])]
