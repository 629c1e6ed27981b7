"""Throughput of programs: instructions built, prepared and executed per second, in one program and over many chips.

    python -m experiments.benchmarks.executor [--side 512] [--chips 64]

A GEMM of side x side x side in tiles of 16 x 16 x 16. Everything compiled and warmed up before timing, every result waited for.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import kpu_jax as kpu
from kpu_jax.engines.rates import rates_of
from kpu_jax.program import Program, build, cycles, execute, wire
from kpu_jax.program.durations import durations
from kpu_jax.program.executor import makespan, starts


def example(side: int) -> tuple[Any, Program]:
    """A chip with an array of 16 x 16 PEs, and its program of side^3 in tiles of 16^3."""
    cfg = kpu.presets.minimal().replace({"compute.processor_array": {"rows": 16, "cols": 16}})
    tile = {"l3_tile": (16, 16, 16), "l2_tile": (16, 16, 16)}
    return cfg, build(cfg, kpu.Gemm(side, side, side, dtype="fp32"), kpu.Mapping(**tile))


def timed(what: str, count: float, run: Callable[[], Any], repeats: int = 3) -> None:
    """Print the first call's extra time (compilation) and the best warm one."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    first = time.perf_counter() - start
    warm = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        warm.append(time.perf_counter() - start)
    best = min(warm)
    print(f"{what}: first {first:.2f} s, warm {best:.3f} s, {count / best / 1e6:,.2f} million instructions per second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--chips", type=int, default=64)
    args = parser.parse_args()
    print(f"device: {jax.devices()[0].device_kind} ({jax.default_backend()}), float64")
    example(32)
    start = time.perf_counter()
    cfg, program = example(args.side)
    n, seconds = len(program), time.perf_counter() - start
    print(f"build: {n:,} instructions in {seconds:.1f} s")
    start = time.perf_counter()
    wiring = wire(program)
    seconds = time.perf_counter() - start
    print(f"wire: {seconds:.2f} s, {n / seconds / 1e6:.2f} million instructions per second; {len(wiring.state)} places")
    flow = program.mapping.dataflow
    speeds = cfg.clocks.fabric_mhz * np.linspace(0.5, 2.0, args.chips)
    chips = jax.tree.map(lambda *v: np.stack(v), *(cfg.replace({"clocks.fabric_mhz": mhz}) for mhz in speeds))
    with jax.enable_x64(True):
        d = durations(wiring.kinds, rates_of(cfg, program.op, flow), wiring.vector)
        one_start, one_end = jax.jit(starts), jax.jit(makespan)
        many = jax.jit(jax.vmap(cycles, in_axes=(0, None, None, None)))
        timed("scan, start of every instruction", n, lambda: one_start(wiring, d.hold, d.delay))
        timed("scan, makespan only", n, lambda: one_end(wiring, d.hold, d.delay))
        timed(f"scan, makespan of {args.chips} chips at once", n * args.chips, lambda: many(chips, program.op, flow, wiring), 1)
    timed("execute, with wiring and the account of idle time", n, lambda: execute(cfg, program).start)


if __name__ == "__main__":
    main()
