"""Blocks between memories: every arrangement against NumPy, bytes counted, and nothing changed by what fails."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.machine.block_mover import arranged, move_block
from kpu_jax.machine.memory import Memory, read_array, write_array
from kpu_jax.workload.dtypes import parse_dtype

BLOCK = np.arange(24, dtype=np.int16).reshape(4, 6)
ORDER = [2, 0, 1]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, BLOCK),
        ({"arrangement": "transpose"}, BLOCK.T),
        ({"arrangement": "reshape", "to": (3, 8)}, BLOCK.reshape(3, 8)),
        ({"arrangement": "shuffle", "order": [3, 1, 2, 0]}, BLOCK[[3, 1, 2, 0]]),
        ({"arrangement": "shuffle", "order": ORDER, "axis": 1, "group": 2}, BLOCK[:, [4, 5, 0, 1, 2, 3]]),
    ],
)
@pytest.mark.parametrize(("dtype", "size"), [("int16", 48), ("bf16", 48), ("int8", 24), ("fp32", 96)])
def test_a_moved_block_is_numpys(how, expected, dtype, size):
    kinds = {"int16": np.int16, "bf16": ml_dtypes.bfloat16, "int8": np.int8, "fp32": np.float32}
    l3, l2 = Memory("l3", 4096), Memory("l2", 4096)
    l3 = write_array(l3, 16, BLOCK.astype(kinds[dtype]), parse_dtype("", dtype))
    after, moved = move_block(l3, 16, l2, 64, BLOCK.shape, dtype, **how)
    assert moved == size and not l2.pages
    found = read_array(after, 64, expected.shape, parse_dtype("", dtype))
    np.testing.assert_array_equal(found, expected.astype(kinds[dtype]))


def test_a_shuffle_and_its_inverse_give_the_block_back():
    order = np.random.default_rng(0).permutation(6)
    there = arranged(BLOCK, "shuffle", order=order, axis=1)
    assert (there != BLOCK).any()
    np.testing.assert_array_equal(arranged(there, "shuffle", order=np.argsort(order), axis=1), BLOCK)


@pytest.mark.parametrize(
    ("how", "kind", "word"),
    [
        ({"arrangement": "mirror"}, kpu.KPUError, "shuffle"),
        ({"arrangement": "shuffle"}, kpu.KPUError, "order"),
        ({"arrangement": "transpose", "order": ORDER}, kpu.KPUError, "no options"),
        ({"arrangement": "shuffle", "order": [0, 0, 1, 2]}, kpu.ShapeError, "permutation"),
        ({"arrangement": "shuffle", "order": [0, 1]}, kpu.ShapeError, "permutation"),
        ({"arrangement": "shuffle", "order": ORDER, "group": 3}, kpu.ShapeError, "whole number"),
        ({"arrangement": "reshape", "to": (5, 5)}, kpu.ShapeError, "24 elements"),
    ],
)
def test_what_cannot_be_arranged_is_named(how, kind, word):
    with pytest.raises(kind, match=word):
        arranged(BLOCK, **how)


def test_blocks_beyond_a_memory_or_off_its_elements_are_named():
    small = Memory("l2", 32)
    for address, target in ((0, 0), (1, 0), (0, 31)):
        with pytest.raises(kpu.AddressError):
            move_block(Memory("l3", 4096), address, small, target, BLOCK.shape, "int16")
    assert small == Memory("l2", 32)
