"""The inner loop of a sweep: geometries x speeds x operations x strategies, evaluated and reduced on the device.

What a mapping makes the engines do depends on the chip's geometry only (arrays, tiles, capacities), how long
that takes on its speed (clocks, buses, engine counts, bandwidths, latencies). So a geometry's work is laid
out once and timed at every speed. Three jitted stages with their results in memory between them: fused into
one, XLA would lay the work out again for every speed.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.base.pytree import replace_path
from kpu_jax.engines.rates import rates_of
from kpu_jax.hardware.derived import tdp_watts
from kpu_jax.mapping.legality import needs
from kpu_jax.mapping.proposals import propose
from kpu_jax.mapping.visits import lay_out
from kpu_jax.model.bound import bound_of
from kpu_jax.model.costs import costs_of, energy_pj, total_area_mm2
from kpu_jax.model.evaluate import rate_of
from kpu_jax.model.traffic import count_traffic
from kpu_jax.model.work import Work, work_of

Scalar = jax.Array
Values = dict[str, Any]  # dotted path -> values


class Totals(NamedTuple):
    """Per chip [geometry, speed], summed over the workload; by the lower bound on every operation's time."""

    seconds: Scalar  # of the mappings chosen for the objective [s]
    energy_pj: Scalar  # of the same mappings [pJ]
    least_seconds: Scalar  # of the fastest mapping of each operation: nothing in the set is faster
    least_energy_pj: Scalar  # of the thriftiest one
    least_dynamic_pj: Scalar  # of the one whose energy apart from leakage and clock is least
    static_w: Scalar  # leakage and clock power
    area_mm2: Scalar
    tdp_w: Scalar


class Laid(NamedTuple):
    """A geometry's work [geometry, op, strategy]."""

    work: Work
    dynamic_pj: Scalar  # energy that does not depend on time [pJ]; infinite where the mapping does not fit


def _lay(chip: Any, op: Any, strategy: Scalar) -> Laid:
    mapping = propose(chip, op, strategy)
    rate = rate_of(chip, op)
    array = chip.compute.processor_array
    layout = lay_out(op, mapping, array.rows, array.cols, rate)
    traffic = count_traffic(op, mapping, layout, chip.buses.burst_bytes)
    zero = jnp.zeros_like(op.m)
    energy = sum(energy_pj(chip, op, traffic, zero).values())
    fits = needs(chip, op, mapping, layout).status == 0
    return Laid(work_of(chip, op, mapping, layout, traffic, rate), jnp.where(fits, energy, jnp.inf))


def _with(chip: Any, values: Values) -> Any:
    for path, value in values.items():
        chip = replace_path(chip, path, value)
    return chip


@jit_for(BATCH)  # runs once per geometry: unfused compiles three times faster
def lay_block(base: Any, geometry: Values, ops: Any, strategies: Any) -> Laid:
    """Lay out every operation [op] under every strategy on every geometry."""

    def one(values: Values) -> Laid:
        chip = _with(base, values)
        return jax.vmap(lambda op: jax.vmap(lambda s: _lay(chip, op, s))(strategies))(ops)

    return jax.vmap(one)(geometry)


@jax.jit
def time_block(base: Any, geometry: Values, speed: Values, ops: Any, work: Work) -> Scalar:
    """Lower bound on the cycles of laid-out work [geometry, speed, op, strategy]."""

    def price(chip: Any, op: Any, w: Work) -> Scalar:
        return bound_of(w, rates_of(chip, op, jnp.zeros_like(w.fill_drain))).cycles

    def one(values: Values, laid: Work) -> Scalar:
        chip = _with(base, values)

        def at_speed(speeds: Values) -> Scalar:
            fast = _with(chip, speeds)
            return jax.vmap(lambda op, row: jax.vmap(lambda w: price(fast, op, w))(row))(ops, laid)

        return jax.vmap(at_speed)(speed)

    return jax.vmap(one)(geometry, work)


@partial(jax.jit, static_argnames="objective")
def reduce_block(
    base: Any, geometry: Values, speed: Values, count: Scalar, dynamic_pj: Scalar, cycles: Scalar, *, objective: str
) -> Totals:
    """The best strategy of each operation, summed over the workload (`count` times each).

    latency, energy: the least of each operation. edp: each operation minimises E_l D + D_l E, with the
    workload's least D and E as weights.
    """

    def at_speed(chip: Any, dynamic: Scalar, time: Scalar) -> Totals:
        hz = chip.clocks.fabric_mhz * 1e6
        costs = costs_of(chip)
        per_cycle = costs.leakage_w * (1e12 / hz) + costs.clock_pj
        time = jnp.where(jnp.isfinite(dynamic), time, jnp.inf)
        energy = dynamic + per_cycle * time

        def total(v: Scalar) -> Scalar:
            return jnp.sum(jnp.where(count > 0, v * count, 0.0))

        least_time, least_energy = total(jnp.min(time, axis=-1)), total(jnp.min(energy, axis=-1))
        weighed = energy * least_time + time * least_energy
        cost = jnp.where(jnp.isfinite(time), {"latency": time, "energy": energy, "edp": weighed}[objective], jnp.inf)
        chosen = jnp.argmin(cost, axis=-1, keepdims=True)

        def pick(v: Scalar) -> Scalar:
            return total(jnp.take_along_axis(v, chosen, axis=-1)[..., 0])

        return Totals(
            seconds=pick(time) / hz,
            energy_pj=pick(energy),
            least_seconds=least_time / hz,
            least_energy_pj=least_energy,
            least_dynamic_pj=total(jnp.min(dynamic, axis=-1)),
            static_w=per_cycle * hz * 1e-12,
            area_mm2=total_area_mm2(chip),
            tdp_w=jnp.asarray(tdp_watts(chip)),
        )

    def one(values: Values, dynamic: Scalar, times: Scalar) -> Totals:
        chip = _with(base, values)
        return jax.vmap(lambda speeds, time: at_speed(_with(chip, speeds), dynamic, time))(speed, times)

    return jax.vmap(one)(geometry, dynamic_pj, cycles)


def evaluate_block(base: Any, geometry: Values, speed: Values, ops: Any, laid: Laid, objective: str) -> Totals:
    """Totals [geometry, speed] of a block of chips laid out by `lay_block`; `geometry`, `speed`: {dotted path: values}."""
    cycles = time_block(base, geometry, speed, ops, laid.work)
    return reduce_block(base, geometry, speed, ops.count, laid.dynamic_pj, cycles, objective=objective)
