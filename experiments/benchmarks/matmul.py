"""How fast the machine multiplies: `Simulator.matmul` first and warm, and the stepped grid's cycles per second.

    python -m experiments.benchmarks.matmul [--sides 1024 2048]

Every result is waited for. The first product of a process compiles the choice of a mapping.
"""

from __future__ import annotations

import argparse
import functools
import time

import jax
import numpy as np

import kpu_jax as kpu


def timed(label: str, call) -> None:
    """Print how long `call` takes at first, and at best of five."""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    print(f"{label:<46} first {seconds[0]:7.3f} s, warm {min(seconds[1:]) * 1e3:9.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="*", default=[1024])
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"device: {jax.devices()[0].device_kind} ({jax.default_backend()})")
    with kpu.Simulator() as sim:
        a, b = rng.standard_normal((100, 200)).astype(np.float32), rng.standard_normal((200, 150)).astype(np.float32)
        timed("100 x 200 by 200 x 150, float32", lambda: sim.matmul(a, b))
        timed("the same in int8", lambda: sim.matmul(a, b, dtype="int8"))
        for side in args.sides:
            square = rng.standard_normal((side, side)).astype(np.float32)
            for flow in ("output_stationary", "weight_stationary"):
                mapping = kpu.best_mapping(sim.config, kpu.Gemm(side, side, side, dtype="fp32"), fixed={"dataflow": flow})
                timed(f"{side}^3, float32, {flow}", lambda s=square, m=mapping: sim.matmul(s, s, mapping=m))
    chip, mapping = kpu.presets.minimal(), kpu.Mapping(l3_tile=(64, 32, 64), l2_tile=(64, 32, 64))
    gemm = kpu.Gemm(64, 64, 64, dtype="fp32")
    program, square = kpu.program.build(chip, gemm, mapping), rng.standard_normal((64, 64)).astype(np.float32)
    for fabric in ("stepped", "tiles"):
        run = functools.partial(kpu.machine.run, program, {"A": square, "B": square}, fabric=fabric)
        timed(f"program of 64^3 on an 8 x 8 array, {fabric}", run)


if __name__ == "__main__":
    main()
