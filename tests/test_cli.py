"""The command line: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import csv

import pytest

import kpu_jax as kpu
from kpu_jax.cli import main

STUDY = """
base = "edge_ai"
workload = [{network = "mlp", batch = 4}]
[constraints]
area_mm2 = 60
[[axis]]
fields = ["compute.tile_count"]
values = [1, 2]
[[axis]]
fields = ["clocks.fabric_mhz"]
values = [500, 1000]
"""


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def test_run_prints_the_answer_and_writes_files(capsys, tmp_path):
    table, plot = tmp_path / "layers.csv", tmp_path / "plot.svg"
    assert main(["run", "edge_ai", "--matmul", "128x768x768", "--csv", str(table), "--plot", str(plot), "--layers"]) == 0
    out = capsys.readouterr().out
    for word in ("cycles", "energy", "utilization", "dram", "mm^2", "TDP", "int8", "partition"):
        assert word in out
    (row,) = csv.DictReader(table.open())
    assert (row["m"], row["n"], row["k"]) == ("128", "768", "768") and "<svg" in plot.read_text()


def test_run_a_network_with_options(capsys):
    assert main(["run", "minimal", "--network", "mlp", "--option", "sizes=30,20,10", "--set", "compute.tile_count=2"]) == 0
    assert "MACs" in capsys.readouterr().out


def test_sweep_writes_everything(capsys, study, tmp_path):
    output = tmp_path / "results"
    assert main(["sweep", str(study), "--output", str(output), "--exact", "4"]) == 0
    out = capsys.readouterr().out
    for word in ("4 chips screened", "Pareto", "best latency", "best energy", "best edp", "certified", "tile_count", "fabric_mhz"):
        assert word in out
    tables, words = ["best_chip.yaml", "layers.csv", "table.csv"], ["answer.txt", "study.toml"]
    assert sorted(p.name for p in output.iterdir()) == sorted([*tables, *words, "pareto.png", "performance.png"])
    assert (output / "answer.txt").read_text().startswith(f"kpu-jax sweep {study}") and "certified" in (output / "answer.txt").read_text()
    assert (output / "study.toml").read_text() == study.read_text()
    rows = list(csv.DictReader((output / "table.csv").open()))
    best = min((r for r in rows if r["meets"] == "True"), key=lambda r: float(r["edp_js"]))
    chip = kpu.load_config(output / "best_chip.yaml")
    assert float(chip.clocks.fabric_mhz) == float(best["fabric_mhz"]) and rows[0] == best
    assert main(["report", str(output), "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "fabric_mhz" in page and "best edp" in page and "[[axis]]" in page


@pytest.mark.long  # compiles for 20 s
def test_codesign_finds_the_chip_of_the_sweep(capsys, study, tmp_path):
    output = tmp_path / "results"
    assert main(["codesign", str(study), "--output", str(output), "--starts", "1", "--steps", "2"]) == 0
    out = capsys.readouterr().out
    for word in ("of 4: edp", "no neighbour is better", "gap", "compute.tile_count"):
        assert word in out
    assert [p.name for p in output.iterdir()] == ["best_chip.yaml"]
    assert float(kpu.load_config(output / "best_chip.yaml").clocks.fabric_mhz) in (500, 1000)


def test_a_failing_sweep_leaves_nothing(capsys, study, tmp_path):
    output = tmp_path / "new"
    assert main(["sweep", str(study), "--output", str(output), "--limit", "area_mm2=0.01"]) == 2
    assert "nearest is chip" in capsys.readouterr().err and not output.exists()
    (tmp_path / "old" / "layers.csv").mkdir(parents=True)
    assert main(["sweep", str(study), "--output", str(tmp_path / "old"), "--exact", "1"]) == 2
    assert [p.name for p in (tmp_path / "old").iterdir()] == ["layers.csv"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("run edge_aj --matmul 8x8x8", "edge_ai"), ("run my.txt --matmul 8x8x8", ".yaml"), ("run edge_ai --matmul 8x8", "--matmul"),
        ("run edge_ai --matmul 0x8x8", "m must be"), ("run edge_ai --network resnet5", "resnet50"),
        ("run edge_ai --network mlp --option name=x", "name"), ("run edge_ai --network mlp --option batch", "NAME=VALUE"),
        ("run edge_ai --network mlp --dtype int8 --option dtype=int4", "dtype"),
        ("run edge_ai --matmul 8x8x8 --option batch=2", "--option"),
        ("run edge_ai --matmul 8x8x8 --set clocks.fabric_mhz=-1", "clocks.fabric_mhz"),
        ("run edge_ai --matmul 8x8x8 --csv nowhere/x.csv", "--csv"), ("run edge_ai --matmul 8x8x8 --plot x.doc", "--plot"),
        ("run edge_ai --matmul 1" + "0" * 400 + "x1x1", "m must be"),
        ("sweep nothing.toml", "nothing.toml"), ("sweep {study} --limit area_mm2=20mm", "area_mm2"),
        ("sweep {study} --limit area=20", "area_mm2"),
        ("codesign {study} --steps 0", "--steps"), ("codesign nothing.toml", "nothing.toml"),
        ("sweep {study} --exact 0", "--exact"), ("sweep {study} --output {study}", "cannot be written"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(line, word, capsys, study):
    words = [part.format(study=study) for part in line.split()]
    assert main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("kpu-jax: error: ") and word in error


@pytest.mark.parametrize("line", ["--help", "run --help", "sweep --help", "--version"])
def test_help_teaches(line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    out = capsys.readouterr().out
    assert stop.value.code == 0 and ("kpu-jax" in out)
    if "sweep" in line:
        assert "[[axis]]" in out and "certified" in out


def test_nothing_but_a_command_is_an_error():
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
