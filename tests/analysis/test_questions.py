"""The questions that users of the field's tools ask, each answered by one call."""

from __future__ import annotations

import numpy as np
import pytest

import kpu_jax as kpu

CHIP = kpu.presets.edge_ai()
GEMM = kpu.Gemm(m=128, n=768, k=768)
MAPPING = kpu.Mapping(l3_tile=(128, 64, 384), l2_tile=(32, 48, 128), l3_order="nmk")


@pytest.fixture(scope="module")
def report():
    return kpu.simulate(CHIP, GEMM, MAPPING)


def test_where_do_the_cycles_go(report):
    terms = kpu.analysis.time_terms(report)
    assert sum(terms.values()) == pytest.approx(float(report.cycles)) and min(terms.values()) >= 0


def test_which_level_dominates_the_energy(report):
    first = kpu.analysis.PerformanceAnalyzer().analyze(report).tables["energy"][0]
    assert first["component"] == max(report.energy, key=report.energy.get) and first["share %"] > 30


def test_why_is_the_utilization_low(report):
    """One of two compute tiles is used, so the fabric is held twice as long as the multiply-adds at the peak would take."""
    terms = kpu.analysis.time_terms(report)
    assert terms["fabric held beyond them"] == pytest.approx(terms["multiply-adds at the chip's peak"])
    assert any(line.startswith("fill the array") for line in kpu.analysis.PerformanceAnalyzer().analyze(report).advice)


def test_can_this_mapping_be_replayed(report):
    """What prints is the call that makes it; so is what `describe` gives."""
    again = eval(repr(MAPPING), {"Mapping": kpu.Mapping})
    assert again == MAPPING == kpu.Mapping(**MAPPING.describe())
    assert kpu.simulate(CHIP, GEMM, again).cycles == report.cycles


def test_does_it_exceed_the_peak(report):
    least = kpu.analysis.bounds(CHIP, GEMM, report)
    assert np.all(least.time_ratio >= 1) and np.all(least.traffic_ratio >= 1) and report.utilization <= 1


def test_the_vector_engine_is_named_where_it_binds():
    op = kpu.Gemm(m=512, n=512, k=4, activation="gelu", bias=True)
    mapping = kpu.Mapping(l3_tile=(128, 128, 4), l2_tile=(32, 32, 4))
    critical = kpu.analysis.what_if(CHIP, op, mapping)[0]
    assert kpu.simulate(CHIP, op, mapping).bound_by == critical["class"] == "vector"
    alone = kpu.VectorOp(65536, function="gelu")
    mapping = kpu.Mapping(l3_tile=(4096, 1, 1), l2_tile=(1024, 1, 1))
    both = kpu.Workload.from_ops([("product", op), ("gelu", alone), ("fabric", kpu.Gemm(64, 64, 512))])
    found = kpu.simulate(CHIP, both, kpu.Mapping(l3_tile=(64, 64, 64), l2_tile=(16, 16, 64)), timing="bound")
    assert list(found.per_op.bound_by[:2]) == ["vector", "vector"] and found.bound_by == "vector"
    assert kpu.simulate(CHIP, alone, mapping).busy["fabric"] == 0
