"""SCALE-Sim's files: topologies out of workloads, configurations in both directions.

Formats: github.com/scalesim-project/SCALE-Sim, `configs/scale.cfg`, `scale_config.py`, `topology_utils.py`.
"""

from __future__ import annotations

import configparser
import os
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, check_choice, check_number, shown
from kpu_jax.base.files import file_path, read_text
from kpu_jax.hardware import KPUConfig, preset
from kpu_jax.hardware.derived import external_bytes_per_second
from kpu_jax.mapping.mapping import DATAFLOWS
from kpu_jax.workload import CONV, VECTOR, Op, Workload

CONV_HEADER = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Stride Height, Stride Width,"
GEMM_HEADER = "Layer, M, N, K,"
FORMS = ("gemm", "conv")
_MOST_LINES = 100_000
_FLOWS = dict(zip(("os", "ws", "is"), DATAFLOWS, strict=True))


def topology_text(net: Workload, form: str = "gemm") -> str:
    """A workload's fabric operations as a topology file; `load_topology` gives the same MACs back.

    "gemm": every operation as M, N, K. "conv": convolutions by their windows (padding inside the IFMAP), products as
    SCALE-Sim itself turns them, a 1 x K window over M x K. Repeats, batches and images are lines of their own; vector
    work has no place in either, and is left out.

    Raises `KPUError` for dilated and grouped convolutions that "conv" cannot say, and beyond 100,000 lines.
    """
    check_choice("form", form, FORMS)
    lines = [GEMM_HEADER if form == "gemm" else CONV_HEADER]
    for name, op in net:
        if op.kind == VECTOR:
            continue
        if float(op.count) % 1:
            raise KPUError(f"{name} runs {float(op.count):g} times: a topology lists whole layers")
        label, cells, times = _gemm_line(name, op) if form == "gemm" else _conv_line(name, op)
        copies = int(times * op.count)
        if len(lines) + copies > _MOST_LINES:
            raise KPUError(f"{name}: the topology would have more than {_MOST_LINES} lines")
        for i in range(copies):
            own = label if copies == 1 else f"{label}_{i}"
            lines.append(", ".join([own, *(str(int(c)) for c in cells)]) + ",")
    if len(lines) == 1:
        raise KPUError("the workload has no fabric operations, and a topology lists nothing else")
    return "\n".join(lines) + "\n"


def _safe(name: str) -> str:
    """A name without commas, and without SCALE-Sim's mark of a depthwise layer."""
    return name.replace(",", ";").replace("DP", "dp")


def _gemm_line(name: str, op: Op) -> tuple[str, tuple[Any, ...], int]:
    return _safe(name), (op.m, op.n, op.k), int(op.batch)


def _conv_line(name: str, op: Op) -> tuple[str, tuple[Any, ...], int]:
    if op.kind != CONV:
        return _safe(name), (op.m, op.k, 1, op.k, 1, op.n, 1, 1), int(op.batch)
    if op.dilation_h != 1 or op.dilation_w != 1:
        raise KPUError(f"{name}: SCALE-Sim has no dilated convolutions; write form='gemm'")
    size = ((op.out_h - 1) * op.stride_h + op.kernel_h, (op.out_w - 1) * op.stride_w + op.kernel_w)
    window = (op.kernel_h, op.kernel_w)
    if op.batch == 1 or op.channels > 1:
        return _safe(name), (*size, *window, op.channels, op.n, op.stride_h, op.stride_w), int(op.images * op.batch)
    return f"{_safe(name)} DP", (*size, *window, op.batch, op.n, op.stride_h, op.stride_w), int(op.images)


