"""One call answers where cycles, joules and bytes go, and its numbers add up."""

from __future__ import annotations

import json

import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.analysis import PerformanceAnalyzer, compare_reports
from kpu_jax.base.errors import InfeasibleError, KPUError

CHIP = kpu.presets.edge_ai()
GEMM = kpu.Gemm(m=128, n=768, k=768)
MAPPING = kpu.Mapping(l3_tile=(128, 64, 384), l2_tile=(32, 48, 128), l3_order="nmk")
THIN = kpu.Mapping(l3_tile=(16, 32, 768), l2_tile=(16, 16, 256))


@pytest.fixture(scope="module")
def reports():
    return [kpu.simulate(CHIP, GEMM, mapping) for mapping in (MAPPING, THIN)]


def test_the_questions_that_users_ask_are_answered(reports):
    found = PerformanceAnalyzer().analyze(reports[0], chip=CHIP, workload=GEMM, mapping=MAPPING)
    values = {row["quantity"]: row["value"] for row in found.tables["summary"]}
    assert values["utilization"] <= 100 and values["over the lower bound"] >= 1
    assert values["achieved"] == pytest.approx(2 * 128 * 768 * 768 / float(reports[0].seconds) * 1e-12)
    assert sum(row["share %"] for row in found.tables["energy"]) == pytest.approx(100)
    critical = found.tables["critical path, and each class twice as fast"]
    assert sum(row["cycles"] for row in critical) == pytest.approx(float(reports[0].cycles), rel=1e-12)
    for row in critical:
        if row["simulated %"]:  # time is convex in a class's scale: the gradient promises at least what comes
            assert float(row["predicted %"]) - 0.11 <= float(row["simulated %"]) <= 0.05, row
    dram = next(row for row in found.tables["traffic"] if row["level"] == "dram")
    assert float(dram["x compulsory"]) >= 1
    assert json.loads(found.to_json()) == json.loads(json.dumps(found.to_dict()))
    for word in ("summary", "advice", "energy", "critical path"):
        assert word in str(found) and word in found.to_markdown()


def test_a_comparison_adds_up(reports):
    found = compare_reports(*reports)
    for rows in (found.tables["energy [uJ]"], found.tables["traffic [byte]"]):
        *terms, total = rows
        assert sum(row["b - a"] for row in terms) == pytest.approx(total["b - a"], rel=1e-9)
    time = {row["term"]: row for row in found.tables["time [fabric cycles]"]}
    for side in "ab":
        held = max(row[side] for name, row in time.items() if name.endswith("held"))
        assert held + time["waiting"][side] == pytest.approx(time["makespan"][side])
    assert all(row["b - a"] == 0 for rows in compare_reports(reports[0], reports[0]).tables.values() for row in rows)


def test_advice_names_external_traffic_beyond_compulsory(reports):
    for report in reports:
        ratio = sum(report.traffic["dram"].values()) / report.compulsory
        told = [line for line in PerformanceAnalyzer().analyze(report).advice if "compulsory" in line]
        assert len(told) == (ratio > 1.1) and all(f"{ratio:.2f} times" in line for line in told)
    assert ratio > 2


def test_lists_and_networks(reports):
    several = PerformanceAnalyzer().analyze(reports)
    assert [row["x fastest"] >= 1 for row in several.tables["results"]] == [True, True]
    net = kpu.Workload.from_ops([("a", GEMM), ("b", kpu.Gemm(64, 64, 64))])
    found = PerformanceAnalyzer().analyze(kpu.simulate(CHIP, net, THIN, timing="bound"))
    assert sum(row["time %"] for row in found.tables["slowest operations"]) == pytest.approx(100)


def test_what_cannot_be_analysed_is_named(reports):
    infeasible = kpu.simulate(CHIP, GEMM, kpu.Mapping(l3_tile=(128, 768, 768), l2_tile=(128, 768, 768)))
    with pytest.raises(InfeasibleError, match="fit"):
        PerformanceAnalyzer().analyze(infeasible)
    for wrong, message in (([], "empty"), (3.0, "float"), ([reports[0], "x"], "result 1")):
        with pytest.raises(KPUError, match=message):
            PerformanceAnalyzer().analyze(wrong)
    with pytest.raises(KPUError, match="all three"):
        PerformanceAnalyzer().analyze(reports[0], chip=CHIP)
    with pytest.raises(KPUError, match="no table"):
        PerformanceAnalyzer().analyze(reports[0]).to_pandas("nothing")
    assert len(PerformanceAnalyzer().analyze(reports[0]).to_pandas("energy")) > 1
    assert np.isfinite(float(reports[0].cycles))
