"""What was achieved never beats the bounds, and never lies above a roof."""

import sys
from pathlib import Path

import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.analysis import bounds, roofline

sys.path.append(str(Path(__file__).parents[1] / "laws"))
CHIP = kpu.presets.edge_ai()
SMALL = kpu.Mapping(l3_tile=(64, 64, 64), l2_tile=(16, 16, 32))
NETWORK = kpu.Workload.from_ops([
    ("square", kpu.Gemm(256, 256, 256, dtype="int8")),
    ("thin", kpu.Gemm(8, 512, 512, batch=2)),
    ("hosted", kpu.Gemm(64, 64, 128, data_on="host")),
])  # fmt: skip
REPORT = kpu.simulate(CHIP, NETWORK, SMALL)


def test_nothing_beats_the_bounds():
    found = bounds(CHIP, NETWORK, REPORT)
    assert found.names == tuple(NETWORK.row_names)
    assert np.all(found.traffic_ratio >= 1 - 1e-12)
    assert np.all(found.time_ratio >= 1 - 1e-12)
    assert np.all(found.cycles >= found.schedule_cycles * (1 - 1e-12))
    assert found.compulsory_bytes[0] == 3 * 256 * 256
    assert found.io_bytes[2] == 0  # the law speaks of operands in external memory


def test_the_io_bound_is_the_law_s():
    from test_io_bound import least_bytes

    chip = kpu.presets.minimal().replace({
        "memory_controller.page_buffer_count": 1,
        "memory_controller.page_buffer_capacity_kb": 0.25,
        "on_chip_memory.l3": {"tile_count": 1, "tile_capacity_kb": 8},
        "on_chip_memory.l2": {"bank_count": 1, "bank_capacity_kb": 4},
        "on_chip_memory.l1.buffer_capacity_kb": 0.0625,
        "compute.processor_array": {"rows": 4, "cols": 4},
    })  # fmt: skip
    gemm = kpu.Gemm(2048, 2048, 2048, dtype="int8", count=3)
    mapping = kpu.Mapping(l3_tile=(16, 16, 16), l2_tile=(16, 16, 16), buffering=("single", "single", "single"))
    found = bounds(chip, gemm, kpu.simulate(chip, gemm, mapping, timing="bound").check())
    partial, whole = least_bytes(chip, gemm)
    assert partial > whole  # here the law binds
    assert found.io_bytes[0] == pytest.approx(3 * float(partial))
    assert found.compulsory_bytes[0] == 3 * whole
    assert found.traffic_ratio[0] == pytest.approx(found.external_bytes[0] / found.io_bytes[0])
    assert found.traffic_ratio[0] >= 1


def test_points_lie_under_their_roofs_and_intensity_is_operations_per_byte():
    found = roofline(CHIP, NETWORK, REPORT)
    assert np.all(found.performance <= found.roof * (1 + 1e-12))
    assert set(found.limit) <= {*found.levels, "compute"}
    moved = sum(REPORT.per_op.traffic["dram"].values()) + REPORT.per_op.overfetch
    np.testing.assert_allclose(found.intensity[1, :2], (2 * REPORT.per_op.macs / moved)[:2], rtol=1e-12)
    assert np.all(np.isinf(found.intensity[0, :2])) and np.isfinite(found.intensity[0, 2])


def test_bad_input_is_named():
    with pytest.raises(kpu.KPUError, match="another workload"):
        bounds(CHIP, kpu.Gemm(3, 3, 3), REPORT)
    with pytest.raises(kpu.KPUError, match="which has 3 rows"):
        roofline(CHIP, NETWORK, kpu.simulate(CHIP, kpu.Gemm(3, 3, 3), SMALL, timing="bound"))
    huge = kpu.Gemm(4096, 4096, 4096)
    misfit = kpu.simulate(CHIP, huge, kpu.Mapping(l3_tile=(4096, 4096, 4096), l2_tile=(64, 64, 64)), timing="bound")
    with pytest.raises(kpu.InfeasibleError, match="does not fit"):
        bounds(CHIP, huge, misfit)
    with pytest.raises(kpu.KPUError, match="needs a report"):
        roofline(CHIP, huge, {"cycles": 1})
