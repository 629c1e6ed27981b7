"""A workload as aligned text, one line per row."""

from __future__ import annotations

import jax
import numpy as np

from kpu_jax.base.pytree import is_traced
from kpu_jax.workload.dtypes import MAC_FORMATS
from kpu_jax.workload.op import KINDS, Op

HEADER: tuple[str, ...] = ("row", "first name", "count", "kind", "batch", "m", "n", "k", "format", "MACs each")


def table_text(ops: Op, names: tuple[str, ...], row_of: tuple[int, ...]) -> str:
    """Aligned table of the rows of `ops` (leaves [row]); one line if the leaves are traced or batched."""
    rows = max(row_of) + 1
    title = f"Workload: {len(names)} operations in {rows} rows"
    shape = getattr(ops.m, "shape", None)
    if is_traced(ops) or not isinstance(ops.m, (np.ndarray, jax.Array)) or shape != (rows,):
        return f"{title} (leaves {shape})"
    macs = np.asarray(ops.macs)
    lines = [HEADER]
    for i in range(rows):
        sizes = (str(int(getattr(ops, x)[i])) for x in ("batch", "m", "n", "k"))
        fmt = MAC_FORMATS[int(ops.mac_format[i])]  # type: ignore[index]
        kind = KINDS[int(ops.kind[i])]  # type: ignore[index]
        count = f"{float(ops.count[i]):g}" if ops.count[i] % 1 else str(int(ops.count[i]))  # type: ignore[index]
        lines.append((str(i), names[row_of.index(i)], count, kind, *sizes, fmt, f"{int(macs[i]):,}"))
    widths = [max(len(line[c]) for line in lines) for c in range(len(HEADER))]
    left = (1, 3, 8)
    text = [
        "  ".join(x.ljust(w) if c in left else x.rjust(w) for c, (x, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    total = sum(round(int(m) * float(c)) for m, c in zip(macs, np.asarray(ops.count), strict=True))
    return "\n".join([f"{title}, {total:,} MACs", *text])
