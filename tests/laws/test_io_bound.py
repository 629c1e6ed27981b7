"""No schedule of a dense GEMM moves less over the external interface than its fast memory allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from law_cases import ROUNDING, assert_all, bounded
from strategies import DTYPES, Triple, choose, in_chunks, log_integer, random_mapping, shrink_to_fit, stack, take

from kpu_jax.hardware import derived, preset
from kpu_jax.workload import Gemm
from kpu_jax.workload.footprint import element_bytes


def fast_memory_bytes(cfg: Any, op: Any) -> np.ndarray:
    """Bytes between external memory and the multipliers: L3, L2, L1, page buffers, and the registers of the PEs.

    A PE is granted the operands of one cycle (rate x A, rate x B), the stationary ones twice, and one accumulator.
    """
    ea, eb, ec, acc = element_bytes(op)
    bits = np.clip(np.maximum(op.a_bits, op.b_bits), 1, 32)  # vector operations have more
    rate = derived.macs_per_pe(cfg, bits)
    memories = (
        derived.l3_capacity_bytes,
        derived.l2_capacity_bytes,
        derived.l1_capacity_bytes,
        derived.page_buffer_capacity_bytes,
    )
    return sum(memory(cfg) for memory in memories) + derived.pe_count(cfg) * (2 * rate * (ea + eb) + acc)


def least_bytes(cfg: Any, op: Any) -> tuple[np.ndarray, np.ndarray]:
    """(I/O bound, compulsory) bytes of dense GEMMs whose operands start and end in external memory.

    Words >= 2 MNK / sqrt(S) - 2 S, with S words of fast memory (Smith et al., 'A tight I/O lower bound for matrix
    multiplication', 2019). In bytes it holds with the narrowest format for both: no more words fit than S = fast
    bytes / narrowest width, and no word that moves is narrower. A batch is more products through the same memory.
    """
    ea, eb, ec, acc = element_bytes(op)
    width = np.minimum(np.minimum(ea, eb), np.minimum(ec, acc))
    words = fast_memory_bytes(cfg, op) / np.where(width > 0, width, 1)
    partial = width * (2 * op.batch * op.m * op.n * op.k / np.sqrt(words) - 2 * words)
    return partial, op.batch * (op.m * op.k * ea + op.k * op.n * eb + op.m * op.n * ec)


def test_no_less_traffic_than_any_schedule_needs(large):
    triples, report, fits = large
    op = triples.op
    external = (op.loc_a == 1) & (op.loc_b == 1) & (op.loc_c == 1)
    dense = fits & external & (op.kind == 0) & (op.density_a == 1) & (op.density_b == 1)
    moved = sum(report.reads["dram"].values()) + sum(report.writes["dram"].values())
    partial, whole = least_bytes(triples.cfg, op)
    print(
        f"{dense.sum()} dense external GEMMs; "
        f"in {np.sum(dense & (partial > whole))} the I/O bound exceeds the compulsory"
    )
    assert dense.sum() >= 0.1 * len(fits)
    assert_all(moved >= np.maximum(whole, partial) * (1 - ROUNDING), dense, triples, moved, whole, partial)


@pytest.mark.parametrize("count", [400, pytest.param(4000, marks=pytest.mark.long)])
def test_the_law_where_it_binds(count):
    """Large GEMMs on chips whose memories hold little: there the I/O bound exceeds the compulsory traffic."""
    triples = small_memories(15, count)
    report = in_chunks(bounded, *triples)
    fits = report.status_code == 0
    moved = sum(report.reads["dram"].values()) + sum(report.writes["dram"].values())
    partial, whole = least_bytes(triples.cfg, triples.op)
    binds = fits & (partial > whole)
    ratio = np.min(moved[binds] / partial[binds])
    print(f"binds in {binds.sum()} of {count}; the least traffic is {ratio:.3f} times the bound")
    assert binds.sum() >= 0.25 * count
    assert_all(moved >= partial * (1 - ROUNDING), fits, triples, moved, partial)


def small_memories(seed: int, count: int) -> Triple:
    """Dense GEMMs of some millions of MACs on chips with a few KiB on chip, under mappings shrunk to fit."""
    rng = np.random.default_rng(seed)
    chips = []
    for _ in range(40):
        sizes = {
            "memory_controller.page_buffer_count": 1,
            "memory_controller.page_buffer_capacity_kb": choose(rng, (0.25, 1)),
            "on_chip_memory.l3.tile_count": 1,
            "on_chip_memory.l3.tile_capacity_kb": log_integer(rng, 1, 16),
            "on_chip_memory.l2.bank_count": 1,
            "on_chip_memory.l2.bank_capacity_kb": log_integer(rng, 1, 8),
            "on_chip_memory.l1.buffer_capacity_kb": choose(rng, (0.03125, 0.0625, 0.25)),
            "compute.processor_array": {"rows": log_integer(rng, 1, 8), "cols": log_integer(rng, 1, 8)},
        }
        chips.append(preset("minimal").replace(sizes))
    ops = [
        Gemm(
            *(log_integer(rng, 200, 3000) for _ in range(3)), batch=int(rng.integers(1, 3)), dtype=choose(rng, DTYPES)
        ).plain()
        for _ in range(60)
    ]
    cfg, op = take(stack(chips), rng.integers(0, 40, count)), take(stack(ops), rng.integers(0, 60, count))
    triples = Triple(cfg, op, random_mapping(rng, op, cfg.compute.tile_count))
    return shrink_to_fit(rng, triples, chance=1.0)
