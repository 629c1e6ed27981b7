"""What screening needs of one operation under one mapping: its bound, and how energy follows from time."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.mapping.legality import needs
from kpu_jax.model.costs import costs_of, energy_pj
from kpu_jax.model.evaluate import floats, screen

Scalar = jax.Array


class Price(NamedTuple):
    """Energy is affine in time: an exact time found later prices the mapping without another evaluation."""

    cycles: Scalar  # lower bound on the makespan [fabric cycles]
    estimate: Scalar  # likely makespan, for ranking only [fabric cycles]
    dynamic_pj: Any  # energy that does not depend on time [pJ]
    pj_per_cycle: Scalar  # leakage and clock [pJ/cycle]
    seconds_per_cycle: Scalar
    status: Scalar  # code of `mapping.legality.STATUS`; 0 fits
    overflow: Scalar

    def seconds(self, cycles: Any) -> Any:
        return cycles * self.seconds_per_cycle

    def energy_pj(self, cycles: Any) -> Any:
        return self.dynamic_pj + self.pj_per_cycle * cycles


def price(cfg: Any, op: Any, mapping: Any) -> Price:
    """The price of `op` under `mapping` on `cfg`. Pure and traceable; traffic and energy exact, time bounded."""
    cfg, op, mapping = floats(cfg), floats(op), floats(mapping)
    s = screen(cfg, op, mapping)
    fits = needs(cfg, op, mapping, s.layout)
    costs, zero = costs_of(cfg), jnp.zeros_like(op.m)
    seconds = 1 / (cfg.clocks.fabric_mhz * 1e6)
    return Price(
        cycles=s.bound.cycles,
        estimate=jnp.where(mapping.double_l3 > 0, s.bound.cycles, s.bound.in_turns),
        dynamic_pj=sum(energy_pj(cfg, op, s.traffic, zero).values()),
        pj_per_cycle=costs.leakage_w * 1e12 * seconds + costs.clock_pj,
        seconds_per_cycle=seconds,
        status=fits.status,
        overflow=fits.overflow,
    )