def config_from_scale_sim(path: str | os.PathLike[str], *, word_bytes: float = 1.0) -> tuple[KPUConfig, str]:
    """(the chip, its dataflow) of a SCALE-Sim configuration file.

    One compute tile of ArrayHeight x ArrayWidth; the three SRAMs together are L3, and again L2, which SCALE-Sim does not
    tell apart; Bandwidth [words/cycle] of `word_bytes` becomes that of external memory at the clock of preset
    minimal, whose other fields stay.

    Raises `KPUError` naming the file, the section, the key and what is allowed.
    """
    file = file_path(path)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(file))
    except configparser.Error as error:
        raise KPUError(f"{file}: not a SCALE-Sim configuration: {' '.join(str(error).split())[:200]}") from None
    if "architecture_presets" not in parser:
        raise KPUError(f"{file}: the section [architecture_presets] is missing; the file has {shown(parser.sections())}")
    section = parser["architecture_presets"]

    def number(key: str, unit: str) -> float:
        text = section.get(key)
        if text is None:
            raise KPUError(f"{file}: [architecture_presets] lacks {key} [{unit}]")
        try:
            value: Any = float(text.split(",")[0])
        except ValueError:
            value = text
        return check_number(f"{file}: {key}", value, unit, low=1)

    rows, cols = number("ArrayHeight", "PEs"), number("ArrayWidth", "PEs")
    sram = sum(number(f"{x}SramSzkB", "KiB") for x in ("Ifmap", "Filter", "Ofmap"))
    flow = section.get("Dataflow", "os").strip().lower()
    check_choice(f"{file}: Dataflow", flow, tuple(_FLOWS))
    base = preset("minimal")
    clock = float(base.clocks.fabric_mhz) * 1e6
    words = number("Bandwidth", "words/cycle") if section.get("Bandwidth") else None
    changes: dict[str, Any] = {
        "compute.tile_count": 1,
        "compute.processor_array.rows": rows,
        "compute.processor_array.cols": cols,
        "on_chip_memory.l3.tile_count": 1,
        "on_chip_memory.l3.tile_capacity_kb": sram,
        "on_chip_memory.l2.bank_count": 1,
        "on_chip_memory.l2.bank_capacity_kb": sram,
    }
    if words is not None:
        changes["external_memory.bank_count"] = 1
        changes["external_memory.bandwidth_gbps"] = words * word_bytes * clock / 1e9
    try:
        return base.replace(changes), _FLOWS[flow]
    except KPUError as error:
        raise KPUError(f"{file}: {error}") from None


def config_text(cfg: KPUConfig, dataflow: str = "output_stationary", *, name: str = "kpu", word_bytes: float = 1.0) -> str:
    """A SCALE-Sim configuration of a chip: its array, L3 in three parts, external bandwidth in words per fabric cycle.

    A chip of several compute tiles is written as one array of the same height and all their columns.
    """
    flows = {long: short for short, long in _FLOWS.items()}
    flow = dataflow if dataflow in _FLOWS else flows[check_choice("dataflow", dataflow, DATAFLOWS)]
    if np.ndim(cfg.compute.tile_count):
        raise KPUError(f"only one chip can be written, got a stack: {shown(np.shape(cfg.compute.tile_count))}")
    array, memory = cfg.compute.processor_array, cfg.on_chip_memory.l3
    third = float(memory.tile_count * memory.tile_capacity_kb) / 3
    words = float(external_bytes_per_second(cfg)) / (float(cfg.clocks.fabric_mhz) * 1e6) / word_bytes
    values = {
        "ArrayHeight": f"{float(array.rows):g}",
        "ArrayWidth": f"{float(array.cols * cfg.compute.tile_count):g}",
        **{f"{x}SramSzkB": str(max(1, int(third))) for x in ("Ifmap", "Filter", "Ofmap")},
        **{f"{x}Offset": str(i * 10_000_000) for i, x in enumerate(("Ifmap", "Filter", "Ofmap"))},
        "Dataflow": flow,
        "Bandwidth": str(max(1, int(words))),
        "MemoryBanks": "1",
    }
    body = "\n".join(f"{key}: {value}" for key, value in values.items())
    return f"[general]\nrun_name = {name}\n\n[architecture_presets]\n{body}\n\n[run_presets]\nInterfaceBandwidth: USER\n"
