"""What a faster engine would give: predicted by the gradient of the exact time, and simulated again."""

from __future__ import annotations

from kpu_jax.analysis.slopes import Slopes, simulate_chips, slopes_of
from kpu_jax.analysis.subjects import table_of
from kpu_jax.base.pytree import get_path
from kpu_jax.base.tables import Row
from kpu_jax.hardware import KPUConfig
from kpu_jax.hardware.fields import FIELDS
from kpu_jax.mapping import Mapping
from kpu_jax.workload import Op, Workload

_VECTOR = tuple(path for path in FIELDS if path.startswith("vector."))
TWICE_AS_FAST: dict[str, dict[str, float]] = {  # engine class -> field: factor, such that its durations and latencies halve
    "host": {"host_memory.bandwidth_gbps": 2.0, "latency.host_ns": 0.5},
    "dma": {
        "external_memory.bandwidth_gbps": 2.0, "memory_controller.bandwidth_gbps": 2.0, "clocks.dma_mhz": 2.0, "latency.external_ns": 0.5
    },
    "block_mover": {"clocks.block_mover_mhz": 2.0, "latency.block_mover_ns": 0.5},
    "streamer": {"clocks.streamer_mhz": 2.0, "latency.streamer_ns": 0.5},
    "vector": dict.fromkeys(_VECTOR, 0.5),
    "fabric": {"clocks.fabric_mhz": 2.0, **dict.fromkeys(_VECTOR, 2.0)},  # the vector engine counts in the fabric's cycles
}  # fmt: skip
REMEDY = {"host": "host link", "dma": "external memory and DMA", "block_mover": "block movers", "streamer": "streamers",
          "vector": "vector engine", "fabric": "fabric clock"}  # fmt: skip


def what_if(chip: KPUConfig, workload: Op | Workload, mapping: Mapping) -> list[Row]:
    """Per engine class: its cycles on the critical path, and the change [%] of time and energy if it were twice as fast.

    Predicted: half of its part, by the gradient. The exact time is convex in the scale of a class, so no more than this can be
    won. Simulated: exact time and energy of the chip with the fields of `TWICE_AS_FAST` changed. Empty cells: a class that is not on
    the path, or fields that would leave their ranges. Raises as `sensitivity` does.
    """
    ops, mappings = table_of("what_if", chip, workload, mapping)
    here = slopes_of(chip, ops, mappings)
    parts = sorted(here.parts.items(), key=lambda item: -item[1])
    rows = {name: _row(name, cycles, here) for name, cycles in parts}
    chips = {name: chip.replace(fields) for name, cycles in parts if cycles > 0 and (fields := _fields(chip, name))}
    for name, (seconds, energy) in zip(chips, simulate_chips(list(chips.values()), ops, mappings).tolist(), strict=True):
        rows[name] |= {
            "predicted time %": -50 * here.parts[name] / here.cycles,
            "simulated time %": 100 * (seconds / here.seconds - 1),
            "simulated energy %": 100 * (energy / here.energy_pj - 1),
        }
    return list(rows.values())


def _row(name: str, cycles: float, here: Slopes) -> Row:
    empty = dict.fromkeys(("predicted time %", "simulated time %", "simulated energy %"))
    return {"class": name, "cycles": cycles, "share %": 100 * cycles / here.cycles, **empty}


def _fields(chip: KPUConfig, engine: str) -> dict[str, float]:
    """The changed fields, or none if one of them would leave its range."""
    changed = {path: factor * float(get_path(chip, path)) for path, factor in TWICE_AS_FAST[engine].items() if float(get_path(chip, path))}
    return changed if all(FIELDS[path].low <= value <= FIELDS[path].high for path, value in changed.items()) else {}


def advice_of(rows: list[Row]) -> list[tuple[float, str]]:
    """(share of the time saved, words) of every class whose doubled speed saves more than 1 %."""
    found = []
    for row in rows:
        gain = -(row["simulated time %"] or 0.0)
        if gain > 1:
            words = f"twice as fast {REMEDY[row['class']]}: {-gain:.1f} % time, {row['simulated energy %']:+.1f} % energy (simulated)"
            found.append((gain / 100, words))
    return found
