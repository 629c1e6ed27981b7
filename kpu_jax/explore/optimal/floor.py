"""What no mapping of an operation on a chip can fall below: its multiply-adds and its compulsory bytes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from kpu_jax.engines.rates import rates_of
from kpu_jax.explore.optimal.objective import Objective
from kpu_jax.hardware.derived import pe_count
from kpu_jax.mapping.rate import rate_of
from kpu_jax.model.costs import costs_of
from kpu_jax.workload.footprint import operand_bytes


def floor_of(cfg: Any, op: Any, objective: Objective) -> float:
    """Lower bound on the objective over all mappings.

    Time: all PEs busy with the multiply-adds, and the external memory with each operand once; of a convolution's input,
    rows may go unused, so it is left out. Energy: these actions alone, and static power for that time.
    """
    with jax.enable_x64(True):
        costs, rates, rate = costs_of(cfg), rates_of(cfg, op, jnp.zeros(())), rate_of(cfg, op)
        macs = float(op.batch * op.m * op.n * op.k) if op.kind < 2 else 0.0
        stored = min(1.0, float(op.density_a)) * min(1.0, float(op.density_b))
        a, b, c = (
            float(op.batch * size) if loc < 2 else 0.0 for size, loc in zip(operand_bytes(op), (op.loc_a, op.loc_b, op.loc_c), strict=True)
        )
        read = (0.0 if op.kind == 1 else a) + b if op.kind < 2 else 0.0
        cycles = max(macs * stored / float(pe_count(cfg) * rate), (read + c) / float(rates.dma.peak))
        seconds = cycles / (float(cfg.clocks.fabric_mhz) * 1e6)
        mac = min(float(pj) for pj in costs.mac) if op.kind < 2 else 0.0
        energy = macs * float(op.zero_gating) * mac + read * float(costs.read["dram"]) + c * float(costs.write["dram"])
        static = float(costs.leakage_w) * 1e12 * seconds + float(costs.clock_pj) * cycles
    return float(objective.at(seconds, energy + static)) * (1 - 1e-9)
