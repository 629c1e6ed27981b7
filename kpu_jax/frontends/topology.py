"""`kpu.load_topology`: the topology files of SCALE-Sim, which list convolutions or matrix products.

Formats: github.com/scalesim-project/SCALE-Sim, `topology_utils.py`. A convolution is valid (its IFMAP sizes include the
padding). A layer whose name holds "DP" is depthwise: every channel has `Num Filter` filters of its own. Rows with a
name only are titles.
"""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import Any

from kpu_jax.base.errors import KPUError, check_number, nearest, shown
from kpu_jax.base.files import file_path, read_text
from kpu_jax.workload import Conv, Gemm, Op, Workload

_COLUMNS: dict[str, tuple[str, ...]] = {
    "layer": ("layer", "layername", "name", "l"),
    "in_h": ("ifmapheight", "ifmaph", "inputheight"),
    "in_w": ("ifmapwidth", "ifmapw", "inputwidth"),
    "kernel_h": ("filterheight", "filterh", "kernelheight"),
    "kernel_w": ("filterwidth", "filterw", "kernelwidth"),
    "channels": ("channels", "channel", "numchannels"),
    "filters": ("numfilter", "numfilters", "filters"),
    "stride_h": ("strides", "stride", "strideheight", "strideh"),
    "stride_w": ("stridewidth", "stridew"),
    "m": ("m",),
    "n": ("n",),
    "k": ("k",),
    "sparsity": ("sparsity", "sparsityratio"),
}
_CONV = ("in_h", "in_w", "kernel_h", "kernel_w", "channels", "filters", "stride_h")
_GEMM = ("m", "n", "k")


def load_topology(path: str | os.PathLike[str], *, dtype: Any = "int8") -> Workload:
    """The layers of a SCALE-Sim topology file, one after the other.

    The header decides: `Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter,
    Strides` (or `Stride Height, Stride Width`), or `Layer, M, N, K`; each with `Sparsity` (N:M, the stored fraction of
    the filters) or without, and with a comma at the end of lines or without. A file without a header is read by the
    number of its columns. Names that occur again are numbered.

    Raises `KPUError` naming the file, the line, the column and what is allowed.
    """
    file = file_path(path)
    lines = [(number, cells) for number, cells in enumerate(_rows(file), 1) if any(cells)]
    if not lines:
        raise KPUError(f"{file}: holds no layers")
    columns, lines = _header(file, lines)
    items: list[tuple[str, Op]] = []
    seen: dict[str, int] = {}
    for number, cells in lines:
        if not any(cells[1:]):
            continue  # a title
        where = f"{file}, line {number}"
        if len(cells) > len(columns) and any(cells[len(columns) :]):
            raise KPUError(f"{where}: {len(cells)} values for the {len(columns)} columns {', '.join(columns)}")
        values = dict(zip(columns, cells, strict=False))
        name = values.get("layer") or f"layer{len(items)}"
        seen[name] = seen.get(name, 0) + 1
        try:
            op = _convolution(name, values, dtype) if "in_h" in columns else _product(values, dtype)
        except KPUError as error:
            raise KPUError(f"{where} ({name}): {error}") from None
        items.append((name if seen[name] == 1 else f"{name}_{seen[name] - 1}", op))
    if not items:
        raise KPUError(f"{file}: holds no layers")
    return Workload.from_ops(items)


def _rows(file: Path) -> list[list[str]]:
    try:
        return [[cell.strip() for cell in row] for row in csv.reader(read_text(file).splitlines(), skipinitialspace=True)]
    except csv.Error as error:
        raise KPUError(f"{file}: not a CSV file: {error}") from None


def _header(file: Path, lines: list[tuple[int, list[str]]]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(our names of the columns, the lines after the header)."""
    number, first = lines[0]
    if len(first) > 1 and first[1].lstrip("-").isdigit():  # no header
        width = len([c for c in first if c])
        conv = ["layer", *_CONV] if width == 8 else ["layer", *_CONV, "stride_w"]
        return (["layer", *_GEMM] if width <= 4 else conv), lines
    known = {alias: ours for ours, aliases in _COLUMNS.items() for alias in aliases}
    columns = []
    for cell in first:
        key = re.sub(r"[\s_\-.]", "", cell).lower()
        if not cell:
            continue
        if key not in known:
            raise KPUError(f"{file}, line {number}: unknown column {shown(cell)}: {nearest(key, known)}")
        columns.append(known[key])
    for needed in (_CONV, _GEMM):
        if set(needed) <= set(columns):
            return columns, lines[1:]
    form = _CONV if "in_h" in columns else _GEMM
    missing = [_COLUMNS[c][0] for c in form if c not in columns]
    raise KPUError(
        f"{file}, line {number}: columns {', '.join(missing)} are missing: a topology has Layer name, IFMAP Height, IFMAP Width, "
        "Filter Height, Filter Width, Channels, Num Filter, Strides, or Layer, M, N, K"
    )


def _integer(column: str, text: str | None, unit: str) -> int:
    try:
        value: Any = int(text or "")
    except ValueError:
        value = text
    return int(check_number(column, value, unit, low=1, integer=True))


def _density(text: str | None) -> float:
    """The stored fraction of N:M sparsity; 1 where it is not given."""
    if not text:
        return 1.0
    parts = text.split(":")
    if len(parts) != 2 or not all(p.strip().isdigit() for p in parts) or not 0 < int(parts[0]) <= int(parts[1]):
        raise KPUError(f"Sparsity = {shown(text)} must be N:M with 0 < N <= M, such as 2:4")
    return int(parts[0]) / int(parts[1])


def _convolution(name: str, values: dict[str, str], dtype: Any) -> Op:
    units = {"channels": "channels", "filters": "filters"}
    size = {c: _integer(c, values.get(c), units.get(c, "pixels")) for c in _CONV}
    step = (size["stride_h"], _integer("stride_w", values["stride_w"], "pixels") if values.get("stride_w") else size["stride_h"])
    groups = size["channels"] if "DP" in name else 1
    return Conv(
        1, size["in_h"], size["in_w"], size["channels"], size["filters"] * groups, (size["kernel_h"], size["kernel_w"]),
        stride=step, groups=groups, dtype=dtype, density_b=_density(values.get("sparsity")),
    )  # fmt: skip


def _product(values: dict[str, str], dtype: Any) -> Op:
    m, n, k = (_integer(c.upper(), values.get(c), "elements") for c in _GEMM)
    return Gemm(m, n, k, dtype=dtype, density_b=_density(values.get("sparsity")))
