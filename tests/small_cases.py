"""Seeded random schedules, small enough to be walked block by block in plain Python."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from strategies import choose, matrix_options, random_conv

from kpu_jax.engines.rates import Gang, Rates
from kpu_jax.mapping import BUFFERINGS, DATAFLOWS, ORDERS, PASS_ORDERS, Mapping
from kpu_jax.program import Program, expand
from kpu_jax.program.build import assemble_moves
from kpu_jax.program.schedule import Schedule
from kpu_jax.workload import Conv, Gemm, VectorOp

NO_LIMIT = 1e30


class Case(NamedTuple):
    """One schedule: an operation, its mapping, and what it depends on of the chip."""

    op: Any
    mapping: Mapping
    rows: int
    cols: int
    rate: int  # multiply-adds of a PE per cycle
    burst: int  # [byte]

    def expand(self) -> Schedule:
        """Every move of it, in plain Python."""
        return expand(self.op, self.mapping, rows=self.rows, cols=self.cols, macs_per_pe=self.rate, burst=self.burst)

    def program(self) -> Program:
        """The program of it, for a chip that nobody asks whether it fits."""
        header = {"rows": self.rows, "cols": self.cols, "macs_per_pe": self.rate, "burst": self.burst}
        return assemble_moves(self.expand(), op=self.op, mapping=self.mapping, **{k: np.float64(v) for k, v in header.items()})

    def numbers(self) -> tuple[Any, ...]:
        """The same as arguments of a compiled function."""
        return self.op, self.mapping, *map(float, (self.rows, self.cols, self.rate, self.burst))


def small_case(rng: np.random.Generator, sides: tuple[int, int, int] | None = None) -> Case:
    """A GEMM, convolution or vector operation under any mapping; sides up to 13 unless given (then a GEMM)."""
    kind = 0 if sides else int(rng.choice(3, p=(0.6, 0.3, 0.1)))
    options = matrix_options(rng)
    if kind == 0:
        m, n, k = sides or (int(x) for x in rng.integers(1, 14, 3))
        op = Gemm(m, n, k, batch=choose(rng, (1, 2, 3, 3, 7, 12)), **options)
    elif kind == 1:
        op = random_conv(rng, side=7, channels=3, **options)
    else:
        function, per_element = choose(rng, ("add", "gelu", "softmax")), choose(rng, (1.0, 0.25))
        op = VectorOp(
            int(rng.integers(1, 60)),
            function=function,
            dtype=choose(rng, ("int8", "fp16")),
            outputs_per_element=per_element,
            data_on=options["data_on"],
        )
    l3 = _l3_tile(rng, op)
    parts = tuple(int(x) for x in rng.choice((1, 1, 1, 2, 3), 4))
    flow = int(rng.integers(3))
    mapping = Mapping(
        dataflow=DATAFLOWS[flow],
        l3_tile=l3,
        l2_tile=tuple(int(rng.integers(1, x + 1)) for x in l3),
        l3_order=choose(rng, ORDERS),
        l2_order=choose(rng, ORDERS),
        pass_order=choose(rng, PASS_ORDERS[2 * flow : 2 * flow + 2]),
        buffering=tuple(choose(rng, BUFFERINGS) for _ in range(3)),
        partition=parts,
    )
    rows, cols = (int(x) for x in rng.integers(1, 5, 2))
    return Case(op.plain(), mapping, rows, cols, choose(rng, (1, 2, 4)), choose(rng, (1, 16, 64)))


def late_share_of_k() -> Case:
    """The last L3 block is cut into more shares of K than those before: a compute tile joins C's stay in L2 late."""
    tiles = {"l3_tile": (1, 2, 4), "l2_tile": (1, 2, 1), "partition": (1, 1, 1, 3)}
    mapping = Mapping(dataflow="weight_stationary", l3_order="mnk", l2_order="mnk", buffering=("single",) * 3, **tiles)
    return Case(Gemm(1, 2, 7).plain(), mapping, rows=1, cols=1, rate=1, burst=1)


def many_batches() -> Case:
    """A batch loop that is long enough to be leapt over, and nothing else."""
    mapping = Mapping(l3_tile=(1, 1, 1), l2_tile=(1, 1, 1))
    return Case(Gemm(1, 1, 1, batch=16).plain(), mapping, rows=1, cols=1, rate=1, burst=1)


def several_images(images: int) -> Case:
    """A convolution whose images are walked in blocks of alike rows, with another first block each."""
    op = Conv(images, 8, 4, 2, 2, kernel=(3, 1), data_on="host").plain()
    return Case(op, Mapping(l3_tile=(4, 2, 6), l2_tile=(4, 2, 6)), rows=4, cols=4, rate=8, burst=1)


def _l3_tile(rng: np.random.Generator, op: Any) -> tuple[int, int, int]:
    beyond = int(rng.random() < 0.1)  # a tile may be larger than the operation
    m, n, k = (int(rng.integers(1, int(getattr(op, a)) + 1 + 3 * beyond)) for a in "mnk")
    if int(op.kind) == 1:
        width, image, kernel = int(op.out_w), int(op.out_h * op.out_w), int(op.kernel_h * op.kernel_w)
        rows = int(rng.integers(1, int(op.out_h) + 1)) * width
        m = rows if rng.random() < 0.7 else image * int(rng.integers(1, int(op.images) + 1))
        k = kernel * int(rng.integers(1, int(op.channels) + 1))
    return m, n, k


def small_size(case: Case) -> int:
    """How large a case is, for reporting the smallest one that fails."""
    return int(case.op.m * case.op.n * case.op.k * case.op.batch)


def dyadic_rates(rng: np.random.Generator, case: Case) -> Rates:
    """Rates whose durations are exact in binary: engines, buses, clocks, limits and latencies at random."""

    def gang(limit: float) -> Gang:
        bus, cycles, latency = (choose(rng, x) for x in ((1, 2, 4, 8, 64), (0.5, 1, 2), (0, 1, 5, 20)))
        return Gang(float(rng.integers(1, 5)), float(bus), float(cycles), limit, float(latency))

    overlap = bool(rng.random() < 0.7)
    preload = 0 if overlap or case.mapping.dataflow == 0 else case.rows
    bias = choose(rng, (0.5, 1.0, 3.0)) if case.op.has_bias else 0.0
    return Rates(
        host=Gang(1.0, NO_LIMIT, 0.0, float(choose(rng, (0.5, 2, 8))), float(choose(rng, (0, 7)))),
        dma=gang(choose(rng, (0.5, 2.0, 16.0, NO_LIMIT))),
        block_mover=gang(NO_LIMIT),
        streamer=gang(NO_LIMIT),
        bias=bias,
        activation=float(choose(rng, (1, 4))) if case.op.activation else 0.0,
        overlap=float(overlap),
        stream=1.0,
        element=float(rng.choice([1, 2.5, 8])),
        fill_drain=0.0 if case.op.kind == 2 else float(case.rows + case.cols - 2 + preload),
        unload=float(case.rows) if case.op.kind < 2 and case.mapping.dataflow == 0 and rng.random() < 0.5 else 0.0,
    )
