"""Every reader of files: valid contents, words that mean something in them, and what reading and then using them does."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.resources
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import kpu_jax as kpu
from kpu_jax.base.errors import KPUError
from kpu_jax.explore.store import NAME, Store
from kpu_jax.hardware import check_config
from kpu_jax.program import assemble, check_program, disassemble, load_program, save_program
from kpu_jax.report_html.sweep_page import read_rows
from kpu_jax.utilities import data_converter as convert
from kpu_jax.workload import check_workload

ROOT = Path(__file__).parents[2]
CHIP = kpu.presets.minimal()
MAPPING = kpu.Mapping(l3_tile=(16, 16, 16), l2_tile=(16, 8, 16))
DESCRIPTION = {"version": "1", "space": "0" * 64, "constraints": {"area_mm2": 20.0}, "conditions": ["rows == cols"], "parts": None}


@dataclass(frozen=True)
class Reader:
    """`read` takes the path of a file called `file`, and uses what it holds; `seal` makes its checksum right again."""

    file: str
    valid: Callable[[], Sequence[bytes]]
    read: Callable[[Path], Any]
    tokens: Sequence[bytes] = ()
    seal: Callable[[bytes], bytes] | None = None
    mentions_file: bool = True


def use(value: Any) -> None:
    """What a caller does first with what a reader gave."""
    if isinstance(value, kpu.Workload):
        check_workload(value)
        repr(value), value.macs, value.row(0)
    elif isinstance(value, kpu.KPUConfig):
        check_config(value)
        repr(value)
    elif isinstance(value, kpu.program.Program):
        repr(value)
        with contextlib.suppress(KPUError):  # it need not make sense
            check_program(CHIP, value)
            text = disassemble(value)
            assert disassemble(assemble(text)) == text


def use_study(path: Path) -> None:
    study = kpu.load_study(path)
    use(study.workload)
    repr(study.space)
    check_config(study.space.chip(0))


def use_json(path: Path) -> None:
    value = convert.from_json(path)
    use(value)
    convert.to_json(value)
    repr(value)


def use_csv(path: Path) -> None:
    value = convert.from_csv(path)
    use(value)
    convert.to_csv(value)


def use_store(path: Path) -> None:
    Store(path.parent, DESCRIPTION).part("part", dict)


@functools.cache
def _program() -> kpu.program.Program:
    return kpu.program.build(CHIP, kpu.Gemm(20, 24, 17, dtype="int8", bias=True, activation="relu"), MAPPING)


def _saved(save: Callable[[Path], Any], name: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _yaml() -> list[bytes]:
    files = importlib.resources.files("kpu_jax.hardware") / "preset_files"
    return [(files / f"{name}.yaml").read_bytes() for name in ("minimal", "edge_ai")]


def _studies() -> list[bytes]:
    asked = (ROOT / "experiments" / "which_kpu" / "space.toml").read_bytes().replace(b'"resnet50", "bert_base"', b'"mlp"')
    own = b"""
