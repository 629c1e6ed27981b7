"""One chip, one operation, one mapping -> one report. Pure: jit, vmap and grad go through."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.base.pytree import build
from kpu_jax.engines.rates import Rates, rates_of
from kpu_jax.hardware import derived
from kpu_jax.mapping.legality import needs
from kpu_jax.mapping.rate import rate_of
from kpu_jax.mapping.visits import Layout, lay_out
from kpu_jax.model.bound import ENGINES, Bound, bound_of
from kpu_jax.model.costs import edp_and_power, energy_pj, total_area_mm2
from kpu_jax.model.report import Report
from kpu_jax.model.timing import ENGINES as CRITICAL
from kpu_jax.model.timing import critical_cycles, makespan
from kpu_jax.model.traffic import Traffic, count_traffic
from kpu_jax.model.work import Work, work_of
from kpu_jax.workload import Op

Scalar = jax.Array


def floats(tree: Any) -> Any:
    """Every leaf as a jax array of the ambient float type."""
    return jax.tree.map(lambda v: jnp.asarray(v, jnp.result_type(float)), tree)


class Screening(NamedTuple):
    """Everything about one operation on one chip but the exact time."""

    layout: Layout
    traffic: Traffic
    work: Work
    rates: Rates
    bound: Bound


def screen(cfg: Any, op: Any, mapping: Any) -> Screening:
    """Counts, traffic, rates and the lower bound of `op` under `mapping` on `cfg`."""
    array, rate = cfg.compute.processor_array, rate_of(cfg, op)
    layout = lay_out(op, mapping, array.rows, array.cols, rate)
    traffic = count_traffic(op, mapping, layout, cfg.buses.burst_bytes)
    work = work_of(cfg, op, mapping, layout, traffic, rate)
    rates = rates_of(cfg, op, mapping.dataflow)
    return Screening(layout, traffic, work, rates, bound_of(work, rates))


def evaluate(cfg: Any, op: Any, mapping: Any, *, exact: bool, cycles: Any = None) -> Report:
    """The report of `op`, `count` times over.

    `cycles`: makespans known already, NaN where they are not (then the bound stands in); for `exact=False`.

    Traffic: exact. Cycles: exact, or the lower bound with `exact=False`. Energy: exact given the
    technology. Under an infeasible mapping cycles and energy are infinite and `status_code` says why.
    """
    cfg, op, mapping = floats(cfg), floats(op), floats(mapping)
    layout, traffic, _, rates, bound = screen(cfg, op, mapping)
    status, overflow = needs(cfg, op, mapping, layout).verdict
    ok = status == 0
    cycles = bound.cycles if cycles is None else jnp.where(jnp.isnan(cycles), bound.cycles, cycles)
    if exact:
        cycles = makespan(*_timed(cfg, op, mapping, rates, ok))
    cycles = jnp.where(ok, cycles, jnp.inf)
    bound_or_inf = jnp.where(ok, bound.cycles, jnp.inf)
    hz = cfg.clocks.fabric_mhz * 1e6
    seconds = cycles / hz
    time = jnp.where(ok, cycles, 0.0)  # finite: 0 W for an infinite time would be NaN
    energy = energy_pj(cfg, op, traffic, time)
    energy = {name: jnp.where(ok, pj, jnp.inf) for name, pj in energy.items()}
    total = sum(energy.values())
    macs = jnp.where(op.kind < 2, op.batch * op.m * op.n * op.k, 0.0)
    peak = derived.pe_count(cfg) * rate_of(cfg, op)
    once = Report(
        cycles=cycles,
        cycles_bound=bound_or_inf,
        seconds=seconds,
        energy_pj=total,
        **edp_and_power(total, jnp.where(ok, seconds, 1.0)),  # infinite energies are enough
        utilization=jnp.where(ok, macs / (peak * jnp.where(ok, cycles, 1.0)), 0.0),
        macs=macs,
        reads=traffic.reads,
        writes=traffic.writes,
        overfetch=traffic.padding_read + traffic.padding_write,
        compulsory=traffic.compulsory,
        energy=energy,
        busy=dict(zip(ENGINES, bound.busy, strict=True)),
        bound_by_code=bound.bound_by,
        status_code=status,
        overflow=overflow,
        area_mm2=total_area_mm2(cfg),
        tdp_w=derived.tdp_watts(cfg),
    )
    return repeated(once, op.count)


def _timed(cfg: Any, op: Any, mapping: Any, rates: Rates, ok: Scalar) -> tuple[Any, ...]:
    """The arguments of `makespan`: an illegal mapping is timed as if it had one block, and its time discarded."""
    array = cfg.compute.processor_array
    whole = {f"{level}_{a}": getattr(op, a) for level in ("l3", "l2") for a in "mnk"}
    legal = mapping_where(ok, mapping, whole)
    return rates, op, legal, array.rows, array.cols, rate_of(cfg, op), cfg.buses.burst_bytes


def criticality(cfg: Any, op: Any, mapping: Any) -> tuple[Scalar, dict[str, Scalar], Scalar, Scalar]:
    """(exact cycles, those of each engine class on the critical path, status code, overflow), `count` times over."""
    cfg, op, mapping = floats(cfg), floats(op), floats(mapping)
    array, rate = cfg.compute.processor_array, rate_of(cfg, op)
    status, overflow = needs(cfg, op, mapping, lay_out(op, mapping, array.rows, array.cols, rate)).verdict
    ok = status == 0
    cycles, parts = critical_cycles(*_timed(cfg, op, mapping, rates_of(cfg, op, mapping.dataflow), ok))
    cycles, *each = (_times(op.count, jnp.where(ok, v, jnp.inf)) for v in (cycles, *parts))
    return cycles, dict(zip(CRITICAL, each, strict=True)), jnp.where(op.count > 0, status, 0.0), overflow


COUNTED = ("cycles", "cycles_bound", "seconds", "energy_pj", "macs", "reads", "writes", "overfetch", "compulsory", "energy", "busy")


def _times(count: Scalar, v: Scalar) -> Scalar:
    """`count` times v, also an infinite one; 0 for 0."""
    return jnp.where(count > 0, v * jnp.where(count > 0, count, 1.0), 0.0)


def repeated(once: Report, count: Scalar) -> Report:
    """The report of `count` executions one after the other; nothing at all for 0 (a padded row)."""
    fields = {name: getattr(once, name) for name in Report.__dataclass_fields__}
    fields |= {name: jax.tree.map(functools.partial(_times, count), fields[name]) for name in COUNTED}
    fields |= {
        "edp": fields["energy_pj"] * 1e-12 * fields["seconds"],
        "status_code": jnp.where(count > 0, once.status_code, 0.0),
    }
    return build(Report, **fields)


def mapping_where(keep: Scalar, mapping: Any, other: dict[str, Scalar]) -> Any:
    """`mapping` where `keep`, else with the fields of `other`."""
    fields = {k: jnp.where(keep, getattr(mapping, k), v) for k, v in other.items()}
    leaves, tree = jax.tree_util.tree_flatten(mapping)
    names = list(type(mapping).__dataclass_fields__)
    return jax.tree_util.tree_unflatten(tree, [fields.get(n, v) for n, v in zip(names, leaves, strict=True)])


def evaluate_table(cfg: Any, ops: Op, mappings: Any, *, exact: bool, cycles: Any = None) -> Report:
    """The report of a table of operations run one after the other, each `count` times; leaves [op].

    Totals at the top, `per_op` with the counts applied. EDP = (sum of energy) (sum of seconds).
    """
    cfg, ops = floats(cfg), floats(ops)
    known = jnp.full_like(ops.m, jnp.nan) if cycles is None else cycles

    def one(op: Op, mapping: Any, given: Scalar) -> Report:
        return evaluate(cfg, op, mapping, exact=exact, cycles=given)

    per_op = jax.vmap(one)(ops, floats(mappings), known)
    total = {name: jax.tree.map(jnp.sum, getattr(per_op, name)) for name in COUNTED}
    first_bad = jnp.argmax(per_op.status_code > 0)
    ok = jnp.all(per_op.status_code == 0)
    work = jnp.sum(jnp.where(ops.kind < 2, per_op.macs / (derived.pe_count(cfg) * rate_of(cfg, ops)), 0.0))
    seconds = jnp.where(ok, total["seconds"], 1.0)
    return Report(
        **total,
        **edp_and_power(total["energy_pj"], seconds),
        utilization=jnp.where(ok, work / jnp.where(ok, total["cycles"], 1.0), 0.0),
        bound_by_code=_binding(per_op),
        status_code=per_op.status_code[first_bad],
        overflow=per_op.overflow[first_bad],
        area_mm2=per_op.area_mm2[0],
        tdp_w=per_op.tdp_w[0],
        per_op=per_op,
    )


def _binding(per_op: Report) -> Scalar:
    """Index of the class that binds the operations [op] which together hold their binding class longest."""
    held = functools.reduce(jnp.maximum, per_op.busy.values())
    codes = jnp.arange(float(len(ENGINES)))
    of_class = jnp.sum(jnp.where(per_op.bound_by_code == codes[:, None], held, 0.0), axis=-1)
    return jnp.argmax(of_class).astype(held.dtype)
