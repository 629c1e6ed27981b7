"""Movers that quantise and dequantise: the same numbers wherever it happens, and bytes of the format that each memory holds."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.machine import Conversion, run
from kpu_jax.machine.conversion import MOVERS
from kpu_jax.program import build

CHIP = kpu.presets.minimal()
LEVELS = ("dram", "l3", "l2", "l1", "pe")  # as operands come in
RNG = np.random.default_rng(4)
A, B = (RNG.standard_normal(shape).astype(np.float32) for shape in ((20, 24), (24, 18)))
TILES = {"l3_tile": (20, 9, 12), "l2_tile": (10, 9, 6), "l3_order": "kmn", "l2_order": "kmn"}  # C's partial sums leave L3


def int8(x, scale):
    return np.clip(np.rint(x * (np.float32(1) / np.float32(scale))), -128, 127).astype(np.int8)


@pytest.mark.parametrize("flow", kpu.mapping.DATAFLOWS)
def test_operands_are_quantised_on_any_mover(flow):
    op, mapping = kpu.Gemm(20, 18, 24, dtype="int8", c_dtype="int32"), kpu.Mapping(dataflow=flow, **TILES)
    program = build(CHIP, op, mapping)
    qa, qb = int8(A, 0.02), int8(B, 0.03)
    assert (np.abs(qa) == 127).any() or (qa == -128).any(), "some saturate"
    plain = run(program, {"A": qa, "B": qb}, fabric="tiles")
    for on in MOVERS:
        made = {"A": Conversion(on, "int8", 0.02), "B": Conversion(on, "int8", 0.03)}
        done = run(program, {"A": A, "B": B}, conversions=made, fabric="tiles")
        np.testing.assert_array_equal(done.arrays["C"], qa.astype(np.int32) @ qb.astype(np.int32))
        for level, wide_reads in zip(LEVELS, range(5), strict=True):
            for x in "AB":
                outside = wide_reads <= MOVERS.index(on)  # this memory lies on the wide side of the mover
                assert done.reads[level][x] == plain.reads[level][x] * (4 if outside else 1), (on, level, x)
                assert done.writes[level][x] == plain.writes[level][x] * (4 if outside else 1), (on, level, x)
            assert done.reads[level]["C"] == plain.reads[level]["C"]
        assert (done.high_water["l3"] > plain.high_water["l3"]) == (on != "dma")


def test_stored_weights_are_dequantised_and_results_too():
    op = kpu.Gemm(20, 18, 24, a_dtype="bf16", b_dtype="bf16", c_dtype="fp32")
    program = build(CHIP, op, kpu.Mapping(**TILES))
    a, qb = A.astype(ml_dtypes.bfloat16), int8(B, 0.03)
    b = (qb.astype(np.float32) * np.float32(0.03)).astype(ml_dtypes.bfloat16)
    plain = run(program, {"A": a, "B": b}, fabric="tiles")
    for on in MOVERS:
        done = run(program, {"A": a, "B": qb}, conversions={"B": Conversion(on, "bf16", 0.03)}, fabric="tiles")
        assert done.arrays["C"].tobytes() == plain.arrays["C"].tobytes()
        assert done.reads["dram"]["B"] == plain.reads["dram"]["B"] / 2 and done.reads["l1"]["B"] == plain.reads["l1"]["B"]


@pytest.mark.parametrize("k_parts", [1, 2])
def test_results_are_dequantised_on_their_way_out(k_parts):
    chip = kpu.presets.edge_ai()
    program = build(chip, kpu.Gemm(20, 18, 24, dtype="int8"), kpu.Mapping(**{**TILES, "partition": (1, 1, 1, k_parts)}))
    arrays = {"A": int8(A, 0.02), "B": int8(B, 0.03)}
    plain = run(program, arrays, c_scale=40.0, fabric="tiles")
    levels = {"dma": ("dram",), "block_mover": ("dram", "l3"), "streamer": ("dram", "l3", "l2")}
    if k_parts == 2:
        with pytest.raises(kpu.KPUError, match="complete only in L3"):
            run(program, arrays, conversions={"C": Conversion("streamer", "fp32", 40.0)})
    for on in MOVERS[: 4 - k_parts]:
        done = run(program, arrays, c_scale=40.0, conversions={"C": Conversion(on, "fp32", 40.0)}, fabric="tiles")
        np.testing.assert_array_equal(done.arrays["C"], plain.arrays["C"].astype(np.float32) * 40)
        assert done.writes["dram"]["C"] - plain.writes["dram"]["C"] == 3 * 20 * 18
        if k_parts == 1:
            for level in ("l3", "l2"):
                grown = done.writes[level]["C"] - plain.writes[level]["C"]
                assert grown == (3 * 20 * 18 if level in levels[on] else 0), (on, level)


def test_a_convolutions_input_is_quantised_before_it_becomes_windows():
    op = kpu.Conv(1, 5, 6, 2, 3, 3, padding=1, dtype="int8", c_dtype="int32")
    x, w = (RNG.standard_normal(shape).astype(np.float32) for shape in ((1, 5, 6, 2), (3, 3, 2, 3)))
    m = int(op.m)
    program = build(CHIP, op, kpu.Mapping(l3_tile=(m, 3, 18), l2_tile=(7, 3, 9)))
    plain = run(program, {"A": int8(x, 0.02), "B": int8(w, 0.03)}, fabric="tiles")
    for on in MOVERS:
        made = {"A": Conversion(on, "int8", 0.02), "B": Conversion(on, "int8", 0.03)}
        done = run(program, {"A": x, "B": w}, conversions=made, fabric="tiles")
        np.testing.assert_array_equal(done.arrays["C"], plain.arrays["C"])
        assert done.reads["dram"]["A"] == 4 * plain.reads["dram"]["A"]


@pytest.mark.parametrize("scale", [float("nan"), 0.0, -1.0, float("inf"), 1e-42, 1e39, "x", [0.1, 0.2]])
def test_scales_that_cannot_be_are_named(scale):
    with pytest.raises(kpu.QuantisationError, match="scale"):
        Conversion("dma", "int8", scale)


@pytest.mark.parametrize(
    ("on", "dtype", "kind", "word"), [("cpu", "int8", kpu.KPUError, "block_mover"), ("dma", "int7", kpu.DtypeError, "int7")]
)
def test_unknown_movers_and_formats_are_named(on, dtype, kind, word):
    with pytest.raises(kind, match=word):
        Conversion(on, dtype, 1.0)


def test_conversions_that_do_not_fit_the_program_are_named():
    op = kpu.Gemm(20, 18, 24, dtype="int8", c_dtype="int32", data_on="l3")
    program, q = build(CHIP, op, kpu.Mapping(**TILES)), int8(A, 0.02)
    for x, array, conversion, kind, word in (
        ("A", A, Conversion("dma", "int8", 0.1), kpu.KPUError, "stays in L3"),
        ("A", q.astype(np.int16), Conversion("streamer", "int8", 0.1), kpu.DtypeError, "float"),
        ("A", A, Conversion("streamer", "int16", 0.1), kpu.DtypeError, "8 bits"),
        ("C", q, Conversion("streamer", "int16", 0.1), kpu.DtypeError, "float"),
        ("D", q, Conversion("streamer", "int8", 0.1), kpu.KPUError, "valid: A, B, C"),
        ("A", A, "int8", kpu.KPUError, "Conversion"),
    ):
        with pytest.raises(kind, match=word):
            run(program, {"A": array, "B": int8(B, 0.03)}, conversions={x: conversion})
