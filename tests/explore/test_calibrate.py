"""Calibration finds the chip that the times came from, and says what they do not determine."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.base.errors import KPUError
from kpu_jax.explore.calibrate import _parts
from kpu_jax.explore.mapping_search import search
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES

SIZES = [(m, n, k) for m in (32, 96, 256) for n in (48, 256) for k in (64, 512)]
NET = kpu.Workload.from_ops([(f"{m}x{n}x{k}", kpu.Gemm(m, n, k)) for m, n, k in SIZES])


def measured(chip: kpu.KPUConfig, overhead_s: float) -> kpu.Measurements:
    """Exact times on `chip` under the fastest mappings of the sweep's set, as the search of mappings finds them."""
    chips = jax.tree.map(lambda v: np.asarray(v, np.float64)[None], chip)
    found = search(chips, NET.ops, SWEEP_STRATEGIES, ("latency",))
    return kpu.Measurements(NET, found.seconds[0].min(axis=-1) + overhead_s)


def test_the_chip_that_was_measured_is_found_again():
    start = kpu.presets.edge_ai()
    truth = start.replace({"external_memory.bandwidth_gbps": 40, "clocks.fabric_mhz": 400})
    fields = ["external_memory.bandwidth_gbps", "clocks.fabric_mhz"]
    found = kpu.calibrate(start, measured(truth, 2e-6), fields, steps=80, rounds=4, starts=1, folds=0)
    assert np.median(found.errors()) < 0.03
    for field, value in zip(fields, (40, 400), strict=True):
        interval = found.intervals[field]
        assert interval.value == pytest.approx(value, rel=0.1)
        assert interval.low < interval.value < interval.high
    assert found.overhead_s == pytest.approx(2e-6, rel=0.2)
    assert "external_memory.bandwidth_gbps" in str(found)
    np.testing.assert_allclose(found.predict(NET), found.predicted_s, rtol=1e-9)
    with pytest.raises(KPUError, match="folds"):
        found.errors(held_out=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["clocks.fabric_mzh"], "clocks.fabric_mhz"),
        (["compute.tile_count"], "cannot be fitted"),
        (["clocks.dma_mhz", "clocks.dma_mhz"], "twice"),
    ],
)
def test_fields_that_cannot_be_fitted_are_named(fields, message):
    times = kpu.Measurements(NET, np.ones(len(SIZES)))
    with pytest.raises(KPUError, match=message):
        kpu.calibrate(kpu.presets.edge_ai(), times, fields)


def test_rules_say_which_mappings_the_machine_considers():
    net = kpu.Workload.from_ops([kpu.Gemm(64, 48, 48), kpu.Gemm(32, 48, 64), kpu.Gemm(48, 32, 64), kpu.VectorOp(64)])
    rules = kpu.MappingRules(largest_stays=True, whole_blocks=True)
    flows = [set(rules.strategies()[admitted, 0]) for admitted in rules.admitted(net)]
    assert flows == [{0}, {1}, {2}, {0, 1, 2}]  # C, B, A, and whatever a vector operation takes
    assert set(rules.strategies()[:, 3]) == {1}
    without_c = kpu.MappingRules(("weight_stationary", "input_stationary"), largest_stays=True)
    assert set(without_c.strategies()[without_c.admitted(net)[0], 0]) == {2}  # A is larger than B
    assert kpu.MappingRules("input_stationary").admitted(net).all()
    with pytest.raises(KPUError, match="weight_stationary"):
        kpu.MappingRules(("weight_stationery",))
    with pytest.raises(KPUError, match="at least one"):
        kpu.MappingRules(())


def test_rows_of_a_group_are_left_out_together():
    part = _parts(list("abcabcdd"), 8, 3, np.random.default_rng(0))
    assert len(set(part)) == 3
    assert part[0] == part[3] and part[1] == part[4] and part[6] == part[7]
    times = kpu.Measurements(NET, np.ones(len(SIZES)))
    for groups, message in (([1, 2], "one label per measured row"), ([1] * len(SIZES), "too few for 2 folds")):
        with pytest.raises(KPUError, match=message):
            kpu.calibrate(kpu.presets.edge_ai(), times, ["clocks.fabric_mhz"], folds=2, groups=groups)


@pytest.mark.parametrize("seconds", [np.ones(3), -np.ones(len(SIZES)), np.full(len(SIZES), np.nan)])
def test_times_that_cannot_be_are_named(seconds):
    with pytest.raises(KPUError, match="seconds"):
        kpu.Measurements(NET, seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [("m,n,k\n1,2,3\n", "mean_us"), ("m,n,k,mean_us\n", "no rows"), ("m,n,k,mean_us\n1,2,x,4\n", "line 2: k"),
     ("m,n,k,mean_us\n1,2,3,0\n", "line 2"), ("m,n,k,mean_us\n1,2,-3,4\n", "line 2")],
)  # fmt: skip
def test_files_of_measurements_are_checked(tmp_path, text, message):
    path = tmp_path / "times.csv"
    path.write_text(text)
    with pytest.raises(KPUError, match=message):
        kpu.load_measurements(path)


def test_files_of_measurements_are_read(tmp_path):
    path = tmp_path / "times.csv"
    path.write_text("m,n,k,mean_us\n8,16,32,1.5\n")
    times = kpu.load_measurements(path, dtype="bf16")
    assert times.seconds.tolist() == [1.5e-6] and times.workload.macs.tolist() == [8 * 16 * 32]
