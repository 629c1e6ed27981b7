"""A small sweep in a process of its own, for tests that kill it: python swept.py STORE RESULT [coordinator processes process]."""

import os
import sys
import time

import numpy as np

import kpu_jax as kpu
from kpu_jax.explore import blocks, screening
from kpu_jax.explore.processes import join, leave
from kpu_jax.explore.watched import AGAIN, is_watched, report_to_parent, watch

FIELDS = {
    "compute.tile_count": [1, 2, 4, 8],
    "on_chip_memory.l2.bank_count": [4, 8, 16],
    "on_chip_memory.l1.buffer_capacity_kb": [1, 2, 4, 8],
    "clocks.fabric_mhz": [500, 1000],
}


def main(store: str, result: str, *where: str) -> int:
    report_to_parent()
    if where and not is_watched():
        return watch([sys.executable, *sys.argv], store)
    join(*((where[0], int(where[1]), int(where[2])) if where else (None, None, None)))
    blocks.BLOCK_EVALUATIONS = 400  # one geometry a block, and a part: many parts
    pause, at, process = float(os.environ.get("PAUSE", "0")), *os.environ.get("DIE_AT", "0:").split(":")
    whole, calls = screening.evaluate_block, []

    def slowed(*arguments):
        calls.append(1)
        time.sleep(pause)
        return os._exit(9) if len(calls) == int(at) and process == where[2] else whole(*arguments)

    screening.evaluate_block = slowed
    clock = float(os.environ.get("CLOCK_SKEW", "0"))
    now = time.time
    time.time = lambda: now() + clock
    net = kpu.Workload.from_ops([("a", kpu.Gemm(96, 200, 150)), ("b", kpu.Gemm(64, 64, 512, count=3))])
    found = kpu.sweep(FIELDS, net, retime_chips=10, store=store or None)
    if not where or where[2] == "0":
        r = found.retimed
        np.savez(result, **found.summary.arrays(), ids=r.ids, seconds=r.seconds, energy=r.energy_pj, mapped=r.mapped_for)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except kpu.KPUError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(leave(AGAIN))
