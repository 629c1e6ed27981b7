"""A small chip and small networks that the tests of the graph share."""

from __future__ import annotations

from typing import Any

import numpy as np

import kpu_jax as kpu

CHIP = kpu.presets.edge_ai().replace({"compute.tile_count": 4})
SMALL = CHIP.replace({"on_chip_memory.l3.tile_capacity_kb": 8})  # 16 KiB: hardly any result stays


def tower(rows: int = 32, width: int = 64, layers: int = 3) -> kpu.Workload:
    """A chain of products."""
    return kpu.Workload.from_ops([(f"layer{i}", kpu.Gemm(rows, width, width)) for i in range(layers)])


def random_network(rng: np.random.Generator, count: int) -> kpu.Workload:
    """Products of square matrices, activations and sums of two earlier results, of one size."""
    side = int(rng.choice([24, 32, 48]))
    items: list[tuple[str, Any, tuple[int, ...]]] = []
    for i in range(count):
        one = (int(rng.integers(i)),) if i else ()
        kind = rng.choice(["weights", "activation", "sum", "product"]) if i else "weights"
        if kind == "sum" and i > 1:
            pair = tuple(int(p) for p in rng.choice(i, 2, replace=False))
            items.append((f"add{i}", kpu.VectorOp(side * side, function="add"), pair))
        elif kind == "product" and i > 1:
            pair = tuple(int(p) for p in rng.choice(i, 2, replace=False))
            items.append((f"mix{i}", kpu.Gemm(side, side, side), pair))
        elif kind == "activation":
            items.append((f"act{i}", kpu.VectorOp(side * side, function=str(rng.choice(["relu", "gelu", "softmax"]))), one))
        else:
            items.append((f"fc{i}", kpu.Gemm(side, side, side), one))
    return kpu.Workload.from_ops(items)
