"""Arbitrary command lines: exit status 0 or 2 and one line of error, up to the point where the work would begin."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from damage import fuzz
from hypothesis import given
from hypothesis import strategies as st

import kpu_jax as kpu
from kpu_jax.cli import main

STUDY = """
base = "minimal"
workload = [{network = "mlp", batch = 4}]
[constraints]
area_mm2 = 60
[[axis]]
fields = ["compute.tile_count"]
values = [1, 2]
"""
LINES = [
    "run edge_ai --matmul 128x768x768 --layers",
    "run minimal --network mlp --option batch=8 --option sizes=30,20,10 --set compute.tile_count=2 --objective latency --csv out.csv",
    "run chip.yaml --network dlrm --dtype int4 --set clocks.fabric_mhz=900 --plot out.png",
    "sweep study.toml --objective energy --limit area_mm2=40 --output results --exact 4 --store parts",
    "sweep study.toml --coordinator 127.0.0.1:1 --processes 1 --process 0",
    "codesign study.toml --starts 2 --steps 3 --seed 1 --output results",
    "report chip.yaml --matmul 8x8x8 --output page.html",
    "report results --output page.html",
    "--version",
    "run --help",
]
VALUES = (
    ["", "-", "--", "=", "x", "0", "-1", "1.5", "nan", "inf", "1e400", "9" * 400, "9" * 5000, "8x8", "8x8x8x8", "0x0x0", "1e3x1x1", "²x1x1"]
    + ["batch=", "=8", "batch=nan", "batch=true", "batch=-1", "sizes=8", "sizes=1,x", "sizes=,", "dtype=int7", "sequence=9999999999"]
    + [
        "compute.tile_count=0",
        "compute=1",
        "technology.dram=HBM3",
        "clocks.fabric_mhz=1,2",
        "a..b=1",
        "area_mm2=",
        "tdp_w=-1",
        "power_w=1e-300",
    ]
    + [
        "edge_aj",
        "resnet5",
        "mlp",
        "transformer",
        "int8",
        "fp4",
        "edp",
        "none",
        "chip.yaml",
        "broken.yaml",
        "study.toml",
        "broken.toml",
        ".",
        "/",
        "..",
        "~",
    ]
    + [
        "nowhere/x.csv",
        "out.doc",
        "results",
        "\ud800",
        "a\nb",
        "\t",
        "é" * 300,
        "/dev/full",
        "/proc/self/mem",
        "a" * 5000,
        "@study.toml",
        "%s",
    ]
)
OPTIONS = ["--matmul", "--network", "--option", "--dtype", "--set", "--objective", "--layers", "--csv", "--plot", "--output", "--limit"]
OPTIONS += [
    "--exact",
    "--store",
    "--coordinator",
    "--processes",
    "--process",
    "--starts",
    "--steps",
    "--seed",
    "--help",
    "-h",
    "--no",
    "--",
]
OPTIONS += ["--output=x.html", "--ma", "--set=a=b", "run", "sweep", "codesign", "report"]
COUNTS = [150, pytest.param(8_000, marks=pytest.mark.long)]


class Reached(Exception):
    """Everything that can be checked beforehand was right."""


def work(*_: object, **__: object) -> None:
    raise Reached


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """One of the lines with words replaced, dropped, doubled, added, or cut into characters."""
    words = draw(st.sampled_from(LINES)).split()
    for _ in range(draw(st.integers(1, 4))):
        kind, at = (
            draw(st.sampled_from(("replace", "replace", "drop", "double", "add", "splice"))),
            draw(st.integers(0, 20)) % (len(words) + 1),
        )
        new = draw(st.sampled_from(VALUES) | st.sampled_from(OPTIONS) | st.text(st.characters(exclude_characters="\0"), max_size=8))
        if kind == "add" or at == len(words):
            words.insert(at, new)
        elif kind == "drop":
            del words[at]
        elif kind == "double":
            words.insert(at, words[at])
        elif kind == "splice":
            cut = draw(st.integers(0, 40)) % (len(words[at]) + 1)
            words[at] = words[at][:cut] + new + words[at][cut + 1 :]
        else:
            words[at] = new
    return words


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with files that lines name; nothing expensive begins."""
    monkeypatch.chdir(tmp_path)
    kpu.save_config(kpu.presets.minimal(), "chip.yaml")
    for name, text in {"study.toml": STUDY, "broken.toml": STUDY[:60], "broken.yaml": "compute: 1"}.items():
        Path(name).write_text(text)
    for module, name in (
        ("run", "best_mapping"),
        ("report", "best_mapping"),
        ("sweep", "sweep"),
        ("codesign", "codesign"),
        ("sweep", "join"),
    ):
        monkeypatch.setattr(f"kpu_jax.cli.{module}.{name}", work)
    return tmp_path


@pytest.mark.parametrize("count", COUNTS)
def test_command_lines(count, folder, capsys, tally):
    attempts = tally()
    before = sorted(os.listdir(folder))

    @fuzz(count)
    @given(lines())
    def attempt(words):
        try:
            status = main(words)
        except SystemExit as stop:  # argparse's own
            status = stop.code
        except Reached:
            status = 0
        error = capsys.readouterr().err
        attempts.counts["refused" if status else "accepted"] += 1
        assert status in (0, 2)
        if status and not error.startswith("usage:"):
            told = error.rstrip("\n").split("\r")[-1].splitlines()
            assert told[-1].startswith("kpu-jax: error: ") and len(told[-1]) < 20_000, error
        assert sorted(set(os.listdir(folder)) - {"results"}) == before, words

    attempt()
    assert attempts.counts["refused"] and attempts.counts["accepted"]
