"""Whole networks: nothing dropped, the laws of the chip, host work, critical paths, and what is refused."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks_small import CHIP, SMALL, random_network, tower

import kpu_jax as kpu
from experiments.network_on_chip.__main__ import rows
from kpu_jax.cli.main import main
from kpu_jax.graph.paths import longest_path
from kpu_jax.graph.pieces import L3, Single, pieces_of
from kpu_jax.graph.plan import plan_network
from kpu_jax.hardware.derived import l3_capacity_bytes

NONE = {"fusion": "none", "attention": "none", "residency": "none"}


def laws(chip, net, report):
    """The laws of the chip, of a network's totals and of what was asked for."""
    plan = report.plan
    assert sorted(i for piece in plan.pieces for i in piece.parts) == list(range(len(net))), "every operation is done once"
    assert report.macs == net.macs.sum() == plan.workload.macs.sum()
    vector = sum(float(op.m * op.count) for _, op in net if op.kind == 2)
    products = {p.parts[0] for p in plan.pieces if p.op is not None and len(p.parts) == 2}  # with the vector operation behind
    joined = sum(float(op.m * op.n * op.batch) for i, (_, op) in enumerate(net) if i in products)
    assert sum(float(op.m * op.count) for _, op in plan.workload if op.kind == 2) == vector - joined
    for name in ("cycles", "seconds", "energy_pj", "macs"):
        np.testing.assert_allclose(np.sum(getattr(report.per_op, name)), getattr(report, name), rtol=1e-12)
    np.testing.assert_allclose(sum(report.energy.values()), report.energy_pj, rtol=1e-12)
    array = chip.compute.processor_array
    assert report.cycles * float(chip.compute.tile_count * array.rows * array.cols * chip.precision.macs_8) >= report.macs
    assert np.all(report.per_op.cycles >= report.per_op.cycles_bound * (1 - 1e-12))
    dram = sum(sum(report.per_op.traffic["dram"].values(), np.zeros(1)))
    inputs = {i for i, before in enumerate(np.asarray(net.predecessors)) if before.max() < 0}
    least = sum(float(op.n * op.k) for i, (_, op) in enumerate(net) if op.kind == 0 and i in inputs)
    assert dram >= float(report.compulsory) >= least, "weights come in, whatever stays"
    position = {piece.name: i for i, piece in enumerate(plan.pieces)}
    for i, (start, stop) in enumerate(plan.steps):
        there = sum(k.bytes for k in plan.kept if position[k.name] < i <= position[k.until])
        for op in (plan.workload.row(plan.workload.row_of[n]) for n in range(start, stop)):
            own = sum(Single(op).held_bytes(x) for x in "ABC" if getattr(op, f"loc_{x.lower()}") == L3)
            assert there <= own + op.reserved_l3_bytes < float(l3_capacity_bytes(chip)), "what stays has its space"
    spread = [t.external_bytes for t in report.savings.values()]
    assert spread[-1] == pytest.approx(sum(report.traffic["dram"].values())) and report.status == "ok"


@pytest.mark.parametrize("count", [3, pytest.param(60, marks=pytest.mark.long)])
def test_random_networks_obey_the_laws(count):
    rng = np.random.default_rng(11)
    kept = 0
    for case in range(count):
        net = random_network(rng, int(rng.integers(4, 9)))
        chip, objective = ((CHIP, SMALL)[case % 2], ("edp", "latency", "energy")[case % 3])
        report = plan_network(chip, net, objective=objective)
        laws(chip, net, report)
        alone = report.savings["none"]
        measure = {"edp": lambda t: t.seconds * t.energy_pj, "latency": lambda t: t.seconds, "energy": lambda t: t.energy_pj}[objective]
        values = [measure(t) for t in report.savings.values()]
        assert values[-1] <= measure(alone) * (1 + 1e-9), "no policy makes it worse"
        kept += len(report.plan.kept)
    assert kept


def test_without_policies_it_is_simulate():
    net = random_network(np.random.default_rng(2), 6)
    assert net.rows <= 4
    plain = kpu.simulate(CHIP, net)
    report = plan_network(CHIP, net, **NONE)
    assert list(report.savings) == ["none"] and report.plan.workload.names == net.names
    for name in ("cycles", "energy_pj", "reads", "writes", "busy"):
        jax.tree.map(np.testing.assert_array_equal, getattr(report, name), getattr(plain, name))
    assert float(plan_network(CHIP, net, **NONE, timing="bound").cycles) == float(plain.cycles_bound)


def sorted_network(x, w):
    """A product, a sort that the chip cannot do, and another product of what it gives."""
    return jnp.sort(x @ w, axis=-1) @ w


