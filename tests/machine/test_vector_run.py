"""Vector programs on the machine: NumPy's numbers, and the bytes of the closed form."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from small_cases import small_case
from test_run import closed_form

import kpu_jax as kpu
from kpu_jax.machine import Conversion, MachineError, run
from kpu_jax.machine.conversion import MOVERS
from kpu_jax.machine.places import LEVELS, OPERANDS
from kpu_jax.program import build

CHIP = kpu.presets.minimal()
RNG = np.random.default_rng(9)


def tiles(l3, l2, **options):
    return kpu.Mapping(l3_tile=(l3, 1, 1), l2_tile=(l2, 1, 1), **options)


def test_random_programs_give_numpys_sums_and_the_closed_forms_bytes():
    rng, seen = np.random.default_rng(5), 0
    while seen < 40:
        if (case := small_case(rng)).op.kind != 2:
            continue
        seen += 1
        op, m = case.op, int(case.op.m)
        integer = int(op.mac_format) == int(kpu.VectorOp(1, dtype="int8").mac_format)
        two = float(op.a_bits) == (16 if integer else 32)
        arrays = {x: rng.integers(-99, 99, m).astype(np.int8) if integer else rng.standard_normal(m).astype(np.float16) for x in "AB"}
        if not two:
            arrays.pop("B")
        if op.c_bits != (8 if integer else 16):
            continue  # a quarter of a result per element: rows of four, below
        done = run(case.program(), arrays, function=None if op.activation else "add" if two else "copy")
        if two:
            wide = arrays["A"].astype(np.float32) + arrays["B"].astype(np.float32)
            expected = (np.clip(wide, -128, 127) if integer else wide).astype(arrays["A"].dtype)
            np.testing.assert_array_equal(done.arrays["C"], expected)
        with jax.enable_x64(True):
            reads, writes = jax.tree.map(float, closed_form(*case.numbers()))
        for level in LEVELS:
            for x in OPERANDS:
                assert (done.reads[level][x], done.writes[level][x]) == (reads[level][x], writes[level][x]), (level, x, case)


F = RNG.standard_normal((6, 10)).astype(np.float32)
G = RNG.standard_normal((6, 10)).astype(np.float32)


def softmax(x):
    e = np.exp(np.float64(x) - np.float64(x).max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layernorm(x):
    centred = np.float64(x) - np.float64(x).mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize(
    ("function", "arrays", "expected", "outputs"),
    [
        ("add", {"A": F, "B": G}, F + G, 1),
        ("mul", {"A": F, "B": G}, F * G, 1),
        ("div", {"A": F, "B": G}, F / G, 1),
        ("min", {"A": F, "B": G[0]}, np.minimum(F, G[0]), 1),
        ("add_relu", {"A": F, "B": G}, np.maximum(F + G, 0), 1),
        (("sub", "relu", "sum"), {"A": F, "B": G}, np.maximum(F - G, 0).sum(-1, dtype=np.float64), 0.1),
        (("exp", "rsqrt"), {"A": F}, np.exp(-F / 2), 1),
        (("sigmoid", "max_reduce"), {"A": F}, (1 / (1 + np.exp(-F))).max(-1), 0.1),
        ("average", {"A": F}, F.mean(-1, dtype=np.float64), 0.1),
        ("softmax", {"A": F}, softmax(F), 1),
        (("mul", "layernorm", "silu"), {"A": F, "B": G}, (lambda y: y / (1 + np.exp(-y)))(layernorm(F * G)), 1),
        ("rmsnorm", {"A": F}, F / np.sqrt((F**2).mean(-1, keepdims=True) + 1e-5), 1),
    ],
)
@pytest.mark.parametrize("flow", kpu.mapping.DATAFLOWS[:2])
def test_chains_are_numpys(function, arrays, expected, outputs, flow):
    inputs = sum(x.size for x in arrays.values()) / F.size
    first = function if isinstance(function, str) else function[0]
    activation = first if first in kpu.workload.ACTIVATIONS else "add"
    op = kpu.VectorOp(F.size, function=activation, inputs=inputs, outputs_per_element=outputs, dtype="fp32")
    done = run(build(CHIP, op, tiles(40, 20, dataflow=flow)), arrays, function=function)
    assert done.arrays["C"].shape == expected.shape and done.arrays["C"].dtype == np.float32
    np.testing.assert_allclose(done.arrays["C"], expected, rtol=2e-6, atol=3e-7)
    if len(arrays) == 2 and function in ("add", "mul", "div", "min", "add_relu"):
        np.testing.assert_array_equal(done.arrays["C"], expected)


def test_reductions_carry_on_across_blocks_in_ascending_order():
    x = np.float32(10.0 ** RNG.integers(-4, 5, (3, 14))) * RNG.standard_normal((3, 14)).astype(np.float32)
    op = kpu.VectorOp(x.size, function="sum", outputs_per_element=1 / 14, dtype="fp32")
    done = run(build(CHIP, op, tiles(23, 5)), {"A": x}, function="sum")
    np.testing.assert_array_equal(done.arrays["C"], np.add.accumulate(x, axis=1, dtype=np.float32)[:, -1])
    with pytest.raises(MachineError, match="within one"):
        run(build(kpu.presets.edge_ai(), op, tiles(42, 5, partition=(1, 2, 1, 1))), {"A": x}, function="sum")
    with pytest.raises(MachineError, match="whole rows"):
        run(build(CHIP, kpu.VectorOp(42, function="softmax", dtype="fp32"), tiles(23, 5)), {"A": x}, function="softmax")


def test_integers_stay_integers_and_saturate_once():
    a, b = (RNG.integers(-128, 128, 77).astype(np.int8) for _ in "AB")
    op = kpu.VectorOp(77, function="mul", dtype="int8", out_dtype="int32")
    done = run(build(CHIP, op, tiles(40, 9)), {"A": a, "B": b}, function="mul")
    np.testing.assert_array_equal(done.arrays["C"], a.astype(np.int32) * b)
    op = kpu.VectorOp(77, function="add", dtype="int8")
    done = run(build(CHIP, op, tiles(40, 9)), {"A": a, "B": b}, function=("add", "scale"), scale=0.25)
    np.testing.assert_array_equal(done.arrays["C"], np.rint((a.astype(np.float32) + b) * np.float32(0.25)).astype(np.int8))


def turned(x, positions):
    """Pairs (i, i + half) as complex numbers, times e^(i angle)."""
    half = x.shape[-1] // 2
    pairs = x[..., :half] + 1j * x[..., half:].astype(np.float64)
    frequencies = 1 / 10000.0 ** (2 * np.arange(half) / x.shape[-1])
    out = pairs * np.exp(1j * positions[..., None] * frequencies)
    return np.concatenate([out.real, out.imag], axis=-1)


def test_rotary_turns_pairs_by_their_position():
    x = RNG.standard_normal((2, 7, 6)).astype(np.float32)  # heads, tokens, head size
    program = build(CHIP, kpu.VectorOp(x.size, function="rotary", dtype="fp32"), tiles(36, 12))
    own = np.arange(7) * np.ones((2, 1))
    later = 1000 + np.array([[3], [5]]) * np.ones(7)
    for positions, given in ((own, None), (later, np.array([[1003], [1005]]))):
        c = run(program, {"A": x}, function="rotary", positions=given).arrays["C"]
        np.testing.assert_allclose(c, turned(x, positions), rtol=0, atol=1e-6)
    np.testing.assert_allclose((c**2).sum(-1), (x**2).sum(-1), rtol=1e-5)
    with pytest.raises(MachineError, match="whole rows"):
        run(build(CHIP, kpu.VectorOp(x.size, function="rotary", dtype="fp32"), tiles(36, 10)), {"A": x}, function="rotary")
    for options, kind, word in (
        ({"positions": np.zeros(3)}, kpu.ShapeError, "leading axes"),
        ({"positions": ["a"] * 7}, kpu.DtypeError, "must be numbers"),
        ({"function": "softmax", "positions": 0}, kpu.KPUError, "rotary"),
    ):
        with pytest.raises(kind, match=word):
            run(program, {"A": x}, **{"function": "rotary", **options})
    with pytest.raises(kpu.ShapeError, match="even number"):
        run(build(CHIP, kpu.VectorOp(15, function="rotary", dtype="fp32"), tiles(15, 15)), {"A": x[0, :5, :3]}, function="rotary")


@pytest.mark.parametrize("on", MOVERS)
def test_operands_and_results_are_converted_on_any_mover(on):
    outside = {"dma": ("dram",), "block_mover": ("dram", "l3"), "streamer": ("dram", "l3", "l2")}[on]
    a, b = (RNG.integers(-128, 128, shape).astype(np.int8) for shape in ((6, 10), (10,)))
    op = kpu.VectorOp(60, function="add", inputs=1 + 1 / 6, dtype="fp32", outputs_per_element=1 / 10)
    program = build(CHIP, op, tiles(30, 20))
    made = {"A": Conversion(on, "fp32", 0.5), "B": Conversion("dma", "fp32", 0.25), "C": Conversion(on, "fp16", 2.0)}
    done = run(program, {"A": a, "B": b}, function=("add", "sum"), conversions=made)
    wide = {"A": a * np.float32(0.5), "B": b * np.float32(0.25)}
    plain = run(program, wide, function=("add", "sum"))
    np.testing.assert_array_equal(plain.arrays["C"], (wide["A"] + wide["B"]).sum(-1))  # exact in float32
    np.testing.assert_array_equal(done.arrays["C"], (plain.arrays["C"] / 2).astype(np.float16))
    for level in ("dram", "l3", "l2", "l1"):
        narrow = 3 * 60 * (level in outside) + 3 * 10 * (level == "dram")
        assert plain.reads[level]["A"] - done.reads[level]["A"] == pytest.approx(narrow)
        grown = plain.writes[level]["C"] - done.writes[level]["C"]
        assert grown == pytest.approx(2 * 6 * (level in outside)), level
    with pytest.raises(kpu.DtypeError, match="one of them must be a float"):
        run(program, {"A": a, "B": b}, function=("add", "sum"), conversions={"A": Conversion(on, "int32", 1.0)})
    with pytest.raises(kpu.KPUError, match="valid: A, C"):
        copy = build(CHIP, kpu.VectorOp(60, function="copy", dtype="fp32"), tiles(30, 20))
        run(copy, {"A": wide["A"]}, function="copy", conversions={"B": made["B"]})


ADD = build(CHIP, kpu.VectorOp(60, dtype="fp32"), tiles(60, 60))


@pytest.mark.parametrize(
    ("arrays", "options", "kind", "word"),
    [
        ({"A": F, "B": G}, {}, kpu.KPUError, "give function="),
        ({"A": F, "B": G}, {"function": "rotate"}, kpu.KPUError, "rotary"),
        ({"A": F, "B": G}, {"function": ("relu", "add")}, kpu.KPUError, "only come first"),
        ({"A": F, "B": G}, {"function": ("add", "sum", "softmax")}, kpu.KPUError, "one reduction"),
        ({"A": F, "B": G}, {"function": ()}, kpu.KPUError, "at least one"),
        ({"A": F, "B": G}, {"function": "add", "scale": 2.0}, kpu.KPUError, "scale"),
        ({"A": F, "B": G}, {"function": ("add", "sum")}, kpu.DtypeError, "no result"),
        ({"A": F}, {"function": "add"}, kpu.ShapeError, "A, B"),
        ({"A": F[:3], "B": G}, {"function": "add"}, kpu.DtypeError, "bits"),
        ({"A": F.T, "B": G}, {"function": "add"}, kpu.ShapeError, "broadcast"),
        ({"A": F, "B": G.astype(np.float16)}, {"function": "add"}, kpu.DtypeError, "bits"),
        ({"A": F > 0, "B": G}, {"function": "add"}, kpu.DtypeError, "bool"),
    ],
)
def test_what_cannot_run_is_named(arrays, options, kind, word):
    with pytest.raises(kind, match=word):
        run(ADD, arrays, **options)
