"""Every number of a chip changes some result other than area and TDP, or stands below with the reason."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest
from strategies import in_chunks, stack

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.base.pytree import get_path, leaf_paths, replace_path
from kpu_jax.hardware import KPUConfig, preset
from kpu_jax.hardware.fields import FIELDS
from kpu_jax.mapping import Mapping
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.evaluate import evaluate
from kpu_jax.workload import ACTIVATIONS, MAC_FORMATS, Conv, Gemm, Op, VectorOp

NO_EFFECT = {
    **dict.fromkeys(
        (p for p in FIELDS if p.startswith("address_map.")),
        "where memories lie, not how large or fast they are: for programs",
    ),
    "technology.node_nm": "a label: the constants beside it are its meaning",
    "technology.sram_mm2_per_mib": "area only; SRAM leaks by capacity",
    **dict.fromkeys((f"technology.tdp_{x}" for x in ("w_per_tops", "mw_per_gbps", "mw_per_kb")), "TDP only"),
}
FACTORS = (16.0, 1 / 16)


def workloads() -> list[tuple[Op, Mapping]]:
    """All kinds, formats, activations and locations; some that overflow one memory each (the overflow is a result)."""
    whole = {"l3_tile": (32, 32, 32), "l2_tile": (16, 16, 32)}
    plain = Mapping(**whole)
    cases: list[tuple[Op, Mapping]] = [(Gemm(32, 32, 32, dtype=d), plain) for d in MAC_FORMATS]
    cases += [(Gemm(32, 32, 32, dtype="int8", bias=True, activation=a), plain) for a in ACTIVATIONS]
    cases += [(Gemm(256, 8, 256, dtype="fp16", data_on="host"), Mapping(l3_tile=(64, 8, 256), l2_tile=(16, 8, 64)))]
    cases += [(Conv(1, 8, 8, 3, 8, 3, padding=1), Mapping(l3_tile=(16, 8, 27), l2_tile=(8, 8, 27)))]
    cases += [
        (VectorOp(4096, function=f), Mapping(l3_tile=(512, 1, 1), l2_tile=(64, 1, 1)))
        for f in ("gelu", "exp", "div", "rsqrt")
    ]
    cases += [(Gemm(32, 32, 32), Mapping(partition=(1, 64, 32, 1), **whole))]  # compute tiles
    cases += [(Gemm(4096, 4096, 64), Mapping(l3_tile=(4096, 4096, 64), l2_tile=(8, 8, 8)))]  # L3
    cases += [(Gemm(512, 512, 64), Mapping(l3_tile=(64, 512, 64), l2_tile=(64, 512, 64), partition=(1, 1, 1, 1)))]  # L2
    cases += [(Gemm(8, 8, 2**17), Mapping(l3_tile=(8, 8, 2**11), l2_tile=(8, 1, 2**11)))]  # L1
    cases += [(Gemm(2**16, 2**16, 1), Mapping(l3_tile=(8, 8, 1), l2_tile=(8, 8, 1)))]  # external memory
    cases += [
        (Gemm(2**16, 2**13, 1, data_on={"C": "host"}), Mapping(l3_tile=(8, 8, 1), l2_tile=(8, 8, 1)))
    ]  # host memory
    return [(op.plain(), mapping) for op, mapping in cases]


def chips() -> list[KPUConfig]:
    """Chips on which the external rate is that of the banks, of the page buffers, and of the controllers."""
    base = preset("minimal").replace(
        {"on_chip_memory.l1.buffer_capacity_kb": 1, "on_chip_memory.l2.bank_capacity_kb": 8, "clocks.dma_mhz": 5000}
    )
    return [
        base,
        base.replace({"memory_controller.page_buffer_capacity_kb": 0.5, "compute.fold_overlap": False}),
        base.replace({"memory_controller.bandwidth_gbps": 4, "on_chip_memory.l1.buffer_count": 64}),
        preset("edge_ai").replace({"buses.streamer_bytes": 4, "buses.block_mover_bytes": 4, "clocks.dma_mhz": 100}),
    ]


@jit_for(BATCH)
@jax.vmap
def screened(cfg: Any, op: Any, mapping: Any) -> Any:
    return evaluate(cfg, op, mapping, exact=False)


def results(variants: list[KPUConfig]) -> dict[str, np.ndarray]:
    """Result -> [variant, chip's workload, value]: everything but areas and TDP; times are exact."""
    cases = workloads()
    rows = [(cfg, op, mapping) for cfg in variants for op, mapping in cases]
    cfg, op, mapping = (stack(list(column)) for column in zip(*rows, strict=True))
    report = in_chunks(screened, cfg, op, mapping)
    quick = np.flatnonzero((report.status_code == 0) & (report.macs < 1e7))
    exact = report.cycles.copy()
    exact[quick] = exact_cycles_of(*(jax.tree.map(lambda v: v[quick], tree) for tree in (cfg, op, mapping)))
    found = {
        "cycles": exact,
        "seconds": exact / cfg.clocks.fabric_mhz,
        "traffic": np.stack(jax.tree.leaves((report.reads, report.writes, report.overfetch)), axis=1),
        "fit": np.stack([report.status_code, report.overflow], axis=1),
        "energy": np.stack(jax.tree.leaves(report.energy), axis=1),
    }
    return {name: v.reshape(len(variants), -1) for name, v in found.items()}


def changed(cfg: KPUConfig, path: str) -> list[KPUConfig]:
    """The chip with more and with less of one thing, within the field's kind and range."""
    field, value = FIELDS[path], float(get_path(cfg, path))
    if field.flag:
        return [replace_path(cfg, path, np.float64(1 - value))] * 2
    values = [factor * value if value > 0 else factor * 64 for factor in FACTORS]
    if field.integer:
        values = [max(1.0, np.floor(v)) for v in values]
    return [replace_path(cfg, path, np.float64(np.clip(v, field.low, field.high))) for v in values]


@functools.cache
def effects() -> dict[str, set[str]]:
    """Path of a leaf -> names of the results that it changes on some chip."""
    paths = [path for path, _ in leaf_paths(chips()[0])]
    found: dict[str, set[str]] = {path: set() for path in paths}
    for chip in chips():
        variants = [chip, *(v for path in paths for v in changed(chip, path))]
        for name, values in results(variants).items():
            differs = ~np.all((values == values[0]) | (np.isnan(values) & np.isnan(values[0])), axis=1)
            for i, path in enumerate(paths):
                if differs[1 + 2 * i] or differs[2 + 2 * i]:
                    found[path].add(name)
    return found


def test_every_field_changes_a_result():
    found = effects()
    for path, names in found.items():
        print(f"{path}: {', '.join(sorted(names)) or NO_EFFECT.get(path, 'NOTHING')}")
    silent = {path for path, names in found.items() if not names}
    assert silent == set(NO_EFFECT), silent ^ set(NO_EFFECT)


@pytest.mark.parametrize("path", [p for p in FIELDS if p not in NO_EFFECT and not p.startswith("technology.")])
def test_every_field_of_the_hardware_changes_time_traffic_or_fit(path):
    """Not only the leakage of its area."""
    assert effects()[path] & {"cycles", "traffic", "fit"}


@pytest.mark.parametrize("path", [p for p in FIELDS if p not in NO_EFFECT and p.startswith("technology.")])
def test_a_constant_of_the_technology_changes_energy_only(path):
    assert effects()[path] == {"energy"}
