"""Sweeps against simulating every chip; cut anywhere; sound certificates; what happens when nothing fits."""

from __future__ import annotations

import functools
import sys

import jax
import numpy as np
import pyarrow.parquet
import pytest

import kpu_jax as kpu
from kpu_jax.explore import blocks, every_chip
from kpu_jax.explore import fold as module
from kpu_jax.explore.blocks import Blocks
from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.explore.screening import evaluate_range
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES, propose
from kpu_jax.model.costs import total_area_mm2

STRATEGIES = SWEEP_STRATEGIES[::6]
FIELDS = {
    "compute.tile_count": [1, 2, 4],
    "on_chip_memory.l2.bank_count": [4, 16],
    "clocks.fabric_mhz": [500, 1000],
    "external_memory.bandwidth_gbps": [5, 50, 100],
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_EVALUATIONS", 6 * 4 * len(STRATEGIES))  # six blocks of the space


@functools.cache
def space() -> kpu.Space:
    return kpu.Space(FIELDS)


@functools.cache
def net() -> kpu.Workload:
    ops = [("a", kpu.Gemm(96, 200, 150)), ("b", kpu.Conv(1, 14, 14, 16, 24, 3, padding=1)), ("c", kpu.Gemm(64, 64, 512, count=3))]
    return kpu.Workload.from_ops(ops)


def bounded(strategies: np.ndarray) -> dict[str, np.ndarray]:
    """[chip, op, strategy] seconds and energies, counts applied, by simulating each alone, without the sweep's kernels."""
    chips = space().chips(np.arange(len(space())))
    ops = jax.tree.map(lambda v: np.asarray(v, np.float64), net().ops)

    @jax.jit
    def every(chips, ops):
        def one(cfg, op, strategy):
            r = kpu.simulate(cfg, op, propose(cfg, op, strategy), timing="bound")
            return r.seconds, r.energy_pj

        over_strategies = jax.vmap(one, (None, None, 0))
        over_ops = jax.vmap(over_strategies, (None, 0, None))
        return jax.vmap(over_ops, (0, None, None))(chips, ops, strategies)

    with jax.enable_x64(True):
        seconds, energy = jax.tree.map(np.asarray, every(chips, ops))
    return {"seconds": seconds, "energy": energy}


def summary(start: int = 0, stop: int | None = None, **more):
    return evaluate_range(space(), net().ops, start, len(space()) if stop is None else stop, strategies=STRATEGIES, **more)


def test_floors_and_front_agree_with_simulating_every_chip():
    found = bounded(STRATEGIES)
    least_d, least_e = found["seconds"].min(2).sum(1), found["energy"].min(2).sum(1)
    want = {"latency": least_d, "energy": least_e, "edp": least_d * least_e * 1e-12}
    got = summary()
    assert got.chips == len(space()) and got.evaluations == len(space()) * 3 * len(STRATEGIES)
    for name in OBJECTIVES:
        floors = dict(zip(got.best[name][:, 1].astype(int).tolist(), got.best[name][:, 0].tolist(), strict=True))
        assert set(floors) == set(np.flatnonzero(np.isfinite(least_d)).tolist())
        for chip, floor in floors.items():
            assert 0.9999 * want[name][chip] <= floor <= want[name][chip]


@pytest.mark.parametrize("cuts", [[0, 1, 36], [0, 7, 8, 20, 36]])
def test_any_cut_gives_the_same_summary(cuts):
    whole = summary()
    parts = [summary(a, b) for a, b in zip(cuts, cuts[1:], strict=False)]
    total = functools.reduce(lambda a, b: b + a, parts)
    assert (total.chips, total.met, total.evaluations) == (whole.chips, whole.met, whole.evaluations)
    np.testing.assert_array_equal(total.front_ids, whole.front_ids)
    np.testing.assert_array_equal(total.front_points, whole.front_points)
    for name in OBJECTIVES:
        np.testing.assert_array_equal(total.best[name], whole.best[name])


@pytest.mark.parametrize("count", [2, 3])
def test_the_number_of_devices_does_not_change_a_bit(count):
    one, more = summary(), summary(devices=jax.local_devices()[:1] * count)
    for name, values in one.arrays().items():
        assert values.tobytes() == more.arrays()[name].tobytes(), name


def test_blocks_hold_every_chip_once_and_are_ranges():
    for shape in (Blocks(4, 5, 10, 5), Blocks(1, 3, 7, 8), Blocks(1, 1, 1, 1), Blocks(3, 2, 3, 2)):
        chips = shape.of_geometries * shape.of_speeds
        edges = [shape.first_chip(block) for block in range(len(shape) + 1)]
        assert edges[0] == 0 and edges[-1] == chips and edges == sorted(set(edges))
        for start, stop in ((0, chips), (chips // 2, chips), (chips // 3, chips // 3 + 1)):
            held: list[int] = []
            for block in shape.over(start, stop):
                first = shape.first(block)
                geometry, speed = first[0] + np.arange(shape.geometries), first[1] + np.arange(shape.speeds)
                ids = geometry[:, None] * shape.of_speeds + speed
                real = ids[(geometry < shape.of_geometries)[:, None] & (speed < shape.of_speeds)]
                assert real.tolist() == list(range(edges[block], edges[block + 1]))
                held += [i for i in real.tolist() if start <= i < stop]
            assert held == list(range(start, stop))


def test_conditions_pass_over_chips():
    some = kpu.Space(FIELDS, where=["l2.bank_count <= 4 * tile_count", "not fabric_mhz == 500"])
    values = some.values(np.arange(len(some)))
    allowed = (values["on_chip_memory.l2.bank_count"] <= 4 * values["compute.tile_count"]) & (values["clocks.fabric_mhz"] != 500)
    got, whole = evaluate_range(some, net().ops, 0, len(some), strategies=STRATEGIES), summary()
    assert got.chips == allowed.sum() and set(got.best["edp"][:, 1].astype(int)) <= set(np.flatnonzero(allowed))
    floors = dict(whole.best["edp"][:, ::-1].tolist())
    assert all(floors[chip] == floor for floor, chip in got.best["edp"])
    with pytest.raises(kpu.KPUError, match="no chip of the space meets"):
        kpu.sweep(kpu.Space(FIELDS, where=["tile_count > 2", "tile_count < 2"]), net())


@pytest.mark.parametrize("limits", [{}, {"power_w": 0.6}])
def test_a_certified_best_is_the_best_of_all_chips_by_exact_time(limits):
    whole = kpu.sweep(space(), net(), constraints=limits, retime_chips=len(space()))
    some = kpu.sweep(space(), net(), constraints=limits, retime_chips=10)
    assert all(whole.certified.values())
    for name in OBJECTIVES:
        best = whole.retimed.best(name)[1]
        assert some.floor[name] <= best * (1 + 1e-12) or some.certified[name]
        if some.certified[name]:
            assert some.retimed.best(name)[1] == pytest.approx(best, rel=1e-12)
    assert some.retimed.chips <= 10
    r = whole.retimed
    np.testing.assert_array_equal(r.meets, r.energy_pj * 1e-12 / r.seconds <= limits.get("power_w", np.inf))


def test_the_exact_results_are_those_of_simulate():
    result = kpu.sweep(space(), net(), retime_chips=4)
    for name in OBJECTIVES:
        point, value = result.retimed.best(name)
        report = kpu.simulate(space().chip(int(result.retimed.ids[point])), net(), result.retimed.mapping(point)).check()
        got = {"latency": report.seconds, "energy": report.energy_pj, "edp": report.edp}[name]
        assert got == pytest.approx(value, rel=1e-12)


def test_nobody_keeps_the_limits():
    with pytest.raises(kpu.KPUError, match=r"no chip of the space keeps the limits; the nearest is chip \d+: area_mm2 .*limit 0.001"):
        kpu.sweep(space(), net(), constraints={"area_mm2": 0.001})
    with pytest.raises(kpu.KPUError, match="can hold one tile"):
        kpu.sweep({"on_chip_memory.l1.buffer_capacity_kb": [2**-10]}, kpu.Gemm(8, 8, 8, dtype="fp32"))


def test_limits_that_no_exact_time_keeps(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(module, "floors", lambda totals, limits: {o: np.zeros(len(totals.seconds)) for o in OBJECTIVES})
        module.fold.clear_cache()  # compiled with the real floors
        with pytest.raises(kpu.KPUError, match="most promising chips keeps the limits by exact time; the nearest is chip.*seconds binds"):
            kpu.sweep(space(), net(), constraints={"seconds": 1e-9}, retime_chips=2)
    module.fold.clear_cache()


def test_the_table_and_the_grid_hold_every_chip(tmp_path, monkeypatch):
    file, limits = tmp_path / "all.parquet", {"power_w": 1.0}
    monkeypatch.setattr(every_chip, "ROWS_AT_ONCE", 7)
    arguments = {"objective": "latency", "constraints": limits}
    found = kpu.sweep(space(), net(), retime_chips=1, table=file, **arguments)
    read = pyarrow.parquet.ParquetFile(file)
    table = read.read()
    rows = {name: column.to_numpy() for name, column in zip(table.column_names, table.columns, strict=True)}
    assert read.num_row_groups > 3 and rows["chip"].tolist() == list(range(len(space())))
    assert table.schema.field("clocks.fabric_mhz").metadata[b"unit"] == b"MHz"
    chips = space().chips(rows["chip"])
    for path, values in space().values(rows["chip"]).items():
        np.testing.assert_array_equal(rows[path], values)
    np.testing.assert_allclose(rows["area_mm2"], total_area_mm2(chips), rtol=1e-5)
    np.testing.assert_allclose(rows["power_w"] * rows["seconds"], rows["energy_pj"] * 1e-12, rtol=1e-12)
    np.testing.assert_array_equal(rows["meets"], rows["power_w"] <= 1.0)
    assert 0 < rows["meets"].sum() < len(space())
    for floor, chip in found.summary.best["latency"]:  # a power limit raises some floors
        assert floor >= rows["seconds"][int(chip)] * (1 - 1e-4) and (floor <= rows["seconds"][int(chip)] or not rows["meets"][int(chip)])
    grid = kpu.sweep_dataset(space(), net(), **arguments)
    assert dict(grid.sizes) == {path: len(values) for path, values in FIELDS.items()} and grid.seconds.attrs["units"] == "s"
    for name in ("seconds", "energy_pj", "edp_js", "power_w", "area_mm2", "tdp_w", "meets"):
        np.testing.assert_array_equal(grid[name].values.ravel(), rows[name])
    one = dict(space().values([17]).items())
    assert float(grid.edp_js.sel({path: v[0] for path, v in one.items()})) == rows["edp_js"][17]
    some = kpu.sweep_dataset(kpu.Space(FIELDS, where=["l2.bank_count <= 4 * tile_count"]), net(), **arguments)
    allowed = (some["on_chip_memory.l2.bank_count"] <= 4 * some["compute.tile_count"]).broadcast_like(some.seconds)
    np.testing.assert_array_equal(some.seconds.where(allowed), grid.seconds.where(allowed))
    assert np.isnan(some.seconds.values[~allowed.values]).all() and not some.meets.values[~allowed.values].any()


def test_a_table_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "all.parquet"
    file.write_text("mine")
    full = OSError(28, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(pyarrow.parquet.ParquetWriter, "write_table", lambda *a: (_ for _ in ()).throw(full))
        with pytest.raises(kpu.KPUError, match="all.parquet: cannot be written: No space left on device; no table was written"):
            kpu.sweep(space(), net(), table=file)
    assert file.read_text() == "mine" and list(tmp_path.iterdir()) == [file]
    with pytest.raises(kpu.KPUError, match="no chip of the space keeps the limits"):
        kpu.sweep(space(), net(), constraints={"area_mm2": 0.001}, table=file)
    assert not pyarrow.parquet.read_table(file)["meets"].to_numpy().any()  # it shows why
    for wrong, word in ((tmp_path, "is a folder"), (tmp_path / "none" / "t.parquet", "cannot be written")):
        with pytest.raises(kpu.KPUError, match=word):
            kpu.sweep(space(), net(), table=wrong)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(kpu.KPUError, match=r"needs pyarrow: pip install 'kpu_jax\[dataframe\]'"):
        kpu.sweep(space(), net(), table=file)
    with pytest.raises(kpu.KPUError, match=r"needs xarray: pip install 'kpu_jax\[xarray\]'"):
        kpu.sweep_dataset(space(), net())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("x", kpu.Gemm(8, 8, 8)), "space"),
        ((FIELDS, "resnet50"), "workload"),
        ((FIELDS, kpu.Gemm(8, 8, 8), {"objective": "EPD"}), "objective"),
        ((FIELDS, kpu.Gemm(8, 8, 8), {"constraints": {"area": 1}}), "area_mm2"),
        ((FIELDS, kpu.Gemm(8, 8, 8), {"retime_chips": 0}), "retime_chips"),
    ],
)
def test_wrong_arguments_are_named(arguments, word):
    *positional, options = arguments if isinstance(arguments[-1], dict) and len(arguments) == 3 else (*arguments, {})
    with pytest.raises(kpu.KPUError, match=word):
        kpu.sweep(*positional, **options)
