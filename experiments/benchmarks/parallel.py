"""How one sweep scales over cores, host devices of one process, and processes.

    python -m experiments.benchmarks.parallel [--chips 24576] [--repeats 3]

The same chips are screened (ResNet-50 and BERT-base, by the bound) by processes that start together, each with its own cores
(`--cores` of the machine shared out evenly), XLA host devices and share of the chips; their summaries are gathered by JAX's
runtime, which is part of the time. Compiled before; wall seconds of the slowest process (median, range), and the CPU
seconds of all. Every arrangement must give the same front.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

STUDY = Path(__file__).parents[1] / "which_kpu" / "million.toml"


class Arrangement(NamedTuple):
    """Cores in all, processes that share them, and host devices of each process."""

    cores: int
    processes: int
    devices: int


def share(arrangement: Arrangement, process: int, address: str, chips: int, repeats: int) -> None:
    """One process of an arrangement: screens its share of the chips; the first one prints what was found."""
    cores = sorted(os.sched_getaffinity(0))[process :: arrangement.processes][: arrangement.cores // arrangement.processes]
    os.sched_setaffinity(0, cores)  # before JAX makes its threads

    import kpu_jax as kpu
    from kpu_jax.explore.processes import Processes, join
    from kpu_jax.explore.screening import evaluate_range
    from kpu_jax.explore.summary import Summary

    if arrangement.processes > 1:
        join(address, arrangement.processes, process)
    together, study = Processes(), kpu.load_study(STUDY)
    start, stop = (chips * i // together.count for i in (process, process + 1))

    def screened() -> Summary:
        mine = evaluate_range(study.space, study.workload.ops, start, stop, constraints=study.constraints)
        return sum((Summary.from_arrays(arrays) for arrays in together.gather(mine.arrays())), Summary())

    summary, spent = screened(), []
    for _ in range(repeats):
        together.gather({})
        wall, cpu = time.perf_counter(), time.process_time()
        summary = screened()
        spent.append((time.perf_counter() - wall, time.process_time() - cpu))
    print(json.dumps({"spent": spent, "evaluations": summary.evaluations, "front": sorted(summary.front_ids.tolist())}))


def measured(arrangement: Arrangement, chips: int, repeats: int) -> list[dict]:
    """What the processes of an arrangement print."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={arrangement.devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "experiments.benchmarks.parallel", "--chips", str(chips), "--repeats", str(repeats),
             "--share", *map(str, (*arrangement, process)), address],
            stdout=subprocess.PIPE, text=True, env=environment,
        )
        for process in range(arrangement.processes)
    ]  # fmt: skip
    answers = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{arrangement}: a process ended with {[process.returncode for process in started]}")
    return [json.loads(answer.splitlines()[-1]) for answer in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=24_576)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="of the machine, at most")
    parser.add_argument("--share", nargs=5, help=argparse.SUPPRESS)  # cores, processes, devices, process, address
    args = parser.parse_args()
    if args.share:
        cores, processes, devices, process = map(int, args.share[:4])
        share(Arrangement(cores, processes, devices), process, args.share[4], args.chips, args.repeats)
        return
    whole, fronts, alone = args.cores, set(), None
    for arrangement in (Arrangement(1, 1, 1), Arrangement(whole, 1, 1), Arrangement(whole, 1, whole), Arrangement(whole, whole, 1)):
        found = measured(arrangement, args.chips, args.repeats)
        runs = list(zip(*(each["spent"] for each in found), strict=True))  # [repeat][process]
        wall = [max(seconds for seconds, _ in run) for run in runs]
        cpu = statistics.median(sum(seconds for _, seconds in run) for run in runs)
        middle = statistics.median(wall)
        alone = alone or middle
        fronts |= {tuple(each["front"]) for each in found}
        rate = found[0]["evaluations"] / middle / 1e6
        print(
            f"{arrangement.cores} cores, {arrangement.processes} processes of {arrangement.devices} devices: {middle:6.2f} s "
            f"({min(wall):.2f} to {max(wall):.2f}), {cpu:6.2f} s CPU, {rate:6.1f} M evaluations/s, {alone / middle:.2f} times one core",
            flush=True,
        )
    print("every arrangement gives the same front" if len(fronts) == 1 else f"{len(fronts)} different fronts")
    if len(fronts) != 1:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
