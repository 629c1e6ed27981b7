"""The same work on SCALE-Sim, ZigZag, AccelForge and kpu_jax, in turn.

    python -m experiments.benchmarks.peers [--repeats 3] [--only zigzag ...] [--quick]

The first run makes an environment for each peer under build/peers with pip; a peer that cannot be installed is left out
with the reason. Work: one int8 product under one mapping; the same on 1,000 chips; the search for the mapping of least
energy; the distinct products of a BERT-base encoder at 32 tokens. All tools have external memory, L3, L2 and a 32 x 32 array
(SCALE-Sim: L3 alone), and one byte per element. SCALE-Sim and AccelForge's latency aside, kpu_jax alone gives exact times.

Each figure is CPU seconds of the tool's process (wall seconds would measure what else runs here), the median of the repeats
with their range; kpu_jax's first call, which compiles, stands apart. A sweep is timed on fewer points where a tool is slow
(`--points`), and multiplied. A ratio is theirs over ours.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.benchmarks.peers.environments import OURS, PEERS, Driver, Missing

POINTS = 1000
SLOW = 10.0  # CPU seconds from which a peer's call is not repeated
CHIP = {"rows": 32, "cols": 32, "l3_bytes": 1 << 20, "l2_bytes": 64 << 10, "dram_pj": 64, "l3_pj": 8, "mac_pj": 1}
SMALL, LARGE = [64, 64, 64], [128, 768, 768]
BERT_32 = [[32, 768, 768], [32, 32, 64], [32, 64, 32], [32, 3072, 768], [32, 768, 3072]]


class Spent(NamedTuple):
    """CPU seconds: median, least, most; and the first call's."""

    median: float
    least: float
    most: float
    first: float

    def __str__(self) -> str:
        spread = f"{_seconds(self.least)} to {_seconds(self.most)}" if self.most > self.least else "once"
        return f"{_seconds(self.median)} ({spread})"


def _seconds(s: float) -> str:
    return f"{s:.3g} s" if s >= 1 else f"{s * 1e3:.3g} ms" if s >= 1e-3 else f"{s * 1e6:.3g} us"


def chips(count: int) -> list[dict[str, Any]]:
    """Chips that differ in what L3 holds."""
    return [{**CHIP, "l3_bytes": (1 << 20) + 1024 * i} for i in range(count)]


class Task(NamedTuple):
    """A piece of work and who can do it; `of`: the part of it that a peer is timed on."""

    name: str
    peers: tuple[str, ...]
    do: str
    job: dict[str, Any]
    of: int = 1  # a peer's figure is multiplied by this
    peer_job: dict[str, Any] | None = None


def tasks(points: int) -> list[Task]:
    everyone = tuple(peer.name for peer in PEERS)
    mappers = ("zigzag", "accelforge")

    def sweep(timing: str) -> Task:
        job = {"chips": chips(POINTS), "gemm": SMALL, "timing": timing}
        few = {"chips": chips(points), "gemm": SMALL}
        return Task(f"1,000 chips, 64^3, {timing} time", everyone, "sweep", job, POINTS // points, few)

    return [
        Task("one evaluation, 64^3", everyone, "evaluate", {"chip": CHIP, "gemm": SMALL}),
        Task("one evaluation, 128 x 768 x 768", everyone, "evaluate", {"chip": CHIP, "gemm": LARGE}),
        sweep("exact"),
        sweep("bound"),
        Task("mapping search, 128 x 768 x 768", mappers, "search", {"chip": CHIP, "gemm": LARGE}),
        Task("mappings of BERT-base, 32 tokens", mappers, "network", {"chip": CHIP, "gemms": BERT_32}),
        Task("BERT-base, 32 tokens, no search", ("scale_sim",), "network", {"chip": CHIP, "gemms": BERT_32}),
    ]


def measure(ours: Driver, peers: Sequence[Driver], task: Task, repeats: int) -> dict[str, Spent]:
    """Everyone in turn, `repeats` times, after one call of ours that compiles. A peer that fails is left out, with its words."""
    first = ours.ask(task.do, **task.job)["seconds"]["cpu"]
    found: dict[str, list[float]] = {driver.peer.name: [] for driver in (ours, *peers)}
    firsts = {"kpu": first}
    failed: set[str] = set()
    for _ in range(repeats):
        found["kpu"].append(ours.ask(task.do, **task.job)["seconds"]["cpu"])
        for driver in peers:
            name = driver.peer.name
            if name in failed or max(found[name], default=0.0) > SLOW * task.of:
                continue
            try:
                spent = task.of * driver.ask(task.do, **(task.peer_job or task.job))["seconds"]["cpu"]
            except Missing as trouble:
                failed.add(name)
                print(f"  left out: {trouble}")
                continue
            found[name].append(spent)
            firsts.setdefault(name, spent)
    return {name: Spent(statistics.median(s), min(s), max(s), firsts[name]) for name, s in found.items() if s}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.peers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--points", type=int, default=20, help="points of a sweep that a peer is timed on (1000: all)")
    parser.add_argument("--only", nargs="*", choices=[peer.name for peer in PEERS], help="these peers alone")
    parser.add_argument("--quick", action="store_true", help="the first four pieces of work, once")
    args = parser.parse_args(argv)
    if not 1 <= args.points <= POINTS:
        parser.error(f"--points must be from 1 to {POINTS}")
    peers: list[Driver] = []
    for peer in PEERS:
        if args.only is not None and peer.name not in args.only:
            continue
        try:
            peers.append(Driver(peer))
        except Missing as reason:
            print(f"left out: {reason}")
    ours = Driver(OURS)
    print("import: " + ", ".join(f"{d.peer.name} {_seconds(d.imported['cpu'])}" for d in (ours, *peers)))
    for task in tasks(args.points)[: 4 if args.quick else None]:
        print(f"\n{task.name}")
        able = [driver for driver in peers if driver.peer.name in task.peers]
        found = measure(ours, able, task, 1 if args.quick else args.repeats)
        mine = found.pop("kpu")
        print(f"  {'kpu_jax':<12}{str(mine):<40}first call {_seconds(mine.first)}")
        for name, spent in found.items():
            timed = f", {task.of} x {POINTS // task.of} points" if task.of > 1 else ""
            low, high = spent.least / mine.most, spent.most / mine.least
            ratio = f"{spent.median / mine.median:,.0f} times ours ({low:,.0f} to {high:,.0f})"
            print(f"  {name:<12}{str(spent):<40}{ratio}{timed}", flush=True)
    for driver in (ours, *peers):
        driver.close()


if __name__ == "__main__":
    sys.exit(main())
