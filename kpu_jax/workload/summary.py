"""How a workload prints: one line per row."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from kpu_jax.base.pytree import is_traced
from kpu_jax.base.tables import Row, Sheet
from kpu_jax.workload.dtypes import MAC_FORMATS
from kpu_jax.workload.op import KINDS, Op


def workload_sheet(ops: Op, names: tuple[str, ...], row_of: tuple[int, ...], notes: Sequence[str] = ()) -> Sheet:
    """The rows of `ops` (leaves [row]) as a table; one line if the leaves are traced or batched."""
    rows = max(row_of) + 1
    title = f"Workload: {len(names)} operations in {rows} rows"
    shape = getattr(ops.m, "shape", None)
    if is_traced(ops) or not isinstance(ops.m, (np.ndarray, jax.Array)) or shape != (rows,):
        return Sheet(f"{title} (leaves {shape})")
    macs = np.asarray(ops.macs)
    table: list[Row] = [
        {
            "row": i, "first name": names[row_of.index(i)], "count": float(ops.count[i]), "kind": KINDS[int(ops.kind[i])],
            **{x: int(getattr(ops, x)[i]) for x in ("batch", "m", "n", "k")},
            "format": MAC_FORMATS[int(ops.mac_format[i])], "MACs each": float(macs[i]),
        }
        for i in range(rows)
    ]  # fmt: skip
    total = sum(round(int(m) * float(c)) for m, c in zip(macs, np.asarray(ops.count), strict=True))
    return Sheet(f"{title}, {total:,} MACs", {"": table}, notes)
