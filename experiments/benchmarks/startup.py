"""What a user waits for: the import, the first and the second call.

    python -m experiments.benchmarks.startup

Each line is measured in a process of its own; the import is what kpu_jax adds to importing jax.
"""

from __future__ import annotations

import subprocess
import sys

SETUP = """
import time
import jax
start = time.perf_counter()
import kpu_jax as kpu
imported = time.perf_counter() - start
cfg, gemm, net = kpu.presets.edge_ai(), kpu.Gemm(128, 768, 768), kpu.networks.resnet50()
mapping = kpu.Mapping(l3_tile=(128, 64, 384), l2_tile=(64, 32, 384), partition=(1, 2, 1, 1))
def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
"""
CASES = {
    "import after jax": "print(imported, imported)",
    "simulate, one GEMM": "call = lambda: kpu.simulate(cfg, gemm, mapping).check(); print(seconds(call), seconds(call))",
    "best_mapping, one GEMM": "call = lambda: kpu.best_mapping(cfg, gemm); print(seconds(call), seconds(call))",
    "best_mapping, ResNet-50": "call = lambda: kpu.best_mapping(cfg, net); print(seconds(call), seconds(call))",
    "jit(simulate), bound": "f = jax.jit(lambda c: kpu.simulate(c, gemm, mapping, timing='bound').cycles)\n"
    "call = lambda: f(cfg).block_until_ready(); print(seconds(call), seconds(call))",
    "jit(simulate), exact": "f = jax.jit(lambda c: kpu.simulate(c, gemm, mapping).cycles)\n"
    "call = lambda: f(cfg).block_until_ready(); print(seconds(call), seconds(call))",
    "jit(grad(simulate)), exact": "f = jax.jit(jax.grad(lambda c: kpu.simulate(c, gemm, mapping).cycles))\n"
    "call = lambda: jax.block_until_ready(f(cfg)); print(seconds(call), seconds(call))",
}


def main() -> None:
    print(f"{'':<28}{'first [s]':>10}{'second [s]':>12}")
    for name, code in CASES.items():
        out = subprocess.run([sys.executable, "-c", SETUP + code], capture_output=True, text=True, check=True).stdout
        first, second = (float(word) for word in out.split())
        print(f"{name:<28}{first:>10.2f}{second:>12.4f}", flush=True)


if __name__ == "__main__":
    main()