def test_host_work_is_listed_charged_and_never_dropped():
    chip = CHIP.replace({"host_memory.bandwidth_gbps": 1.0})
    net = kpu.trace(sorted_network, dtype="int8")(jnp.zeros((32, 64)), jnp.zeros((64, 64)))
    report = plan_network(chip, net)
    (sort,) = report.plan.transfers
    assert (sort.bytes_to_host, sort.bytes_from_host) == (32 * 64, 32 * 64) and "sort" in sort.function
    waits = 2 * (float(chip.latency.host_ns) * 1e-9 + 32 * 64 / 1e9)
    assert sort.seconds == pytest.approx(waits, rel=1e-12)
    assert report.seconds == pytest.approx(np.sum(report.per_op.seconds) + waits, rel=1e-12)
    assert sum(report.energy.values()) == pytest.approx(float(report.energy_pj), rel=1e-12)
    host, dram = report.traffic["host"], report.traffic["dram"]
    assert sum(host.values()) == 2 * 32 * 64 and sum(dram.values()) == 2 * 64 * 64 + 6 * 32 * 64  # w twice; x, C, there, back, A, C
    assert not report.plan.kept, "what the host reads and writes is in external memory"
    totals = {"latency_ms": report.seconds * 1e3, "energy_mj": report.energy_pj * 1e-9, "external_bytes": sum(dram.values())}
    for column, total in totals.items():
        assert sum(row[column] for row in report.table()) == pytest.approx(float(total), rel=1e-12)
    assert report.table()[-1]["does"].startswith("on the host") and "on the host" in repr(report)
    path = report.critical_path
    assert len(path.names) == 3 and sum(path.engines.values()) == pytest.approx(float(report.cycles), rel=1e-12)
    assert path.path_cycles == pytest.approx(path.cycles, rel=1e-12) and path.engines["host"] >= sort.seconds * 750e6 * (1 - 1e-12)


def test_the_longest_path_against_every_path():
    rng = np.random.default_rng(4)
    for _ in range(50):
        count = int(rng.integers(1, 8))
        cycles = rng.integers(1, 9, count).astype(float)
        before = {i: [int(p) for p in range(i) if rng.random() < 0.4] for i in range(count)}

        def longest(node, cycles=cycles, before=before):
            return cycles[node] + max((longest(p) for p in before[node]), default=0.0)

        path = longest_path(cycles, before)
        assert all(a in before[b] for a, b in zip(path, path[1:], strict=False)) and not before[path[0]]
        assert sum(cycles[i] for i in path) == max(longest(i) for i in range(count))


def test_two_branches_are_shorter_than_their_sum():
    net = kpu.Workload.from_ops(
        [("in", kpu.Gemm(32, 32, 32), ()), ("left", kpu.Gemm(32, 32, 32), ("in",)), ("right", kpu.Gemm(32, 256, 32), ("in",)),
         ("join", kpu.Gemm(32, 32, 32), ("left",))]
    )  # fmt: skip
    path = plan_network(CHIP, net, **NONE).critical_path
    assert path.path_cycles < path.cycles and sum(path.path_engines.values()) == pytest.approx(path.path_cycles, rel=1e-12)
    assert path.names in (("in", "right"), ("in", "left", "join")) and "longest path" in repr(path)


def test_the_facade_and_the_command_line(capsys, tmp_path):
    with kpu.Simulator(config=CHIP) as sim:
        report = sim.run(kpu.trace(lambda x, w: jax.nn.relu(x @ w) @ w, dtype="int8")(jnp.zeros((16, 32)), jnp.zeros((32, 32))))
        assert isinstance(report, kpu.NetworkReport) and sim.report is report and len(report.plan.fused) == 1
        assert [line.split(" | ")[2] for line in rows("two layers", "a chip", report)] == ["none", "fusion", "residency"]
        assert jax.tree.map(lambda v: v, report).plan is report.plan, "a pytree whose plan has no leaves"
        for wrong in ({"residency": "some"}, {"fuse": "none"}):
            with pytest.raises(kpu.KPUError, match="run"):
                sim.run(tower(), **wrong)
        with pytest.raises(kpu.KPUError, match="without a mapping"):
            sim.run(kpu.Gemm(8, 8, 8), fusion="none")
    main(["run", "edge_ai", "--matmul", "32x32x32", "--graph", "--layers", "--csv", str(tmp_path / "ops.csv"), "--without", "residency"])
    out = capsys.readouterr().out
    assert "inputs/s" in out and "longest path" in out and "fusion" in out and "residency" not in out
    assert (tmp_path / "ops.csv").read_text().startswith("operation,")
    assert main(["run", "edge_ai", "--matmul", "8x8x8", "--without", "fusion"]) == 2
    assert "--graph" in capsys.readouterr().err


def test_bad_input_is_named():
    net = tower()
    for options, word in (
        ({"fusion": "all"}, "fusion"), ({"attention": "flash"}, "row_blocks"), ({"residency": "greedy"}, "optimal"),
        ({"objective": "speed"}, "objective"), ({"timing": "rough"}, "timing"),
    ):  # fmt: skip
        with pytest.raises(kpu.KPUError, match=word):
            plan_network(CHIP, net, **options)
    cyclic = dataclasses.replace(net, predecessors=np.array([[2], [0], [1]], np.int32))
    with pytest.raises(kpu.KPUError, match="layer0.*reads 'layer2'.*cyclic"):
        plan_network(CHIP, cyclic)
    with pytest.raises(kpu.KPUError, match="which does not exist"):
        pieces_of(dataclasses.replace(net, predecessors=np.array([[-1], [0], [7]], np.int32)))
    empty = dataclasses.replace(net, ops=jax.tree.map(lambda v: v * 0, net.ops))
    with pytest.raises(kpu.KPUError, match="m "):
        plan_network(CHIP, empty)
    with pytest.raises(kpu.InfeasibleError, match="layer0.*L3"):
        plan_network(CHIP.replace({"on_chip_memory.l3.tile_capacity_kb": 1 / 1024}), net)
    with pytest.raises(kpu.KPUError, match="kpu.simulate"):
        plan_network(CHIP, kpu.Gemm(8, 8, 8))
    with pytest.raises(kpu.KPUError, match="outside of jit"):
        jax.jit(lambda chip: plan_network(chip, net).cycles)(CHIP)
