"""Every analysis says what is wrong with what it was given, or answers in finite numbers."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
import pytest

import kpu_jax as kpu

analysis = kpu.analysis
CHIP = kpu.presets.edge_ai()
GEMM = kpu.Gemm(64, 64, 64)
NET = kpu.Workload.from_ops([("p", GEMM), ("q", kpu.Gemm(128, 64, 64)), ("v", kpu.VectorOp(4096, function="gelu"))])
MAPPING = kpu.Mapping(l3_tile=(64, 64, 64), l2_tile=(16, 16, 64))
SPACE = {"compute.tile_count": [1, 2]}
WEIRD = [None, "x", 0, math.nan, True, [], {}, [None], [[]], {"a": None}, object(), np.ones(3), [[1.0], [1.0, 2.0]]]


@pytest.fixture(scope="module")
def whole():
    return kpu.simulate(CHIP, NET, MAPPING, timing="bound")


@pytest.fixture(scope="module")
def single(whole):
    return jax.tree.map(lambda v: v[0], whole.per_op)


def total(points):
    return points.sum(axis=1)


STACKED = jax.tree.map(lambda v: np.stack([v, v]), CHIP)
ANALYZE = analysis.PerformanceAnalyzer().analyze
CALLS = {  # of a wrong value, a report of NET and one of GEMM
    "bounds, chip": lambda v, net, one: analysis.bounds(v, NET, net),
    "bounds, workload": lambda v, net, one: analysis.bounds(CHIP, v, net),
    "bounds, report": lambda v, net, one: analysis.bounds(CHIP, NET, v),
    "bounds, stacked chip": lambda v, net, one: analysis.bounds(STACKED, NET, net),
    "bounds, another report": lambda v, net, one: analysis.bounds(CHIP, NET, one),
    "roofline, chip": lambda v, net, one: analysis.roofline(v, NET, net),
    "roofline, workload": lambda v, net, one: analysis.roofline(CHIP, v, net),
    "roofline, report": lambda v, net, one: analysis.roofline(CHIP, NET, v),
    "roofline, stacked chip": lambda v, net, one: analysis.roofline(STACKED, NET, net),
    "roofline, another workload": lambda v, net, one: analysis.roofline(CHIP, kpu.Gemm(3, 3, 3), one),
    "time_terms": lambda v, net, one: analysis.time_terms(v),
    "compare_reports, a": lambda v, net, one: analysis.compare_reports(v, one),
    "compare_reports, b": lambda v, net, one: analysis.compare_reports(one, v),
    "analyze": lambda v, net, one: ANALYZE(v),
    "analyze, one of several": lambda v, net, one: ANALYZE([one, v]),
    "what_if, chip": lambda v, net, one: analysis.what_if(v, NET, MAPPING),
    "what_if, workload": lambda v, net, one: analysis.what_if(CHIP, v, MAPPING),
    "what_if, mapping": lambda v, net, one: analysis.what_if(CHIP, NET, v),
    "sensitivity, chip": lambda v, net, one: analysis.sensitivity(v, NET),
    "sensitivity, workload": lambda v, net, one: analysis.sensitivity(CHIP, v),
    "sensitivity, objective": lambda v, net, one: analysis.sensitivity(CHIP, NET, MAPPING, objective=v),
    "sobol, space": lambda v, net, one: analysis.sobol(v, NET),
    "sobol, workload": lambda v, net, one: analysis.sobol(SPACE, v),
    "morris, space": lambda v, net, one: analysis.morris(v, NET),
    "sobol_indices, function": lambda v, net, one: analysis.sobol_indices(v, ["a"], samples=4),
    "sobol_indices, names": lambda v, net, one: analysis.sobol_indices(total, v, samples=4),
    "sobol_indices, values": lambda v, net, one: analysis.sobol_indices(lambda points: v, ["a"], samples=4),
    "morris_effects, function": lambda v, net, one: analysis.morris_effects(v, ["a"], trajectories=2),
    "morris_effects, names": lambda v, net, one: analysis.morris_effects(total, v, trajectories=2),
    "morris_effects, values": lambda v, net, one: analysis.morris_effects(lambda points: v, ["a"], trajectories=2),
    "morris_effects, levels": lambda v, net, one: analysis.morris_effects(total, ["a"], trajectories=2, levels=v),
    "pareto_front": lambda v, net, one: analysis.pareto_front(v),
    "pareto_front, maximize": lambda v, net, one: analysis.pareto_front([[1.0]], maximize=["b", v]),
    "front_ranks": lambda v, net, one: analysis.front_ranks(v),
    "hypervolume": lambda v, net, one: analysis.hypervolume(v, [1.0]),
    "hypervolume, reference": lambda v, net, one: analysis.hypervolume([[1.0, 2.0]], v),
    "sweep_table": lambda v, net, one: analysis.sweep_table(v),
    "layer_table, workload": lambda v, net, one: analysis.layer_table(v, net),
    "layer_table, report": lambda v, net, one: analysis.layer_table(NET, v),
    "layer_table, one mapping": lambda v, net, one: analysis.layer_table(NET, net, MAPPING),
    "short_names": lambda v, net, one: analysis.short_names([1, v]),
    "text_table": lambda v, net, one: analysis.text_table([1, v]),
    "write_csv": lambda v, net, one: analysis.write_csv([{"b": 1}, v], "rows.csv"),
    "write_csv, path": lambda v, net, one: analysis.write_csv([{"a": 1}], "none/rows.csv"),
    "write_chrome_trace": lambda v, net, one: analysis.write_chrome_trace(v, "trace.json"),
    "critical_path, chip": lambda v, net, one: kpu.critical_path(v, GEMM),
    "critical_path, operation": lambda v, net, one: kpu.critical_path(CHIP, v),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_another_kind_are_named(name, whole, single, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in WEIRD:
        with pytest.raises(kpu.KPUError) as error:
            CALLS[name](value, whole, single)
        assert 15 < len(str(error.value)) < 900
    assert not list(tmp_path.iterdir())


def test_reports_that_hold_no_answer_are_named(whole, single):
    infeasible = dataclasses.replace(single, status_code=np.float64(1), overflow=np.float64(5))
    broken = [
        infeasible, jax.tree.map(lambda v: np.stack([v, v]), single), jax.tree.map(lambda v: v * 0, single),
        dataclasses.replace(single, seconds=np.float64(np.nan)),
        dataclasses.replace(single, busy=single.busy | {"dma": np.float64(np.inf)}),
    ]  # fmt: skip
    for report in broken:
        for call in (
            lambda r: analysis.bounds(CHIP, GEMM, r), lambda r: analysis.roofline(CHIP, GEMM, r), analysis.time_terms,
            lambda r: analysis.compare_reports(single, r), analysis.PerformanceAnalyzer().analyze,
            lambda r: analysis.PerformanceAnalyzer().analyze({"good": single, "bad": r}), lambda r: analysis.layer_table(NET, r),
        ):  # fmt: skip
            with pytest.raises(kpu.KPUError):
                call(report)
    with pytest.raises(kpu.KPUError, match="busy.dma of the report is not finite"):
        analysis.time_terms(broken[-1])


def test_what_cannot_be_answered_in_numbers_is_left_out(whole, single):
    """A vector operation has no multiply-adds: no rate, no intensity, no share is nan in what prints."""
    vector = jax.tree.map(lambda v: v[2], whole.per_op)
    for result in (vector, whole, single, {"product": single, "vector": vector}):
        assert "nan" not in str(analysis.PerformanceAnalyzer().analyze(result))
    assert "nan" not in str(analysis.compare_reports(vector, single)) + str(analysis.compare_reports(single, single))
    assert analysis.pareto_front([[np.nan, 1.0]]).points.shape == (0, 2) and analysis.hypervolume([[np.inf, 1.0]], [2.0, 2.0]) == 0.0
    assert analysis.front_ranks([[np.nan], [1.0]]).tolist() == [-1, 0]


def test_a_table_appears_whole_or_not_at_all(tmp_path):
    analysis.write_csv([{"a": 1, "b": "x, y"}, {"a": 2.5, "b": None}], tmp_path / "rows.csv")
    before = (tmp_path / "rows.csv").read_bytes()
    assert before == b'a,b\r\n1,"x, y"\r\n2.5,\r\n'
    with pytest.raises(kpu.KPUError, match="row 1 and the first have different columns: a, c"):
        analysis.write_csv([{"a": 1}, {"c": 2}], tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_bytes() == before
