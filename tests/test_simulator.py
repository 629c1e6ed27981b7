"""`simulate` and the `Simulator` facade as a user meets them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compilations
from jax.test_util import check_grads

import kpu_jax as kpu

CHIP = kpu.presets.edge_ai()
GEMM = kpu.Gemm(128, 768, 768)
MAPPING = kpu.Mapping(l3_tile=(128, 64, 384), l2_tile=(64, 32, 384), partition=(1, 2, 1, 1))


def test_a_report_answers_in_numpy_float64():
    r = kpu.simulate(CHIP, GEMM, MAPPING).check()
    assert r.status == "ok" and r.bound_by in ("dma", "block_mover", "streamer", "fabric")
    for leaf in jax.tree.leaves(r):
        assert isinstance(leaf, np.float64)
    assert r.cycles >= r.cycles_bound > 0
    assert r.seconds == pytest.approx(r.cycles / 750e6, rel=1e-15)
    assert r.edp == pytest.approx(r.seconds * r.energy_pj * 1e-12, rel=1e-15)
    assert r.traffic["dram"]["B"] == 768 * 768  # int8, moved once: all of M is in the L3 block
    assert "cycles" in repr(r) and "utilization" in repr(r)


def test_the_bound_may_be_asked_for():
    r = kpu.simulate(CHIP, GEMM, MAPPING, timing="bound")
    assert r.cycles == r.cycles_bound == kpu.simulate(CHIP, GEMM, MAPPING).cycles_bound


def test_no_second_compilation_for_other_numbers():
    kpu.simulate(CHIP, GEMM, MAPPING)
    with compilations() as names:
        kpu.simulate(kpu.presets.datacenter(), kpu.Gemm(5, 6, 7, dtype="fp8_e4m3", activation="gelu"), MAPPING)
        kpu.simulate(CHIP, kpu.Conv(1, 8, 8, 3, 8, 3), kpu.Mapping(l3_tile=(6, 8, 27), l2_tile=(6, 8, 9), dataflow="input_stationary"))
        kpu.simulate(CHIP.replace({"clocks.fabric_mhz": 900}), kpu.VectorOp(1000), kpu.Mapping(l3_tile=(100, 1, 1), l2_tile=(10, 1, 1)))
    assert names == []


def test_count_repeats_the_operation():
    once, thrice = (kpu.simulate(CHIP, kpu.Gemm(64, 64, 64, count=c), MAPPING) for c in (1, 3))
    for name in ("cycles", "cycles_bound", "seconds", "energy_pj", "macs", "overfetch"):
        assert getattr(thrice, name) == pytest.approx(3 * getattr(once, name), rel=1e-15), name
    assert thrice.edp == pytest.approx(9 * once.edp, rel=1e-15) and thrice.power_w == pytest.approx(once.power_w, rel=1e-15)
    assert thrice.traffic["dram"]["A"] == 3 * once.traffic["dram"]["A"]


def test_a_workload_is_the_sum_of_its_operations():
    net = kpu.Workload.from_ops([("a", kpu.Gemm(64, 64, 64, count=2)), ("b", kpu.Gemm(100, 30, 200)), ("v", kpu.VectorOp(999))])
    mappings = [kpu.best_mapping(CHIP, net.row(i)) for i in range(3)]
    r = kpu.simulate(CHIP, net, jax.tree.map(lambda *v: np.stack(v), *mappings)).check()
    parts = [kpu.simulate(CHIP, net.row(i), m) for i, m in enumerate(mappings)]
    assert len(r.per_op.cycles) == 3
    for name in ("cycles", "seconds", "energy_pj", "macs"):
        assert getattr(r, name) == pytest.approx(sum(getattr(p, name) for p in parts), rel=1e-12)
        np.testing.assert_allclose(getattr(r.per_op, name), [getattr(p, name) for p in parts], rtol=1e-12)
    assert r.edp == pytest.approx(r.energy_pj * 1e-12 * r.seconds, rel=1e-15)


def test_area_and_tdp_are_the_chips():
    r = kpu.simulate(CHIP, GEMM, MAPPING)
    assert r.area_mm2 == pytest.approx(sum(kpu.area_mm2(CHIP).values()), rel=1e-12)
    assert r.tdp_w == pytest.approx(float(kpu.hardware.tdp_watts(CHIP)), rel=1e-12)


def test_an_infeasible_mapping_says_what_overflows():
    r = kpu.simulate(CHIP, GEMM, kpu.Mapping(l3_tile=(128, 768, 768), l2_tile=(64, 64, 64)))
    assert r.cycles == r.energy_pj == np.inf and "L3 overflows by" in r.status and "byte" in r.status
    with pytest.raises(kpu.InfeasibleError, match="L3 overflows"):
        r.check()


def test_a_simulation_does_not_depend_on_the_one_before():
    first = kpu.simulate(CHIP, GEMM, MAPPING)
    kpu.simulate(kpu.presets.t64(), kpu.Gemm(3, 3, 3), MAPPING)
    assert kpu.simulate(CHIP, GEMM, MAPPING) == first


def test_vmap_over_chips():
    chips = [CHIP.replace({"clocks.fabric_mhz": mhz}) for mhz in (300, 750, 1500)]
    stacked = jax.tree.map(lambda *v: np.stack(v), *chips)
    with jax.enable_x64(True):
        cycles = jax.jit(jax.vmap(lambda c: kpu.simulate(c, GEMM, MAPPING, timing="bound").cycles))(stacked)
    np.testing.assert_allclose(cycles, [kpu.simulate(c, GEMM, MAPPING, timing="bound").cycles for c in chips], rtol=1e-12)


STACKED = jax.tree.map(lambda v: np.stack([v, v]), CHIP)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (({}, GEMM, MAPPING), "must be a KPUConfig"),
        ((CHIP, "resnet50", MAPPING), "workload must be"),
        ((CHIP, GEMM, {}), "mapping must be"),
        ((STACKED, GEMM, MAPPING), "vmap"),
        ((STACKED, kpu.networks.mlp(), MAPPING), "vmap"),
        ((CHIP, kpu.networks.mlp(), jax.tree.map(lambda v: np.stack([v] * 2), MAPPING)), "3 rows, the mapping 2"),
        ((CHIP, GEMM, jax.tree.map(lambda v: v * np.nan, MAPPING)), "mapping"),
        ((jax.tree.map(lambda v: -v, CHIP), GEMM, MAPPING), "host_memory"),
        ((CHIP, jax.tree.map(lambda v: v * 0, GEMM.plain()), MAPPING), "m "),
    ],
)
def test_wrong_arguments_are_named(arguments, word):
    with pytest.raises(kpu.KPUError, match=word):
        kpu.simulate(*arguments)


def test_a_mapping_is_needed_under_a_transformation():
    with pytest.raises(kpu.KPUError, match="best_mapping"):
        jax.jit(lambda c: kpu.simulate(c, GEMM).cycles)(CHIP)


def test_the_facade():
    with kpu.Simulator() as sim:
        assert (sim.main_memory_size, sim.scratchpad_size) == (1 << 30, 1 << 20) and sim.report is None
        report = sim.run(kpu.networks.mlp(batch=8))
        assert sim.report is report and report.macs == kpu.networks.mlp(batch=8).macs.sum()
    assert kpu.KPUSimulator is kpu.Simulator
    own = kpu.Simulator(config=CHIP)
    assert own.scratchpad_size == 2 * 128 * 1024 and own.main_memory_size == 2 * 512 * 1024**2
    assert kpu.Simulator(12345, 6789, config=CHIP).scratchpad_size == 6789
    assert "1,073,741,824" in repr(kpu.Simulator())


@pytest.mark.parametrize(
    ("arguments", "options", "word"),
    [
        ((0,), {}, "main_memory_size"), ((1 << 60,), {}, "main_memory_size"), ((1.5,), {}, "main_memory_size"),
        ((None, -1), {}, "scratchpad_size"), ((), {"config": "edge_ai"}, "config"), ((), {"config": {}}, "config"),
        ((), {"config": STACKED}, "config"), ((CHIP,), {}, "config="),
    ],
)  # fmt: skip
def test_wrong_sizes_are_named(arguments, options, word):
    with pytest.raises(kpu.KPUError, match=word):
        kpu.Simulator(*arguments, **options)


def operands(*shapes, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.integer):
        return [rng.integers(-100, 100, shape).astype(dtype) for shape in shapes]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def test_the_usage_example_runs_as_written():
    with kpu.Simulator() as sim:
        A = np.random.randn(100, 200).astype(np.float32)
        B = np.random.randn(200, 150).astype(np.float32)
        C = sim.matmul(A, B)
    assert type(C) is np.ndarray and C.dtype == np.float32 and C.shape == (100, 150) and C.flags.writeable
    exact = A.astype(np.float64) @ B.astype(np.float64)
    assert (np.abs(C - exact) <= kpu.matmul_error_bound(A, B)).all()
    assert sim.report.macs == 3_000_000 and sim.report.traffic["dram"]["A"] >= A.nbytes


@pytest.fixture
def sim():
    with kpu.Simulator(config=CHIP) as simulator:
        yield simulator


SHAPES = [((7, 9), (9, 5)), ((9,), (9, 5)), ((7, 9), (9,)), ((9,), (9,)), ((2, 3, 7, 9), (9, 5)), ((2, 7, 9), (3, 1, 9, 5))]


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("dtype", [np.int8, np.int32])
def test_shapes_and_integers_are_numpys(sim, shapes, dtype):
    a, b = operands(*shapes, dtype=dtype)
    c = sim.matmul(a, b)
    np.testing.assert_array_equal(c, a.astype(np.int32) @ b.astype(np.int32))
    assert c.dtype == np.int32 and sim.report.macs == np.prod(c.shape, dtype=int) * 9


@pytest.mark.parametrize("flow", kpu.mapping.DATAFLOWS)
def test_the_numbers_and_the_report_are_those_of_the_mapping(sim, flow):
    a, b = operands((30, 40), (40, 20))
    mapping = kpu.Mapping(l3_tile=(30, 20, 24), l2_tile=(15, 20, 7), dataflow=flow, partition=(1, 1, 1, 2))
    c = sim.matmul(a, b, mapping=mapping)
    op = kpu.Gemm(30, 20, 40, dtype="fp32")
    done = kpu.machine.run(kpu.program.build(CHIP, op, mapping), {"A": a, "B": b})
    assert c.tobytes() == done.arrays["C"].tobytes()
    assert sim.report == kpu.simulate(CHIP, op, mapping) and sim.report.reads == done.reads
    others = [sim.matmul(a, b, mapping=mapping.__class__(**{**mapping.describe(), "partition": (1, 1, 1, 1)}))]
    assert (c != others[0]).any(), "another order of addition, other roundings"


def test_zero_gating_is_measured(sim):
    a, b = operands((30, 40), (40, 20), dtype=np.int8)
    a[a == 0], b[b == 0] = 1, 1
    sim.matmul(a, b)
    dense = sim.report.energy["mac"]
    a[:, ::2], b[5] = 0, 0
    sim.matmul(a, b)
    switching = 30 * 20 * 19  # of 40 k's 20 are zero in A, and one more in B
    assert sim.report.energy["mac"] == pytest.approx(dense * switching / (30 * 20 * 40), rel=1e-12)
    sim.matmul(0 * a, b)
    assert 0 < sim.report.energy["mac"] < 1e-200


def test_jax_in_jax_out_and_the_same_bits_under_jit_and_vmap(sim):
    a, b = (jnp.asarray(x) for x in operands((4, 30, 40), (40, 20)))
    c = sim.matmul(a[0], b)
    assert isinstance(c, jax.Array)
    product = jax.jit(lambda x: sim.matmul(x, b))
    assert np.asarray(product(a[0])).tobytes() == np.asarray(c).tobytes()
    assert sim.report.macs == 30 * 40 * 20
    each = np.asarray(jax.jit(jax.vmap(lambda x: sim.matmul(x, b)))(a))
    assert each.tobytes() == np.stack([np.asarray(sim.matmul(x, b)) for x in a]).tobytes()


FUNCTIONS = {
    "none": lambda x: x,
    "relu": lambda x: jnp.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: 1 / (1 + jnp.exp(-x)),
    "tanh": jnp.tanh,
    "silu": lambda x: x / (1 + jnp.exp(-x)),
    "leaky_relu": lambda x: jnp.where(x > 0, x, 0.01 * x),
}


def test_values_and_gradients_are_those_of_the_function(sim):
    assert tuple(FUNCTIONS) == kpu.workload.ACTIVATIONS
    arguments = [jnp.asarray(v) for v in operands((3, 4), (4, 2), (2,))]

    def ours(name, a, b, bias):
        return sim.matmul(a, b, bias=bias, activation=name)

    def function(name, a, b, bias):
        return FUNCTIONS[name](jnp.matmul(a, b, precision="highest") + bias)

    @functools.partial(jax.jit, static_argnums=0)
    def slopes(layer):
        return {name: jax.value_and_grad(lambda *v, n=name: (layer(n, *v) ** 2).sum(), argnums=(0, 1, 2))(*arguments) for name in FUNCTIONS}

    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), slopes(ours), slopes(function))


@pytest.mark.parametrize(("activation", "order"), [("none", 2), ("silu", 1)])
def test_gradients_agree_with_differences(activation, order):
    def layer(a, b, bias):
        return kpu.machine.matmul(a, b, bias=bias, activation=activation)

    arguments = [jnp.asarray(v) for v in operands((3, 4), (4, 2), (2,))]
    check_grads(jax.jit(layer), arguments, order=order, modes=("fwd", "rev"), rtol=2e-2, atol=2e-2)


LONG = [pytest.param(name, marks=pytest.mark.long) for name in ("int16", "fp8_e5m2", "fp16")]


@pytest.mark.parametrize("dtype", ["int8", "fp8", "bf16", *LONG])
def test_quantised_products_are_close_and_have_straight_through_gradients(sim, dtype):
    a, b = (jnp.asarray(v) for v in operands((20, 40), (40, 10)))
    exact = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
    c = sim.matmul(a, b, dtype=dtype)
    error = np.sqrt(np.mean((np.asarray(c) - exact) ** 2) / np.mean(exact**2))
    assert c.dtype == jnp.float32 and error < {"int8": 0.02, "fp8": 0.05, "fp8_e5m2": 0.1}.get(dtype, 5e-3)
    slope = jax.grad(lambda a: sim.matmul(a, b, dtype=dtype).sum())(a)
    np.testing.assert_allclose(slope, jnp.ones((20, 10)) @ b.T, rtol=0.2, atol=0.6)
    outside = jax.jit(lambda a: sim.matmul(a, b, dtype=dtype))(a)
    assert np.asarray(outside).tobytes() == np.asarray(c).tobytes()


def test_int8_inference_is_exact_in_the_integers(sim):
    a, b = operands((20, 40), (40, 10), dtype=np.int8)
    bias = np.arange(10, dtype=np.int32) * 100
    c = sim.matmul(a, b, bias=bias, activation="relu", c_dtype="int8", c_scale=64.0)
    sums = np.maximum(a.astype(np.int32) @ b.astype(np.int32) + bias, 0)
    assert c.dtype == np.int8
    np.testing.assert_array_equal(c, np.clip(np.rint(sums / 64), -128, 127).astype(np.int8))


def test_memories_hold_bytes_and_transfers_move_them(sim):
    data = np.arange(200, dtype=np.uint8)
    sim.main_memory.write(1000, data)
    assert sim.dma_transfer(sim.main_memory.base + 1000, sim.scratchpad.base, 10, rows=3, source_stride=20) == 30
    np.testing.assert_array_equal(sim.scratchpad.read(0, 30), data.reshape(10, 20)[:3, :10].ravel())
    a, b = operands((64, 64), (64, 64))
    sim.matmul(a, b)
    np.testing.assert_array_equal(sim.main_memory.read(1000, 200), data)
    assert sim.main_memory.occupied == 0 and sim.main_memory.high_water >= 3 * a.nbytes
    sim.main_memory.write_array(4096, a)
    np.testing.assert_array_equal(sim.main_memory.read_array(4096, (64, 64), "fp32"), a)
    sim.reset()
    assert not sim.main_memory.read(1000, 200).any() and sim.report is None


def test_a_closed_simulator_says_so():
    a, b = operands((4, 4), (4, 4))
    with kpu.Simulator() as sim:
        memory = sim.main_memory
    assert "closed" in repr(sim) and sim.main_memory_size == 1 << 30
    attempts = [
        lambda: sim.matmul(a, b), lambda: sim.run(GEMM, MAPPING), lambda: sim.main_memory, lambda: sim.scratchpad, sim.reset,
        lambda: memory.read(0, 1), lambda: memory.write(0, np.zeros(1, np.uint8)), lambda: sim.dma_transfer(0, 1, 1), sim.__enter__,
    ]  # fmt: skip
    for attempt in attempts:
        with pytest.raises(kpu.ClosedError):
            attempt()


A8, B8 = operands((4, 6), (6, 5), dtype=np.int8)
F32, G32 = operands((4, 6), (6, 5))
TOO_MANY_TILES = kpu.Mapping(l3_tile=(4, 5, 6), l2_tile=(4, 5, 6), partition=(1, 9, 1, 1))


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "word"),
    [
        ((A8, B8.T), {}, kpu.ShapeError, "6 columns .* 5 rows"),
        ((A8[:0], B8), {}, kpu.ShapeError, "at least one element"),
        ((np.float32(3), B8), {}, kpu.ShapeError, "one dimension"),
        ((A8, B8), {"bias": np.zeros(4, np.int32)}, kpu.ShapeError, r"\(5,\)"),
        ((F32.astype(np.float64), G32), {}, kpu.DtypeError, "float64"),
        ((A8.astype(np.uint8), B8), {}, kpu.DtypeError, "uint8"),
        ((A8 > 0, B8), {}, kpu.DtypeError, "bool"),
        (([["a"]], B8), {}, kpu.KPUError, "A"),
        ((jax.random.split(jax.random.key(0), 6)[None], B8), {}, kpu.DtypeError, "A must be .* key"),
        ((np.full((4, 6), np.nan, np.float32), G32), {"dtype": "int8"}, kpu.QuantisationError, "A holds infinity or NaN"),
        ((F32, np.full_like(G32, np.inf)), {"dtype": "fp8"}, kpu.QuantisationError, "B holds infinity or NaN"),
        ((F32 * np.float32(1e-20), G32 * np.float32(1e-20)), {"dtype": "int8"}, kpu.QuantisationError, "a_scale b_scale = "),
        ((A8, B8), {"a_scale": 0.5}, kpu.QuantisationError, "A and B are integers"),
        (([[1, 2], [3]], B8), {}, kpu.DtypeError, "array of numbers"),
        ((None, B8), {}, kpu.KPUError, "one dimension"),
        ((F32, G32), {"dtype": "int8", "a_scale": 1e-42}, kpu.QuantisationError, "a_scale"),
        ((A8, B8), {"bias": np.zeros(5, np.float32)}, kpu.DtypeError, "integer sums"),
        ((F32, G32), {"dtype": "int8", "a_scale": [0.1, 0.2]}, kpu.ShapeError, "a_scale"),
        ((A8.astype(np.int32), B8), {"dtype": "int8"}, kpu.DtypeError, "A is int32"),
        ((A8, B8), {"dtype": "fp8"}, kpu.DtypeError, "quantises floats"),
        ((F32, G32), {"dtype": "int7"}, kpu.DtypeError, "int7"),
        ((F32, G32), {"acc_dtype": "int32"}, kpu.DtypeError, "acc_dtype"),
        ((F32, G32), {"dtype": "int8", "a_scale": float("nan")}, kpu.QuantisationError, "a_scale"),
        ((F32, G32), {"dtype": "int8", "b_scale": 0.0}, kpu.QuantisationError, "b_scale"),
        ((A8, B8), {"c_dtype": "int8", "c_scale": -1.0}, kpu.QuantisationError, "c_scale"),
        ((F32, G32), {"activation": "softmax"}, kpu.KPUError, "activation"),
        ((F32, G32), {"mapping": "os"}, kpu.KPUError, "mapping"),
        ((F32, G32), {"mapping": TOO_MANY_TILES}, kpu.InfeasibleError, "compute tiles"),
    ],
)
def test_wrong_operands_are_named_and_leave_all_as_it_was(arguments, options, kind, word):
    sim = kpu.Simulator(config=CHIP)
    sim.main_memory.write(7, np.ones(3, np.uint8))
    before = sim.run(GEMM, MAPPING), sim.main_memory.state
    with pytest.raises(kind, match=word):
        sim.matmul(*arguments, **options)
    assert (sim.report, sim.main_memory.state) == before


def test_a_full_memory_says_so():
    sim = kpu.Simulator(1 << 18, config=CHIP)
    a, b = operands((100, 100), (100, 100))
    sim.matmul(a, b)
    sim.main_memory.write(0, np.ones((1 << 17) + (1 << 14), np.uint8))
    before = sim.main_memory.state
    with pytest.raises(kpu.MemoryFullError, match="40000 bytes wanted"):
        sim.matmul(a, b)
    assert sim.main_memory.state is before


def test_overlapping_transfers_leave_all_as_it_was(sim):
    base = sim.main_memory.base
    sim.main_memory.write(0, np.arange(100, dtype=np.uint8))
    before = sim.main_memory.state
    for source, target in ((base, base + 5), (base, 1 << 50), (-1, base), (base + sim.main_memory.size - 9, base), (base, 0.5)):
        with pytest.raises(kpu.AddressError):
            sim.dma_transfer(source, target, 10)
    assert sim.main_memory.state is before
