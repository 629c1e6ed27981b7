"""Random programs with operands for the machine, of few array shapes so that few grids are compiled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from plain_model import Numbers, blocks_of, summed
from small_cases import Case, small_case

from kpu_jax.machine.formats import storage
from kpu_jax.program import Program
from kpu_jax.program.build import assemble_moves
from kpu_jax.workload.dtypes import FORMATS, NumberFormat

ARRAYS = ((2, 3, 1), (4, 2, 2), (3, 3, 4), (1, 1, 1))  # rows, cols, multiply-adds per PE
FEW = 1000  # seeds below use two of them
NAMED = {f.name: f for f in FORMATS}
BY_BITS = {False: {4: "int4", 8: "int8", 16: "int16", 32: "int32"}, True: {4: "fp4", 8: "fp8", 16: "bf16", 32: "fp32"}}


class Job(NamedTuple):
    """A program, its arrays and their formats."""

    case: Case
    program: Program
    arrays: dict[str, np.ndarray]
    c: NumberFormat
    acc: NumberFormat

    @property
    def is_float(self) -> bool:
        return bool(self.acc.is_float)

    def run(self, run: Any, fabric: str) -> Any:
        return run(self.program, self.arrays, c_dtype=self.c, acc_dtype=self.acc, fabric=fabric)


def job(seed: int) -> Job:
    """A GEMM or a convolution under any mapping, integer or float, sometimes with zeros among the operands."""
    rng = np.random.default_rng((71, seed))
    while (case := small_case(rng)).op.kind == 2 or (case.op.kind == 1 and case.op.m * case.op.n * case.op.k > 2000):
        pass
    arrays_used = ARRAYS[:2] if seed < FEW else ARRAYS
    rows, cols, rate = arrays_used[seed % len(arrays_used)]
    is_float = bool(seed // len(arrays_used) % 2)
    op = case.op
    case = case._replace(rows=rows, cols=cols, rate=rate)
    program = assemble_moves(case.expand(), op=op, mapping=case.mapping, rows=rows, cols=cols, macs_per_pe=rate, burst=case.burst)
    fa, fb, fc, acc = (NAMED[BY_BITS[is_float][int(bits)]] for bits in (op.a_bits, op.b_bits, op.c_bits, op.acc_bits))
    batch, m, n, k = (int(v) for v in (op.batch, op.m, op.n, op.k))
    if op.kind == 1:
        shape_a = (int(op.images), int(op.in_h), int(op.in_w), batch * int(op.channels))
        shape_b = (int(op.kernel_h), int(op.kernel_w), int(op.channels), batch * n)
    else:
        shape_a, shape_b = (batch, m, k), (batch, k, n)
    arrays = {"A": numbers(rng, shape_a, fa), "B": numbers(rng, shape_b, fb)}
    if op.has_bias:
        arrays["bias"] = numbers(rng, (batch * n if op.kind == 1 else n,), acc)
    return Job(case, program, arrays, fc, acc)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], fmt: NumberFormat) -> np.ndarray:
    """Random values of a format, a tenth of them zero."""
    values = rng.standard_normal(shape) * (rng.random(shape) > 0.1)
    if fmt.is_float:
        return values.astype(np.float32).astype(storage(fmt))
    top = 2 ** min(fmt.bits - 1, 12)
    return np.rint(np.clip(40 * values, -top, top - 1)).astype(np.int32).astype(storage(fmt))


def plain_result(job: Job) -> np.ndarray:
    """Accumulators [batch, m, n] by the plain model."""
    case, op = job.case, job.case.op
    a, b = plain_matrices(job)
    unit = int(op.m)
    if op.kind == 1 and case.mapping.l3_m < op.out_h * op.out_w:
        unit = int(op.out_h * op.out_w)
    tiles = {x: int(getattr(case.mapping, f"l3_{x}")) for x in "mnk"}
    l3 = {x: blocks_of(int(getattr(op, x)), tiles[x]) for x in "nk"}
    l3["m"] = [(first + s, first + e) for first in range(0, int(op.m), unit) for s, e in blocks_of(unit, tiles["m"])]
    k_of = list(range(int(op.k)))
    if op.kind == 1:  # k = (r, s, channel), a slice of channels at a time
        window, channels = int(op.kernel_h * op.kernel_w), int(op.channels)
        k_of = [w * channels + c for s, e in l3["k"] for w in range(window) for c in range(s // window, e // window)]
    arithmetic = Numbers(job.is_float, job.acc.bits, lambda x: float(np.float32(x).astype(storage(job.acc))))
    plain = np.vectorize(float if job.is_float else int, otypes=[object])
    biases = job.arrays.get("bias")
    out = []
    for e in range(int(op.batch)):
        own = None if biases is None else plain(biases.reshape(int(op.batch), -1)[e] if op.kind == 1 else biases)
        out.append(summed(plain(a[e]), plain(b[e]), own, case.mapping, case.rows, case.cols, case.rate, arithmetic, l3, k_of))
    return np.array(out, np.float32 if job.is_float else np.int32)


def plain_matrices(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """A [batch, m, k] (a convolution's windows, one by one) and B [batch, k, n]."""
    op, a, b = job.case.op, job.arrays["A"], job.arrays["B"]
    if op.kind != 1:
        return a, b
    batch, channels, n = int(op.batch), int(op.channels), int(op.n)
    windows = np.zeros((batch, int(op.m), int(op.k)), a.dtype)
    places = [(i, p, q) for i in range(int(op.images)) for p in range(int(op.out_h)) for q in range(int(op.out_w))]
    taps = [(r, s, c) for r in range(int(op.kernel_h)) for s in range(int(op.kernel_w)) for c in range(channels)]
    for m, (image, p, q) in enumerate(places):
        for k, (r, s, c) in enumerate(taps):
            y = p * int(op.stride_h) - int(op.pad_top) + r * int(op.dilation_h)
            x = q * int(op.stride_w) - int(op.pad_left) + s * int(op.dilation_w)
            if 0 <= y < a.shape[1] and 0 <= x < a.shape[2]:
                for g in range(batch):
                    windows[g, m, k] = a[image, y, x, g * channels + c]
    filters = [b.reshape(-1, batch, n)[:, g] for g in range(batch)]
    return windows, np.stack(filters)


def delivered_by_numpy(job: Job, sums: np.ndarray) -> np.ndarray:
    """ReLU or nothing, rounded and saturated to C's format by NumPy and ml_dtypes."""
    x = np.maximum(sums, 0) if job.case.op.activation == 1 else sums
    if not job.c.is_float:
        info = {4: 7, 8: 127, 16: 32767, 32: 2**31 - 1}[job.c.bits]
        return np.clip(np.rint(x), -info - 1, info).astype(storage(job.c))
    top = {"fp4": 6.0, "fp8": 448.0}.get(job.c.name, np.inf)
    return np.clip(x.astype(np.float32), -top, top).astype(storage(job.c))
