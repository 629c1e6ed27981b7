"""What an executed program says: which engines work, what the others wait for, what is moved and held."""

from __future__ import annotations

import numpy as np

from kpu_jax.analysis.occupancy import MEMORIES, stays
from kpu_jax.base.errors import KPUError
from kpu_jax.base.tables import Row
from kpu_jax.model.traffic import LEVELS
from kpu_jax.program import Program, Timeline, traffic

REMEDIES = {
    "operand": "waits for data: fetch earlier (double buffering), or speed up what brings them",
    "buffer": "waits for room: more places (double buffering), or smaller blocks",
    "engine": "waits for another engine",
    "bandwidth": "waits for the memory behind it: more bandwidth, or fewer bytes",
    "finished": "is done before the others: smaller last blocks",
    "none": "waits for its start",
}


def check_run(what: str, timeline: object, program: object = None) -> tuple[Timeline, Program | None]:
    """A concrete timeline, and the program that it is of, or a `KPUError` that begins with `what`."""
    if not isinstance(timeline, Timeline):
        raise KPUError(f"{what} needs the timeline of kpu.program.execute(chip, program), got {type(timeline).__name__}")
    if not all(isinstance(leaf, (np.ndarray, np.generic)) for leaf in timeline) or np.ndim(timeline.makespan):
        raise KPUError(f"{what}: the timeline is traced or stacked; give one concrete run")
    if not all(np.isfinite(leaf).all() for leaf in timeline):
        raise KPUError(f"{what}: the timeline holds times that are not finite: give it as kpu.program.execute made it")
    if program is not None and (not isinstance(program, Program) or len(program) != len(timeline.start)):
        raise KPUError(f"{what}: the program must be the one that this timeline is of, with {len(timeline.start):,} instructions")
    if not float(timeline.makespan) > 0:
        raise KPUError(f"{what}: nothing takes any time in this run: there is nothing to analyse")
    return timeline, program  # type: ignore[return-value]


def run_tables(timeline: Timeline, program: Program | None) -> dict[str, list[Row]]:
    """Summary, engines with what they wait for, and, of a program, bytes by level and the most held in each memory."""
    makespan = float(timeline.makespan)
    summary: list[Row] = [
        {"quantity": "makespan", "value": makespan, "unit": "fabric cycles"},
        {"quantity": "instructions", "value": float(len(timeline.start)), "unit": "count"},
    ]
    engines: list[Row] = [{**row, "busy %": 100 * row["busy"] / makespan} for row in timeline.rows()]
    tables: dict[str, list[Row]] = {"summary": summary, "cycles busy, and idle by what is waited for": engines}
    if program is None:
        return tables
    macs = float(np.sum(program.macs))
    m = program.mapping
    tiles = float(m.partition_b * m.partition_m * m.partition_n * m.partition_k)
    peak = float(program.rows) * float(program.cols) * float(program.macs_per_pe) * tiles
    summary += [
        {"quantity": "multiply-adds", "value": macs, "unit": "count"},
        {"quantity": "achieved", "value": macs / makespan, "unit": "multiply-adds per cycle"},
        {"quantity": "peak of the compute tiles used", "value": peak, "unit": "multiply-adds per cycle"},
        {"quantity": "utilization of these", "value": 100 * macs / makespan / peak, "unit": "%"},
    ]
    moved = dict.fromkeys(LEVELS, 0.0)
    for (_, level, _), size in traffic(program).items():
        moved[level] += size
    held = _most_held(program, timeline)
    tables["memories"] = [
        {"level": level, "read and written [byte]": size, "MACs per byte": macs / size, "most held [byte]": held.get(level)}
        for level, size in moved.items() if size
    ]  # fmt: skip
    return tables


def run_advice(timeline: Timeline) -> list[str]:
    """What the busiest engine waits for, longest first: no more than this can be won without making it faster."""
    makespan, busy = float(timeline.makespan), timeline.busy_by_engine()
    busiest = max(busy, key=lambda name: busy[name])
    share = busy[busiest] / makespan
    lines = [f"the {busiest} works longest: {share:.0%} of the time; no order of its work is faster than {busy[busiest]:,.0f} cycles"]
    for reason, cycles in sorted(timeline.idle_by_reason().get(busiest, {}).items(), key=lambda item: -item[1]):
        if cycles > 0.01 * makespan:
            lines.append(f"the {busiest} {REMEDIES[reason]}: {cycles / makespan:.0%} of the time")
    return lines


def _most_held(program: Program, timeline: Timeline) -> dict[str, float]:
    """The most bytes that each memory holds at once."""
    found, most = stays(program, timeline), {}
    for index, memory in enumerate(MEMORIES):
        own = found.memory == index
        if own.any():
            times = np.concatenate([found.end[own], found.start[own]])  # at equal times a block leaves before the next comes
            sizes = np.concatenate([-found.bytes[own], found.bytes[own]])
            most[memory] = float(np.cumsum(sizes[np.argsort(times, kind="stable")]).max())
    return most
