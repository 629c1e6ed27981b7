"""One call answers where cycles, joules and bytes go, and its numbers add up."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.analysis import PerformanceAnalyzer, compare_reports, time_terms
from kpu_jax.base.errors import InfeasibleError, KPUError
from kpu_jax.explore.sweep_table import each_chip_once, sweep_table

CHIP = kpu.presets.edge_ai()
GEMM = kpu.Gemm(m=128, n=768, k=768)
MAPPING = kpu.Mapping(l3_tile=(128, 64, 384), l2_tile=(32, 48, 128), l3_order="nmk")
THIN = kpu.Mapping(l3_tile=(16, 32, 768), l2_tile=(16, 16, 256))
NET = kpu.Workload.from_ops([("a", GEMM), ("b", kpu.Gemm(64, 64, 64, count=2)), ("c", kpu.VectorOp(4096, function="gelu"))])
analyze = PerformanceAnalyzer().analyze


@pytest.fixture(scope="module")
def reports():
    return [kpu.simulate(CHIP, GEMM, mapping) for mapping in (MAPPING, THIN)]


@pytest.fixture(scope="module")
def run():
    program = kpu.program.build(CHIP, GEMM, MAPPING)
    return program, kpu.program.execute(CHIP, program)


def test_the_analysis_of_a_report(reports):
    found = analyze(reports[0], chip=CHIP, workload=GEMM, mapping=MAPPING)
    values = {row["quantity"]: row["value"] for row in found.tables["summary"]}
    assert values["utilization"] <= 100 and values["over the lower bound"] >= 1
    assert values["achieved"] == pytest.approx(2 * 128 * 768 * 768 / float(reports[0].seconds) * 1e-12)
    assert values["peak"] == pytest.approx(2 * 2 * 16 * 16 * 4 * 750e6 * 1e-12)
    assert sum(row["share %"] for row in found.tables["energy"]) == pytest.approx(100)
    assert sum(row["cycles"] for row in found.tables["where the cycles go"]) == pytest.approx(float(reports[0].cycles))
    critical = found.tables["critical path, and each class twice as fast"]
    assert sum(row["cycles"] for row in critical) == pytest.approx(float(reports[0].cycles), rel=1e-12)
    dram = next(row for row in found.tables["traffic"] if row["level"] == "dram")
    (least,) = found.tables["against the least possible"]
    assert dram["x compulsory"] == pytest.approx(least["external [byte]"] / least["compulsory [byte]"]) and least["x least bytes"] >= 1
    assert json.loads(found.to_json()) == json.loads(json.dumps(found.to_dict()))
    whole = analyze(kpu.simulate(CHIP, NET, THIN, timing="bound"), chip=CHIP, workload=NET)
    assert {row["operation"] for row in whole.tables["slowest operations"]} == {"a", "b[0]", "c"}
    for word in ("summary", "advice", "energy", "critical path", "simulated"):
        assert word in str(found) and word in found.to_markdown() and word in found._repr_html_()


def test_the_terms_of_time_add_up_for_networks_and_vector_work():
    report = kpu.simulate(CHIP, NET, THIN, timing="bound")
    terms = time_terms(report)
    assert sum(terms.values()) == pytest.approx(float(report.cycles)) and min(terms.values()) >= 0
    assert terms["vector held beyond the fabric"] == pytest.approx(float(report.per_op.busy["vector"][2]))
    found = analyze(report)
    assert sum(row["time %"] for row in found.tables["slowest operations"]) == pytest.approx(100)
    assert report.per_op.bound_by[2] == "vector"
    for factor in (1.5, 0.75):  # with host work, or operations side by side
        whole = dataclasses.replace(report, cycles=factor * report.cycles, seconds=factor * report.seconds)
        assert sum(time_terms(whole).values()) == pytest.approx(float(whole.cycles))
        rows = compare_reports(report, whole).tables["time [us]"]
        assert sum(row["b - a"] for row in rows[:-1]) == pytest.approx(rows[-1]["b - a"])


def test_a_comparison_adds_up(reports):
    found = compare_reports(*reports)
    for rows in found.tables.values():
        *terms, total = rows
        for side in ("a", "b", "b - a"):
            assert sum(row[side] for row in terms) == pytest.approx(total[side], rel=1e-9)
        assert sum(row["of the difference %"] for row in terms) == pytest.approx(100)
    slow = CHIP.replace({"clocks.fabric_mhz": 375})
    other = PerformanceAnalyzer().compare(reports[0], kpu.simulate(slow, GEMM, MAPPING))
    peak = other.tables["time [us]"][0]
    assert peak["b"] == pytest.approx(2 * peak["a"])  # each at its own clock
    assert "most of it" in other.advice[0]
    same = compare_reports(reports[0], reports[0])
    assert not same.advice and all(row["b - a"] == 0 for rows in same.tables.values() for row in rows)


def test_advice_names_external_traffic_beyond_compulsory(reports):
    for report in reports:
        ratio = sum(report.traffic["dram"].values()) / report.compulsory
        told = [line for line in analyze(report).advice if "compulsory" in line]
        assert len(told) == (ratio > 1.1) and all(f"{ratio:.2f} times" in line for line in told)
    assert ratio > 2


def test_an_executed_program(run, reports):
    program, timeline = run
    found = analyze(run, chip=CHIP)
    engines = found.tables["cycles busy, and idle by what is waited for"]
    assert [row["engine"] for row in engines] == ["dma", "block_mover", "streamer", "fabric"]
    for row in engines:
        assert sum(v for k, v in row.items() if k not in ("engine", "busy %")) == pytest.approx(float(timeline.makespan))
    moved = {row["level"]: row for row in found.tables["memories"]}
    for level, operands in reports[0].traffic.items():
        if size := sum(operands.values()):
            assert moved[level]["read and written [byte]"] == size
    for level, room in (("l3", 2 * 128 * 1024), ("l2", 16 * 64 * 1024)):
        assert 0 < moved[level]["most held [byte]"] <= room
    summary = {row["quantity"]: row["value"] for row in found.tables["summary"]}
    assert summary["makespan"] == reports[0].cycles and summary["multiply-adds"] == 128 * 768 * 768
    of_report = analyze(reports[0], chip=CHIP, workload=GEMM, mapping=MAPPING)
    critical = "critical path, and each class twice as fast"
    assert found.tables[critical] == of_report.tables[critical]
    assert "works longest" in found.title and "works longest" in found.advice[0]
    assert analyze(timeline).tables["summary"][0]["value"] == summary["makespan"]


def test_several_results_with_names(reports):
    found = analyze({"good": reports[0], "thin": reports[1]})
    assert [row["result"] for row in found.tables["results"]] == ["good", "thin"]
    assert min(row["x fastest"] for row in found.tables["results"]) == 1 and not found.advice
    small = kpu.simulate(CHIP, kpu.Gemm(8, 8, 8), kpu.Mapping(l3_tile=(8,) * 3, l2_tile=(8,) * 3), timing="bound")
    mixed = analyze([reports[0], small])
    assert "different workloads" in mixed.advice[0]
    thousand = analyze([reports[0]] * 1000)
    assert len(thousand.tables["results"]) == 1000 and len(str(thousand).splitlines()) < 140


def test_a_sweep(swept):
    found = analyze(swept)
    assert [row["least"] for row in found.tables["best"]] == ["latency", "energy", "edp"]
    rows = sweep_table(swept)
    assert found.tables["best chips"][0]["chip"] == min(rows, key=lambda row: row["edp_js"])["chip"]
    for heading in ("best chips", "Pareto set"):
        values = [row["edp_js"] for row in found.tables[heading]]
        assert values == sorted(values)
    one, two = {"chip": 1, "edp_js": 1.0}, {"chip": 2, "edp_js": 2.0}
    assert each_chip_once([one, two, one | {"edp_js": 3.0}]) == [one, two]  # best first, whatever comes after
    for row in found.tables["fields"]:
        best = min(row["edp_js"] for row in rows)
        others = min(r["edp_js"] for r in rows if r[row["field"]] != row["best value"])
        assert row["it costs %"] == pytest.approx(100 * (others / best - 1)) and row["it costs %"] >= 0
    assert any("limit area_mm2" in line for line in found.advice) and "Pareto" in str(swept) and "<table>" in swept._repr_html_()


def test_what_cannot_be_analysed_is_named(reports, run, swept):
    infeasible = kpu.simulate(CHIP, GEMM, kpu.Mapping(l3_tile=(128, 768, 768), l2_tile=(128, 768, 768)))
    program, timeline = run
    stacked = jax.tree.map(lambda v: np.stack([v, v]), reports[0])
    for wrong, given, message in (
        ([], {}, "no results"), (3.0, {}, "float"), ([reports[0], "x"], {}, "result 1"), (stacked, {}, "stacked"),
        ({"a": infeasible}, {}, "fit"),
        (reports[0], {"chip": CHIP}, "give both"), (reports[0], {"mapping": MAPPING}, "give both"),
        (reports[0], {"chip": CHIP, "workload": kpu.Gemm(8, 8, 8)}, "another workload"),
        (timeline, {"chip": CHIP}, "needs its program"), (run, {"workload": GEMM}, "only the chip"),
        (swept, {"chip": CHIP}, "takes no chip"),
        ((program, timeline._replace(start=timeline.start[1:])), {}, "instructions"),
        ((program, timeline._replace(makespan=np.float64(0))), {}, "nothing takes any time"),
    ):  # fmt: skip
        with pytest.raises(KPUError, match=message):
            analyze(wrong, **given)
    with pytest.raises(InfeasibleError, match="fit"):
        analyze(infeasible)
    with pytest.raises(KPUError, match="no table"):
        analyze(reports[0]).to_pandas("nothing")
    assert len(analyze(reports[0]).to_pandas("energy")) > 1
