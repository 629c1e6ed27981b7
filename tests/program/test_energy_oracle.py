"""Energy against the program's own bytes times the technology, added up in plain Python."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from small_cases import small_case

import kpu_jax as kpu
from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.model.evaluate import evaluate
from kpu_jax.program import Opcode, traffic
from kpu_jax.workload import ACTIVATIONS, MAC_FORMATS

ROOMY = {
    "compute.tile_count": 4096, "on_chip_memory.l3.tile_capacity_kb": 1024, "on_chip_memory.l2.bank_count": 2**17,
    "on_chip_memory.l1.buffer_count": 2**20, "technology.mac_int8_pj": 0.3, "technology.vector_op_pj": 1.7,
}  # fmt: skip


@jit_for(BATCH)
def evaluated(cfg, op, mapping):
    return evaluate(cfg, op, mapping, exact=False)


def by_hand(case, cfg) -> dict[str, float]:
    """pJ by memory level, for multiply-adds and for the vector engine."""
    t, memory, program = cfg.technology, cfg.on_chip_memory, case.program()
    capacity = {
        "l3": memory.l3.tile_capacity_kb, "l2": memory.l2.bank_capacity_kb, "l1": memory.l1.buffer_capacity_kb
    }  # fmt: skip
    per_byte = {
        "host": (t.host_pj_per_byte,) * 2,
        "dram": (t.dram_read_pj_per_byte, t.dram_write_pj_per_byte),
        "pe": (t.pe_pj_per_byte,) * 2,
        **{
            level: tuple(pj * math.sqrt(kb / t.sram_reference_kb) for pj in (t.sram_read_pj_per_byte, t.sram_write_pj_per_byte))
            for level, kb in capacity.items()
        },
    }
    energy = dict.fromkeys(per_byte, 0.0)
    for (kind, level, _), size in traffic(program).items():
        energy[level] += size * per_byte[level][kind == "write"]
    op = case.op
    energy["mac"] = float(program.macs.sum()) * op.zero_gating * getattr(t, f"mac_{MAC_FORMATS[int(op.mac_format)]}_pj")
    results, v = int(op.batch * op.m * op.n), cfg.vector
    activation = getattr(v, f"cycles_{ACTIVATIONS[int(op.activation)]}") if op.activation else 0.0
    if op.kind == 2:
        special = op.vector_exp * v.cycles_exp + op.vector_div * v.cycles_div + op.vector_sqrt * v.cycles_sqrt
        cycles = results * (op.vector_simple * v.cycles_add + special + activation)
    else:
        acc = float(op.acc_bits) / 8
        # Every further part of K of a block is read from L3, added and written back.
        summed = program.reread[program.opcode == Opcode.BM_ACCUMULATE_TILE].sum()
        cycles = results * (op.has_bias * v.cycles_add + activation) + summed / acc * v.cycles_add
    energy["vector"] = cycles * t.vector_op_pj
    return energy


@pytest.mark.parametrize("seed", range(60))
def test_energy_is_bytes_times_technology(seed):
    case = small_case(np.random.default_rng((17, seed)))
    changes = {**ROOMY, "compute.processor_array": {"rows": case.rows, "cols": case.cols}, "buses.burst_bytes": case.burst}
    cfg = kpu.presets.edge_ai().replace({**changes, **{f"precision.macs_{bits}": case.rate for bits in (32, 16, 8, 4)}})
    with jax.enable_x64(True):
        report = jax.tree.map(float, evaluated(cfg, case.op, case.mapping))
    assert report.status_code == 0
    for name, pj in by_hand(case, cfg).items():
        assert report.energy[name] == pytest.approx(pj, rel=1e-12, abs=1e-12), name
    total = sum(by_hand(case, cfg).values()) + report.energy["overfetch"] + report.energy["leakage"] + report.energy["clock"]
    assert report.energy_pj == pytest.approx(total, rel=1e-12)
