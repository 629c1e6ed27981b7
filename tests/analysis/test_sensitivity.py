"""Slopes against finite differences of simulations, secants against simulations, in one run of each kind."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.analysis import sensitivity, what_if
from kpu_jax.analysis.slopes import CONTINUOUS, STEPPED
from kpu_jax.base.pytree import get_path
from kpu_jax.hardware.fields import FIELDS

CHIP = kpu.presets.edge_ai().replace({"memory_controller.bandwidth_gbps": 80})
GEMM = kpu.Gemm(m=96, n=160, k=200, activation="gelu", bias=True, data_on="host")
MAPPING = kpu.Mapping(l3_tile=(96, 64, 100), l2_tile=(32, 48, 50), l3_order="nmk")
STEP = 1e-5  # relative, of finite differences


@pytest.fixture(scope="module")
def found():
    return sensitivity(CHIP, GEMM, MAPPING)


def cost(chip, mapping=MAPPING):
    report = kpu.simulate(chip, GEMM, mapping)
    return np.array([report.seconds, report.energy_pj, report.edp])


def test_every_numeric_field_is_there(found):
    ours = {f.path for f in found.fields}
    rest = set(FIELDS) - ours
    assert {p for p in rest if not p.startswith("address_map.")} == {
        "compute.fold_overlap", "compute.drain_overlap", "technology.node_nm", "on_chip_memory.l1.buffer_count"
    }  # two flags, a label, and one that the chip derives
    assert {f.path for f in found.fields if f.how == "gradient"} == set(CONTINUOUS) & ours
    assert all(f.how.startswith("secant") for f in found.fields if f.path in STEPPED)
    assert np.isfinite([f[4:] for f in found.fields]).all()
    edp = [abs(f.edp) for f in found.fields]
    assert edp == sorted(edp, reverse=True)


def test_gradients_are_differences_of_simulations(found):
    here, used = cost(CHIP), 0
    for path in CONTINUOUS:
        field, value = found[path], float(get_path(CHIP, path))
        step = STEP * value
        right = (cost(CHIP.replace({path: value + step})) - here) / step
        left = (here - cost(CHIP.replace({path: value - step}))) / step
        slopes = np.array([field.d_seconds, field.d_energy_pj, field.d_edp])
        slack = 4 * STEP * np.maximum(abs(left), abs(right)) + 1e-11 * here / step
        assert np.all((slopes >= np.minimum(left, right) - slack) & (slopes <= np.maximum(left, right) + slack)), path
        assert [field.latency, field.energy, field.edp] == pytest.approx((slopes * value / here).tolist(), rel=1e-9), path
        used += bool(np.any(slopes))
    assert used > 30


def test_secants_are_simulations_of_the_changed_chip(found):
    here = cost(CHIP)
    for path, factor in (("compute.tile_count", 2), ("on_chip_memory.l2.bank_capacity_kb", 2), ("precision.macs_8", 2)):
        there = cost(CHIP.replace({path: factor * float(get_path(CHIP, path))}))
        elasticities = np.log(there / here) / math.log(factor)
        assert found[path].how == "secant x2"
        assert [found[path].latency, found[path].energy, found[path].edp] == pytest.approx(elasticities.tolist(), abs=1e-12)
    assert found["compute.processor_array.cols"].latency < 0 < found["on_chip_memory.l1.buffer_capacity_kb"].energy


def test_without_a_mapping_the_best_one_is_searched_on_every_chip():
    chip, op = kpu.presets.minimal(), kpu.Gemm(512, 512, 512)
    found = sensitivity(chip, op)
    field = found["on_chip_memory.l3.tile_capacity_kb"]
    larger = chip.replace({field.path: 2 * field.value})
    held = kpu.best_mapping(chip, op)
    here = kpu.simulate(chip, op, held)
    there = min(float(kpu.simulate(larger, op, mapping).edp) for mapping in (held, kpu.best_mapping(larger, op)))
    assert field.edp == pytest.approx(math.log2(there / here.edp), abs=1e-12)
    assert field.edp < sensitivity(chip, op, held)[field.path].edp  # a mapping that is held cannot use the room
    assert found.seconds == pytest.approx(float(here.seconds), rel=1e-12)


def test_a_network_is_the_sum_of_its_operations(found):
    other = kpu.Gemm(64, 64, 64, count=3)
    net = kpu.Workload.from_ops([("a", GEMM), ("b", other)])
    both, one = sensitivity(CHIP, net, MAPPING), sensitivity(CHIP, other, MAPPING)
    report = kpu.simulate(CHIP, net, MAPPING)
    assert (both.seconds, both.energy_pj) == pytest.approx((float(report.seconds), float(report.energy_pj)), rel=1e-12)
    for path in ("clocks.streamer_mhz", "external_memory.bandwidth_gbps", "vector.cycles_gelu", "compute.tile_count"):
        assert both[path].d_seconds == pytest.approx(found[path].d_seconds + one[path].d_seconds, rel=1e-9), path


def test_what_if_promises_no_more_than_comes(found):
    rows = {row["class"]: row for row in what_if(CHIP, GEMM, MAPPING)}
    report = kpu.simulate(CHIP, GEMM, MAPPING)
    assert sum(row["cycles"] for row in rows.values()) == pytest.approx(float(report.cycles), rel=1e-12)
    parts = kpu.critical_path(CHIP, GEMM, MAPPING)
    assert {name: row["cycles"] for name, row in rows.items()} == pytest.approx(parts, abs=1e-6)
    faster = CHIP.replace({"clocks.streamer_mhz": 2 * CHIP.clocks.streamer_mhz, "latency.streamer_ns": CHIP.latency.streamer_ns / 2})
    assert rows["streamer"]["simulated time %"] == pytest.approx(100 * (cost(faster)[0] / cost(CHIP)[0] - 1))
    for row in rows.values():  # time is convex in the scale of a class
        if row["simulated time %"] is not None:
            assert row["predicted time %"] - 1e-9 <= row["simulated time %"] <= 1e-9, row
    assert sum(row["simulated time %"] is not None for row in rows.values()) >= 4


def test_it_prints_and_bad_input_is_named(found):
    lines = str(found).splitlines()
    assert "clocks.fabric_mhz" in str(found) and "MHz" in str(found) and "secant x2" in str(found) and len(lines) < 30
    assert found.rows()[0]["path"] == found.fields[0].path and "<table>" in found._repr_html_()
    with pytest.raises(kpu.KPUError, match="clocks.fabric_mhz"):
        found["clocks.fabric"]
    with pytest.raises(kpu.InfeasibleError, match="does not fit"):
        sensitivity(CHIP, GEMM, kpu.Mapping(l3_tile=(96, 64, 100), l2_tile=(32, 48, 50), partition=(1, 4, 1, 1)))
    stacked = jax.tree.map(lambda v: np.stack([v, v]), MAPPING)
    wrong = ((3, GEMM), "KPUConfig"), ((CHIP, 3), "workload"), ((CHIP, GEMM, 3), "Mapping"), ((CHIP, GEMM, stacked), "1 rows")
    for arguments, word in wrong:
        with pytest.raises(kpu.KPUError, match=word):
            sensitivity(*arguments)
    with pytest.raises(kpu.KPUError, match="objective"):
        sensitivity(CHIP, GEMM, MAPPING, objective="area")
