"""Memories: what is written is read, nothing else changes, and wrong ranges leave everything as it was."""

from __future__ import annotations

import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.base.errors import AddressError, DtypeError, MemoryFullError, ShapeError
from kpu_jax.machine import memory
from kpu_jax.machine.formats import number_format, storage
from kpu_jax.machine.memory import PAGE, Memory
from kpu_jax.workload.dtypes import FORMATS


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.long)])
def test_reads_and_writes_agree_with_an_array_of_bytes(count):
    rng = np.random.default_rng(8)
    size = 5 * PAGE + 17
    plain, state = np.zeros(size, np.uint8), Memory("external_memory", size)
    for _ in range(count):
        first = int(rng.integers(size))
        data = rng.integers(0, 256, int(rng.integers(0, min(size - first, 2 * PAGE) + 1)), dtype=np.uint8)
        before, kept = state, memory.read(state, 0, size)
        state = memory.write(state, first, data)
        plain[first : first + len(data)] = data
        np.testing.assert_array_equal(memory.read(state, 0, size), plain)
        np.testing.assert_array_equal(memory.read(before, 0, size), kept)


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.name)
def test_arrays_come_back_in_their_format(fmt):
    values = np.random.default_rng(2).integers(-6, 6, (3, 5)).astype(np.float32).astype(storage(fmt))
    state = memory.write_array(Memory("l3_tile", 4096), 64, values, fmt)
    np.testing.assert_array_equal(memory.read_array(state, 64, (3, 5), fmt), values)
    assert memory.array_bytes((3, 5), fmt) == -(-15 * fmt.bits // 8)
    assert not memory.read(state, 64 + memory.array_bytes((3, 5), fmt), 100).any()


def test_a_gibibyte_costs_nothing_until_it_is_used():
    state = memory.write(Memory("external_memory", 1 << 30), (1 << 30) - 3, np.array([1, 2, 3], np.uint8))
    assert sum(page.nbytes for page in state.pages.values()) == PAGE
    assert memory.read(state, (1 << 30) - 4, 4).tolist() == [0, 1, 2, 3]


def test_allocations_keep_clear_of_each_other_and_of_what_was_written():
    state = memory.write(Memory("external_memory", 8 * PAGE), 2 * PAGE + 5, np.ones(1, np.uint8))
    places = []
    for size in (PAGE, 10, 2 * PAGE, PAGE + 1, 1):
        state, at = memory.allocate(state, size)
        places.append(at)
    line = memory.LINE
    assert places == [0, PAGE, 3 * PAGE, 5 * PAGE, PAGE + line] and state.occupied == 4 * PAGE + 3 * line == state.high_water
    with pytest.raises(MemoryFullError, match=f"{2 * PAGE} bytes wanted, the largest free range .* has {2 * PAGE - line}"):
        memory.allocate(state, 2 * PAGE)
    state = memory.write(memory.write(state, 3 * PAGE, np.ones(9, np.uint8)), PAGE, np.full(2 * line, 7, np.uint8))
    state = memory.free(memory.free(state, 3 * PAGE), PAGE)
    assert state.occupied == 2 * PAGE + 2 * line and state.high_water == 4 * PAGE + 3 * line and 3 not in state.pages
    assert not memory.read(state, PAGE, line).any() and memory.read(state, PAGE + line, line).all(), "its neighbour keeps its bytes"
    assert memory.allocate(state, 1)[1] == PAGE
    with pytest.raises(AddressError, match="no allocation starts"):
        memory.free(state, 17)


def test_strided_transfers_are_numpys_and_touch_no_page_in_between():
    rng = np.random.default_rng(3)
    size = 4 * PAGE
    source, target = (memory.write(Memory(name, size), 0, rng.integers(0, 256, size, dtype=np.uint8)) for name in "st")
    tried = 0
    while tried < 40:
        width, rows = int(rng.integers(0, rng.choice((9, 3000, PAGE)))), int(rng.integers(0, 9))
        steps = [width + int(rng.integers(0, 2000)) for _ in range(2)]
        at = [int(rng.integers(0, 1000)) for _ in range(2)]
        if max(a + (rows + 1) * step for a, step in zip(at, steps, strict=True)) > size:
            continue
        tried += 1
        moved = memory.transfer(source, at[0], target, at[1], width, rows=rows, source_stride=steps[0], target_stride=steps[1])
        data, expected = memory.read(source, 0, size), memory.read(target, 0, size)
        for row in range(rows):
            begin, end = (a + row * step for a, step in zip(at, steps, strict=True))
            expected[end : end + width] = data[begin : begin + width]
        np.testing.assert_array_equal(memory.read(moved, 0, size), expected)
    wide = memory.transfer(source, 0, Memory("external_memory", 1 << 40), 5, 16, rows=4, target_stride=1 << 30)
    assert len(wide.pages) == 4 and memory.read(wide, (3 << 30) + 5, 16).tolist() == memory.read(source, 48, 16).tolist()


def test_a_memory_holds_as_many_bytes_as_it_has():
    state = Memory("external_memory", 1000)
    for wanted in (500, 400, 40):
        state, _ = memory.allocate(state, wanted)
    with pytest.raises(MemoryFullError, match="largest free range of its 1000 bytes has 0"):
        memory.allocate(state, 50)


def test_a_transfer_copies_a_block_of_rows():
    image = np.arange(60, dtype=np.uint8)
    source = memory.write(Memory("external_memory", 100), 10, image)
    target = memory.write(Memory("l3_tile", 64), 0, np.full(64, 255, np.uint8))
    moved = memory.transfer(source, 12, target, 1, 3, rows=4, source_stride=10, target_stride=5)
    expected = np.full(64, 255, np.uint8)
    for row in range(4):
        expected[1 + 5 * row : 4 + 5 * row] = image.reshape(6, 10)[row, 2:5]
    np.testing.assert_array_equal(memory.read(moved, 0, 64), expected)


@pytest.mark.parametrize(
    ("attempt", "kind", "word"),
    [
        (lambda s: memory.read(s, 90, 11), AddressError, "10 bytes are left"),
        (lambda s: memory.read(s, -1, 1), AddressError, "address"),
        (lambda s: memory.read(s, 0.5, 1), AddressError, "fraction"),
        (lambda s: memory.read(s, "0", 1), AddressError, "address"),
        (lambda s: memory.read(s, 0, None), AddressError, "size"),
        (lambda s: memory.write(s, 99, np.zeros(2, np.uint8)), AddressError, "end beyond"),
        (lambda s: memory.write(s, 0, np.zeros(2, np.int8)), DtypeError, "uint8"),
        (lambda s: memory.read_array(s, 2, (2,), FORMATS[-1]), AddressError, "no multiple of the 4 bytes"),
        (lambda s: memory.write_array(s, 0, np.zeros(2), FORMATS[-1]), DtypeError, "fp32"),
        (lambda s: memory.transfer(s, 0, s, 5, 10), AddressError, "overlap"),
        (lambda s: memory.transfer(s, 0, s, 50, 10, rows=3, source_stride=4), AddressError, "source_stride"),
        (lambda s: memory.transfer(s, 0, s, 50, 10, rows=6), AddressError, "end beyond"),
        (lambda s: memory.allocate(s, 101), MemoryFullError, "101 bytes wanted"),
    ],
)
def test_wrong_ranges_are_named(attempt, kind, word):
    state = memory.write(Memory("external_memory", 100), 0, np.arange(50, dtype=np.uint8))
    with pytest.raises(kind, match=word):
        attempt(state)


def test_the_address_map_places_every_memory():
    chip = memory.memories(kpu.presets.edge_ai())
    assert list(chip) == ["host_memory", "external_memory", "l3_tile", "l2_bank", "l1_buffer", "page_buffer"]
    external = chip["external_memory"]
    assert external.size == 2 * 512 * 2**20 and memory.locate(chip, external.base + 5, 10) == ("external_memory", 5)
    with pytest.raises(AddressError, match="belongs to no memory"):
        memory.locate(chip, 1 << 45, 1)
    with pytest.raises(AddressError, match="end beyond"):
        memory.locate(chip, external.base + external.size - 1, 2)


@pytest.mark.parametrize("shape", [(-3, 2), (1.5,), "ab", 7, (True,)])
def test_shapes_that_cannot_be_are_named(shape):
    with pytest.raises(ShapeError, match="shape"):
        memory.read_array(Memory("l3", 4096), 0, shape, number_format("", "fp32"))
