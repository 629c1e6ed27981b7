"""The studies beside the literature and other tools, in small: their shapes, their checks, and what they report."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from experiments.validation import tables
from experiments.validation.eyeriss import __main__ as eyeriss
from experiments.validation.eyeriss.networks import NETWORKS
from experiments.validation.peers import __main__ as peers
from experiments.validation.vit_arrays import __main__ as vit_arrays


def table_of(tmp_path, network, layers, **cells):
    """A file with some rows of the measured table, cells changed."""
    lines = tables.read_table(tables.DATA / f"eyeriss_{network}.csv", eyeriss.COLUMNS)
    rows = [row | cells for _, row in lines if row["Layer"] in layers]
    path = tmp_path / f"{network}.csv"
    path.write_text("\n".join([",".join(lines[0][1]), *(",".join(row.values()) for row in rows)]) + "\n")
    return f"--{network}={path}"


@pytest.mark.parametrize(("network", "layer_by_layer"), [("alexnet", True), ("vgg16", False)])
def test_eyeriss_networks_have_the_published_multiply_adds(network, layer_by_layer):
    """Of VGG-16 the total only: what its file states for CONV3-1 and later is half of it, and does not add up."""
    table = tables.read_table(tables.DATA / f"eyeriss_{network}.csv", ["Layer", "Num. of MACs (G)"])
    published = {cells["Layer"]: float(cells["Num. of MACs (G)"]) for _, cells in table}
    ours = {layer: float(op.macs) * 1e-9 for layer, op in NETWORKS[network]().items()}
    assert sum(ours.values()) == pytest.approx(published["Total"], abs=0.0051)
    if layer_by_layer:
        assert ours == pytest.approx({layer: published[layer] for layer in ours}, abs=0.0051)


def test_eyeriss_of_one_layer(tmp_path, capsys):
    assert eyeriss.main([table_of(tmp_path, "alexnet", ["CONV3"]), table_of(tmp_path, "vgg16", [])]) == 0
    out = capsys.readouterr().out
    assert "rows 1 mismatches 0" in out
    measured, simulated, without_zeros, once = map(float, next(line for line in out.splitlines() if line.startswith("CONV3")).split()[1:5])
    assert once <= simulated < 2 * measured
    assert 0.9 * measured < without_zeros < 1.3 * measured


def test_a_cell_that_is_no_number_is_named(tmp_path, capsys):
    wrong = {"Total Latency (ms)": "fast"}
    assert eyeriss.main([table_of(tmp_path, "alexnet", ["CONV3"], **wrong), table_of(tmp_path, "vgg16", [])]) == 2
    assert "line 2, Total Latency (ms) = 'fast': not a number" in capsys.readouterr().err


def reports(milliseconds):
    """What `vit_arrays.run` gives, with these times."""
    energy = {part: 1.0 for parts in vit_arrays.TERMS.values() for part in parts}
    return lambda side, gbps: SimpleNamespace(
        seconds=milliseconds[side] * 1e-3, energy_pj=8.0, edp=milliseconds[side], energy=energy, busy={"fabric": 1.0}, cycles=2.0
    )


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [({32: 6.5, 64: 2, 128: 1}, []), ({32: 6.5, 64: 7, 128: 1}, ["is not the faster"]), ({32: 3, 64: 2, 128: 1}, ["3.00 times as fast"])],
)
def test_vit_arrays_check_the_published_speeds(milliseconds, expected, monkeypatch, capsys):
    monkeypatch.setattr(vit_arrays, "run", reports(milliseconds))
    assert vit_arrays.main([]) == bool(expected)
    out = capsys.readouterr().out
    assert f"rows 3 mismatches {len(expected)}" in out
    assert all(words in out for words in expected)


def test_vit_arrays_in_order_of_speed():
    """One of ViT-base's products at three array sizes, nearly as much faster as the whole network."""
    projection = vit_arrays.kpu.Gemm(197, 768, 768, dtype="int8")
    mapped = {"objective": "latency", "fixed": {"dataflow": "weight_stationary"}}
    seconds = []
    for side in vit_arrays.SIDES:
        cfg = vit_arrays.chip(side, 64.0)
        seconds.append(float(vit_arrays.kpu.simulate(cfg, projection, vit_arrays.kpu.best_mapping(cfg, projection, **mapped)).seconds))
    assert seconds[0] > seconds[1] > seconds[2]
    assert vit_arrays.FASTER / 2 < seconds[0] / seconds[2] < vit_arrays.FASTER * 1.5


def test_our_least_energy_without_peers(capsys):
    assert peers.main(["--only", "--gemm", "1000 classes, batch 1"]) == 0
    out = capsys.readouterr().out
    assert "rows 1 mismatches 0" in out
    energy = float(next(line for line in out.splitlines() if line.strip().startswith("kpu_jax")).split()[7])
    assert energy == pytest.approx(166.13, rel=0.002)  # what the README states


def best(pj, share=1.0):
    """A tool's answer for 128 x 768 x 768, moving this `share` of the operands."""
    once = {"A": 128 * 768 * share, "B": 768 * 768 * share, "C": 128 * 768 * share}
    return {"pj": pj, "stated_pj": pj, "traffic": {"dram": once, "l3": once}, "mapping": "a mapping"}


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (best(1e8), best(1e8), []),
        (best(1.01e8), best(1e8), []),
        (best(1.03e8), best(1e8), ["1.030 times the best peer's"]),
        (best(1.03e8), best(1e8, share=0.5), []),  # it left out a part: no peer to compare with
        (best(1e8, share=0.5), best(1e8), ["fewer external bytes"]),
    ],
)
def test_peers_compare_least_energies(ours, theirs, expected, monkeypatch, capsys):
    class Driver:
        def __init__(self, peer):
            self.peer = peer

        def ask(self, do, **job):
            return theirs

        def close(self):
            pass

    monkeypatch.setattr(peers, "Driver", Driver)
    monkeypatch.setattr(peers, "ours", lambda gemm: ours)
    assert peers.main(["--only", "zigzag", "--gemm", "BERT-base projection, 128 tokens"]) == bool(expected)
    out = capsys.readouterr().out
    assert f"rows 1 mismatches {len(expected)}" in out
    assert all(words in out for words in expected)