base = "minimal"
workload = [{network = "mlp", batch = 4, sizes = [8, 8]}, "dlrm"]
objective = "latency"
where = ["rows == cols", "l2.bank_count * 64 <= 4096 and not streamer_count > 8"]
[[axis]]
fields = ["compute.processor_array.rows"]
values = {start = 8, stop = 64, step = 2, scale = "log"}
[[axis]]
fields = ["compute.processor_array.cols", "data_movement.streamer_count"]
values = [[8, 4], [16, 8]]
"""
    return [asked, own]


@functools.cache
def conversions() -> list[Any]:
    """One value of every kind that converters know."""
    op = kpu.Gemm(32, 16, 24, bias=True, density_b=1 / 3)
    net = kpu.networks.mlp(2, (8, 6, 4))
    traced = kpu.trace(lambda x: (x @ x.T).sum(axis=0))(np.ones((4, 3), np.float32))
    report = kpu.simulate(CHIP, kpu.Workload.from_ops([op]), MAPPING, timing="bound")
    return [net, traced, CHIP, MAPPING, report, [{"chip": 3, "name": "a,b", "ms": 0.1, "best": True}]]


def json_values() -> list[Any]:
    """What `from_dict` takes, one of every kind."""
    return [convert.to_dict(value) for value in conversions()]


def _parquet() -> list[bytes]:
    return [_saved(lambda p, v=v: convert.to_parquet(v, p), "t.parquet") for v in (conversions()[i] for i in (0, 2, 5))]


def _seal_program(content: bytes) -> bytes:
    return content[:-32] + hashlib.sha256(content[:-32]).digest()


def _seal_part(content: bytes) -> bytes:
    body = content.partition(b"\n")[2]
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _part() -> list[bytes]:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, ids=np.arange(5), cost=np.ones((2, 3)))
    return [_seal_part(b"\n" + buffer.getvalue())]


def _tables() -> list[bytes]:
    return [
        b"chip,mapped_for,latency_ms,energy_mj,edp_js,area_mm2,meets,fabric_mhz\n3,edp,0.5,0.25,1e-7,12.5,True,500\n4,edp,1,2,3,4,False,nan\n",
        b"chip,latency_ms,energy_mj,area_mm2,meets\n" + b"".join(b"%d,1,2,3,True\n" % i for i in range(5)),
    ]


def _topologies() -> list[bytes]:
    conv = b"Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides, Sparsity,\n"
    return [
        conv + b"Conv1, 30, 24, 7, 5, 3, 64, 2, 1:4,\nBlock,\nConv2 DP, 14, 14, 3, 3, 32, 1, 1, 2:4,\nConv2 DP, 14, 14, 1, 1, 3, 1, 1,\n",
        b"Layer, M, N, K,\nQKT, 1024, 512, 64,\nQKT, 1, 2, 3,\n",
        b"Conv1, 230, 224, 7, 5, 3, 64, 2, 3\n",
    ]


def _scale_sim() -> list[bytes]:
    from kpu_jax.utilities.scale_sim import config_text

    return [config_text(CHIP).encode(), config_text(kpu.presets.edge_ai(), "weight_stationary").encode()]


_COLUMNS = [b"m", b"n", b"k", b"seconds", b"mean_ms", b"mean_us", b"layer", b"Conv1 DP", b"3:2", b"0:4", b"1:0"]
_PATHS = [b"compute.tile_count", b"technology.dram", b"a..b", b"rows", b"address_map.l3_base", b"mlp", b"bert_base", b"log", b"batch"]
_YAML = [
    b"!!bool foo",
    b"&a [*a]",
    b"{<<: 5}",
    b"{? [1]: 2}",
    b"1:30",
    b"---",
    b"...",
    b"%YAML 9",
    b"|\n x",
    b"? x",
    b"@",
    b"LPDDR5",
    b"16",
]
_ASSEMBLY = [
    b"needs=0:operand",
    b"DMA_LOAD_TILE",
    b"ti=0.0.0",
    b"instructions=99999999",
    b"prerequisites=9999",
    b"labels",
    b"mapping",
    b"-1",
]
_JSON = [b"workload", b"config", b"mapping", b"report", b"table", b"NaN", b"Infinity", b"-Infinity", b"[[1],2]", b"weight_stationary"]

READERS: dict[str, Reader] = {
    "chip as YAML": Reader("chip.yaml", _yaml, lambda p: use(kpu.load_config(p)), _YAML),
    "chip as JSON": Reader(
        "chip.json",
        lambda: [json.dumps(yaml.safe_load(text), indent=1).encode() for text in _yaml()],
        lambda p: use(kpu.load_config(p)),
        _JSON,
    ),
    "study": Reader("study.toml", _studies, use_study, _PATHS),
    "measurements": Reader(
        "times.csv",
        lambda: [(ROOT / "tests/reference/data/tpu_gemm_us.csv").read_bytes()[:600], b"m,n,k,seconds\n8,8,8,1e-6\n"],
        lambda p: use(kpu.load_measurements(p).workload),
        _COLUMNS,
    ),
    "topology": Reader("topology.csv", _topologies, lambda p: use(kpu.load_topology(p)), _COLUMNS),
    "SCALE-Sim configuration": Reader(
        "scale.cfg", _scale_sim, lambda p: use(convert.config_from_scale_sim(p)[0]), [b"%(x)s", b"[general]", b"ws", b"1,2"]
    ),
    "program": Reader(
        "one.kpu", lambda: [_saved(lambda p: save_program(_program(), p), "one.kpu")], lambda p: use(load_program(p)), _JSON, _seal_program
    ),
    "assembly": Reader(
        "one.txt",
        lambda: [disassemble(_program()).encode()],
        lambda p: use(assemble(p.read_text("utf-8", "replace"))),
        _ASSEMBLY,
        mentions_file=False,
    ),
    "sweep.json": Reader(NAME, lambda: [json.dumps(DESCRIPTION, indent=2).encode()], use_store, _JSON, mentions_file=False),
    "part of a store": Reader("part", _part, use_store, [b"PK\x03\x04", b"\x93NUMPY"], _seal_part),
    "table of a sweep": Reader("table.csv", _tables, lambda p: read_rows(p, ("chip", "latency_ms", "meets")), [b"True", b"chip"]),
    "converted JSON": Reader("value.json", lambda: [json.dumps(v).encode() for v in json_values()], use_json, _JSON, mentions_file=False),
    "converted CSV": Reader(
        "value.csv", lambda: [convert.to_csv(v).encode() for v in conversions()], use_csv, [*_COLUMNS, *_JSON], mentions_file=False
    ),
    "converted Parquet": Reader("value.parquet", _parquet, lambda p: use(convert.from_parquet(p)), mentions_file=False),
}
