"""The laws of a physical machine, on random chips, operations and mappings of any size (`kpu.md`, section 5)."""

from __future__ import annotations

import census
import jax
import numpy as np
import pytest
from law_cases import ROUNDING, STEPPED, assert_all, stepped
from strategies import Triple

from kpu_jax.base.pytree import leaf_paths
from kpu_jax.hardware import derived
from kpu_jax.workload import unique_input_bytes
from kpu_jax.workload.footprint import element_bytes


def test_at_least_half_fit_and_all_kinds_occur(large):
    triples, report, fits = large
    found = np.bincount(report.status_code.astype(int), minlength=10)
    print(f"{len(fits)} triples, {100 * fits.mean():.1f} % feasible; by status {found.tolist()}")
    print("kinds:", [f"{100 * np.mean(triples.op.kind[fits] == kind):.1f} %" for kind in range(3)])
    census.check(triples.mapping, fits)
    assert fits.mean() >= 0.5
    assert (~fits).sum() >= 0.01 * len(fits)


def test_no_faster_than_the_array(large):
    (cfg, op, mapping), report, fits = large
    bits = np.clip(np.maximum(op.a_bits, op.b_bits), 1, 32)
    peak = derived.peak_macs_per_cycle(cfg, bits)
    least = np.where(op.kind < 2, op.batch * op.m * op.n * op.k, 0) / peak
    assert_all(
        report.cycles_bound >= least * (1 - ROUNDING), fits, Triple(cfg, op, mapping), report.cycles_bound, least
    )
    assert_all(report.utilization <= 1 + ROUNDING, fits, Triple(cfg, op, mapping), report.utilization)


def test_no_faster_than_the_external_memory(large):
    """Also where data come from the host: they pass the external memory twice."""
    triples, report, fits = large
    moved = sum(report.reads["dram"].values()) + sum(report.writes["dram"].values())
    rate = derived.external_bytes_per_second(triples.cfg) / (triples.cfg.clocks.fabric_mhz * 1e6)
    least = moved / rate
    assert_all(report.cycles_bound >= least * (1 - ROUNDING), fits, triples, report.cycles_bound, least)


def test_no_less_traffic_than_the_operands(large):
    triples, report, fits = large
    op = triples.op
    moved = sum(report.reads["dram"].values()) + sum(report.writes["dram"].values())
    assert_all(moved >= report.compulsory, fits, triples, moved, report.compulsory)
    distinct, index = np.unique(np.stack(jax.tree.leaves(op)), axis=1, return_inverse=True)
    shape = jax.tree.structure(op)
    pixels = np.array([unique_input_bytes(jax.tree.unflatten(shape, list(column))) for column in distinct.T])[index]
    _, eb, ec, acc = element_bytes(op)
    sizes = ((op.loc_a, pixels), (op.loc_b, op.batch * op.k * op.n * eb), (op.loc_c, op.batch * op.m * op.n * ec))
    least = sum(np.where(location < 2, size, 0) for location, size in sizes)
    assert_all(report.compulsory >= least, np.ones_like(fits), triples, report.compulsory, least)


def test_numbers_are_finite_when_feasible_and_infinite_when_not(large):
    triples, report, fits = large
    everything = np.ones_like(fits)
    for path, values in leaf_paths(report):
        assert_all(~np.isnan(values), everything, triples, values, about=path)
        assert_all(values >= 0, everything, triples, values, about=path)
        assert_all(np.isfinite(values), fits, triples, values, about=path)
    for name in ("cycles", "cycles_bound", "seconds", "energy_pj", "edp", "power_w"):
        assert_all(getattr(report, name) == np.inf, ~fits, triples, getattr(report, name))
    assert_all(report.overflow > 0, ~fits, triples, report.overflow)
    assert_all(report.overflow == 0, fits, triples, report.overflow)


def test_energy_is_positive_and_the_sum_of_its_parts(large):
    triples, report, fits = large
    total = sum(report.energy.values())
    assert_all(report.energy_pj > 0, fits, triples, report.energy_pj)
    assert_all(np.isclose(report.energy_pj, total, rtol=ROUNDING), fits, triples, report.energy_pj, total)
    power = np.where(fits, report.energy_pj * 1e-12, 0) / np.where(fits, report.seconds, 1)
    assert_all(np.isclose(report.power_w, power, rtol=ROUNDING), fits, triples, report.power_w, power)


@pytest.mark.parametrize("count", STEPPED)
def test_the_bound_is_a_lower_bound(count):
    triples, exact, bound = stepped(count)
    gap = exact / bound - 1
    print(
        f"exact over bound, {count} triples: "
        f"{100 * np.median(gap):.2f} % more (median), {100 * gap.max():.1f} % (worst)"
    )
    assert_all(exact >= bound * (1 - ROUNDING), np.ones(count, bool), triples, exact, bound)
