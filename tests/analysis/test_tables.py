"""Tables of reports: sums, shares, both figures of a convolution's input, and text."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.analysis import layer_table, short_names, text_table, write_csv

CHIP = kpu.presets.edge_ai()
NET = kpu.Workload.from_ops([("conv", kpu.Conv(1, 14, 14, 8, 8, 3, padding=1, count=2)), ("fc", kpu.Gemm(1, 10, 64))])
MAPPINGS = kpu.best_mapping(CHIP, NET)
REPORT = kpu.simulate(CHIP, NET, MAPPINGS)


def test_rows_add_up_to_the_report():
    rows = layer_table(NET, REPORT, MAPPINGS)
    assert [row["layer"] for row in rows] == ["conv[0]", "fc"] and [row["count"] for row in rows] == [2, 1]
    assert sum(row["cycles"] for row in rows) == pytest.approx(REPORT.cycles, rel=1e-12)
    assert sum(row["energy_mj"] for row in rows) == pytest.approx(REPORT.energy_pj * 1e-9, rel=1e-12)
    assert rows[1]["dataflow"] in kpu.mapping.DATAFLOWS and len(rows[1]["l3_tile"]) == 3


def test_both_figures_of_a_convolutions_input():
    row = layer_table(NET, REPORT)[0]
    assert row["input_bytes"] == 14 * 14 * 8 and row["im2col_bytes"] == 14 * 14 * 9 * 8


def test_a_report_of_something_else_is_refused():
    with pytest.raises(kpu.KPUError, match="2 rows"):
        layer_table(NET, kpu.simulate(CHIP, NET.row(1), kpu.best_mapping(CHIP, NET.row(1))))


def test_text_and_csv(tmp_path):
    rows = [{"name": "a", "x": 1.0, "ok": True, "n": 3}, {"name": "bb", "x": 123456.789, "ok": False, "n": 10}]
    lines = text_table(rows).splitlines()
    assert lines[0].split() == ["name", "x", "ok", "n"] and lines[2].split() == ["bb", "123,457", "no", "10"]
    assert len({len(line) for line in lines}) == 1 and text_table([]) == "(no rows)"
    write_csv(rows, tmp_path / "t.csv")
    assert float(list(csv.DictReader((tmp_path / "t.csv").open()))[1]["x"]) == 123456.789
    with pytest.raises(kpu.KPUError, match="cannot be written"):
        write_csv(rows, tmp_path)


def test_short_names_are_unique():
    paths = ["compute.tile_count", "on_chip_memory.l3.tile_count", "clocks.fabric_mhz"]
    assert short_names(paths) == dict(zip(paths, ["compute.tile_count", "l3.tile_count", "fabric_mhz"], strict=True))
    assert np.all([len(short_names([p])[p].split(".")) == 1 for p in paths])
