"""Random mappings, for measuring the stated set against and for property tests. Host NumPy, seeded."""

from __future__ import annotations

from typing import Any

import numpy as np

from kpu_jax.base.pytree import build
from kpu_jax.mapping.mapping import Mapping


def random_mappings(rng: np.random.Generator, op: Any, tiles: int, count: int) -> Mapping:
    """`count` mappings of `op` as one stacked `Mapping`; legal in form, not necessarily fitting a chip.

    Dataflows, orders and bufferings uniform; tile sizes log-uniform up to the whole operation (L3) and up to
    one compute tile's share (L2); partitions log-uniform with at most `tiles` compute tiles in all.
    Convolutions get whole output rows or images and whole channel slices.
    """

    def log_uniform(most: Any) -> np.ndarray:
        most = np.broadcast_to(np.asarray(most, float), (count,))
        return np.clip(np.floor(np.exp(rng.uniform(0, np.log(most + 1)))), 1, most)

    flow = rng.integers(0, 3, count).astype(float)
    parts: dict[str, np.ndarray] = {}
    left = np.full(count, float(tiles))
    sizes = {"b": float(op.batch), "m": float(op.m), "n": float(op.n), "k": float(op.k)}
    for axis in rng.permutation(list("bmnk")):
        parts[axis] = log_uniform(np.minimum(left, sizes[axis]))
        left = np.floor(left / parts[axis])
    l3 = {a: np.where(rng.random(count) < 0.3, sizes[a], log_uniform(sizes[a])) for a in "mnk"}
    if int(op.kind) == 1:
        width, image, kernel = op.out_w, op.out_h * op.out_w, op.kernel_h * op.kernel_w
        rows = np.clip(np.floor(l3["m"] / width), 1, op.out_h) * width
        l3["m"] = np.where(l3["m"] >= image, np.floor(l3["m"] / image) * image, rows)
        l3["k"] = np.clip(np.floor(l3["k"] / kernel), 1, op.channels) * kernel
    shares = {a: np.ceil(l3[a] / parts[a]) for a in "mnk"}
    l2 = {a: np.where(rng.random(count) < 0.2, shares[a], log_uniform(shares[a])) for a in "mnk"}
    codes = {
        "l3_order": rng.integers(0, 6, count),
        "l2_order": rng.integers(0, 6, count),
        "pass_order": 2 * flow + rng.integers(0, 2, count),
        **{f"double_{lv}": rng.integers(0, 2, count) for lv in ("l3", "l2", "l1")},
    }
    tiles_of = {f"{lv}_{a}": t[a] for lv, t in (("l3", l3), ("l2", l2)) for a in "mnk"}
    fields = {**tiles_of, **codes, **{f"partition_{a}": v for a, v in parts.items()}, "dataflow": flow}
    return build(Mapping, **{k: np.asarray(fields[k], np.float64) for k in Mapping.__dataclass_fields__})
