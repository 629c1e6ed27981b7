"""A small sweep in a process of its own, for tests that kill it: python swept.py STORE RESULT [coordinator processes process]."""

import os
import sys
import time

import numpy as np

import kpu_jax as kpu
from kpu_jax.explore import screening
from kpu_jax.explore.processes import join

FIELDS = {"compute.tile_count": [1, 2, 4, 8], "on_chip_memory.l2.bank_count": [4, 8, 16], "clocks.fabric_mhz": [500, 1000]}


def main(store: str, result: str, *where: str) -> None:
    join(*((where[0], int(where[1]), int(where[2])) if where else (None, None, None)))
    screening.BLOCK_EVALUATIONS = 400  # one geometry a block: many parts
    if "DIE_AT" in os.environ:
        at, process = os.environ["DIE_AT"].split(":")
        if process == where[2]:
            whole, calls = screening.evaluate_block, []

            def dying(*arguments):
                calls.append(1)
                return os._exit(9) if len(calls) == int(at) else whole(*arguments)

            screening.evaluate_block = dying
    clock = float(os.environ.get("CLOCK_SKEW", "0"))
    if clock:
        now = time.time
        time.time = lambda: now() + clock
    net = kpu.Workload.from_ops([("a", kpu.Gemm(96, 200, 150)), ("b", kpu.Gemm(64, 64, 512, count=3))])
    found = kpu.sweep(FIELDS, net, retime_chips=10, store=store or None)
    if not where or where[2] == "0":
        r = found.retimed
        np.savez(result, **found.summary.arrays(), ids=r.ids, seconds=r.seconds, energy=r.energy_pj, mapped=r.mapped_for)


if __name__ == "__main__":
    main(*sys.argv[1:])
