"""What a network on the chip comes to: totals, every operation, what was saved and how, pipeline and critical path."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from kpu_jax.base.pytree import record
from kpu_jax.base.tables import Sheet
from kpu_jax.graph.attention import Block
from kpu_jax.graph.epilogue import Fused
from kpu_jax.graph.host import HostTransfer
from kpu_jax.graph.paths import NetworkPath, engine_cycles, longest_path
from kpu_jax.graph.pieces import Piece, Places
from kpu_jax.graph.pipeline import Pipeline, pipeline_of
from kpu_jax.hardware import KPUConfig
from kpu_jax.mapping import Mapping
from kpu_jax.model.report import Report
from kpu_jax.workload import HostWork, Workload


class Totals(NamedTuple):
    """A network up to one stage of planning, host transfers aside."""

    external_bytes: float  # read and written at external memory [byte]
    seconds: float  # operations one after the other [s]
    energy_pj: float  # [pJ]


class Attention(NamedTuple):
    """A place where scores need not leave the chip, and what was chosen. Bytes and times of all repeats."""

    name: str  # of the operation that mixes the values
    chosen: bool
    block: Block | None  # heads and rows of Q at once; None: not even one row of scores fits L3
    blocked: Totals | None  # by row blocks
    apart: Totals  # operation by operation, scores in L3 where they fit whole


class KeptResult(NamedTuple):
    """A result that stays in L3."""

    name: str  # of the operation that makes it
    bytes: float
    until: str  # the last operation that reads it from there
    written: bool  # to external memory, too


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """How a network runs. Host only; a pytree without leaves."""

    cfg: KPUConfig
    workload: Workload  # the operations as they run: fused, cut into blocks, with their operands' places
    mappings: Mapping  # [row of `workload`]
    pieces: tuple[Piece, ...]
    places: tuple[Places, ...]  # per piece
    steps: tuple[tuple[int, int], ...]  # per piece: its first operation in `workload`, and the one after its last
    whole: tuple[Piece, ...]  # the graph before attention was cut into blocks, which the pipeline takes
    stages: dict[str, Totals]  # "none", then each policy applied, in order
    asked_bytes: tuple[float, ...]  # external bytes of every operation asked for, alone
    asked_names: tuple[str, ...]
    fused: tuple[Fused, ...]
    attention: tuple[Attention, ...]
    kept: tuple[KeptResult, ...]
    optimal: bool  # no set of results in L3 was dropped (`graph.residency`)
    host_work: tuple[HostWork, ...]
    transfers: tuple[HostTransfer, ...]


@record
class NetworkReport(Report):
    """A `Report` of a whole network as a graph; `per_op` has one entry per row of `plan.workload`.

    Totals are the operations in order, one after the other on all compute tiles, and the transfers of host work: nothing
    overlaps between operations. Traffic, cycles and energy of every operation are exact (`kpu.simulate`).
    """

    plan: Any = None

    @property
    def savings(self) -> dict[str, Totals]:
        """Totals after each policy: "none", "fusion", "attention", "residency"; exact, host transfers aside."""
        return dict(self.plan.stages)

    @functools.cached_property
    def pipeline(self) -> Pipeline:
        """Layers on disjoint groups of compute tiles (`graph.pipeline`); searched when first asked for."""
        in_turn = list(self.plan.stages.values())[-1].seconds
        return pipeline_of(self.plan.cfg, self.plan.whole, in_turn, sum(t.seconds for t in self.plan.transfers))

    @functools.cached_property
    def critical_path(self) -> NetworkPath:
        """The longest path by dependence, and cycles by engine class; differentiated when first asked for."""
        plan: Plan = self.plan
        engines = engine_cycles(plan.cfg, plan.workload, plan.mappings)
        hz = float(plan.cfg.clocks.fabric_mhz) * 1e6
        host = [t.seconds * hz for t in plan.transfers]
        count = len(plan.workload)
        cycles = [*np.sum(list(engines.values()), axis=0), *host]
        path = longest_path(cycles, _dependences(plan))
        names = [*plan.workload.names, *(t.name for t in plan.transfers)]

        def split(nodes: list[int]) -> dict[str, float]:
            inside = [n for n in nodes if n < count]
            parts = {name: float(np.sum(each[inside])) for name, each in engines.items()}
            parts["host"] += sum(cycles[n] for n in nodes if n >= count)
            return parts

        return NetworkPath(
            float(sum(cycles)), split(list(range(len(cycles)))), tuple(names[n] for n in path),
            float(sum(cycles[n] for n in path)), split(path),
        )  # fmt: skip

    def table(self) -> list[dict[str, Any]]:
        """One row per node of the graph in order, with the operations that it does and the bytes that it saves; host work last.

        `saved_bytes`: external bytes of those operations each alone (without host work) less those here.
        """
        plan: Plan = self.plan
        count = np.asarray(plan.workload.ops.count)
        repeats = plan.workload.repeats or (1,) * len(plan.workload)
        dram = sum(self.per_op.traffic["dram"].values())
        rows: list[dict[str, Any]] = []
        for piece, places, (start, stop) in zip(plan.pieces, plan.places, plan.steps, strict=True):
            shares = {i: repeats[i] / count[plan.workload.row_of[i]] for i in range(start, stop)}

            def share(values: Any, shares: dict[int, float] = shares) -> float:
                return float(sum(values[plan.workload.row_of[i]] * part for i, part in shares.items()))

            external = share(dram)
            rows.append(
                {
                    "operation": piece.name,
                    "does": " + ".join(plan.asked_names[i] for i in piece.parts),
                    "repeats": piece.repeats,
                    "in_l3": "".join(x for x, there in zip("ABC", places[:3], strict=True) if there),
                    "latency_ms": share(self.per_op.seconds) * 1e3,
                    "energy_mj": share(self.per_op.energy_pj) * 1e-9,
                    "external_bytes": external,
                    "saved_bytes": sum(plan.asked_bytes[i] for i in piece.parts) - external,
                }
            )
        for t in plan.transfers:
            moved = t.bytes_to_host + t.bytes_from_host
            rows.append(
                {
                    "operation": t.name, "does": f"on the host: {t.reason}", "repeats": t.repeats, "in_l3": "",
                    "latency_ms": t.seconds * 1e3, "energy_mj": t.energy_pj * 1e-9, "external_bytes": moved, "saved_bytes": 0.0,
                }
            )  # fmt: skip
        return rows

    def sheet(self) -> Sheet:
        """What prints: that of a `Report`, then totals after each policy, what was done, and the host's work."""
        sheet = Report.sheet(self)
        if self.plan is None:
            return sheet
        plan: Plan = self.plan
        lines = []
        for name, totals in plan.stages.items():
            external, ms, mj = totals.external_bytes, totals.seconds * 1e3, totals.energy_pj * 1e-9
            lines.append(f"{name:<10}{external:>18,.0f} B external {ms:>14,.4g} ms {mj:>12,.4g} mJ")
        done = [f"{len(plan.fused)} operations fused into products", f"{len(plan.kept)} results stay in L3"]
        done.append(f"{sum(a.chosen for a in plan.attention)} of {len(plan.attention)} attentions by row blocks")
        lines.append(", ".join(done) + ("" if plan.optimal else " (heuristic: sets of results were dropped)"))
        for t in plan.transfers:
            lines.append(f"on the host: {t.name} ({t.reason}), {t.bytes_to_host:,.0f} B there, {t.bytes_from_host:,.0f} B back")
        return dataclasses.replace(sheet, notes=[*sheet.notes, *lines])


def _dependences(plan: Plan) -> dict[int, list[int]]:
    """Node -> what it waits for; host work comes after the operations of the workload."""
    count = len(plan.workload)
    before = {i: [int(p) for p in row if p >= 0] for i, row in enumerate(np.asarray(plan.workload.predecessors))}
    made_by = {part: stop - 1 for piece, (_, stop) in zip(plan.pieces, plan.steps, strict=True) for part in piece.parts}
    first_of = {part: start for piece, (start, _) in zip(plan.pieces, plan.steps, strict=True) for part in piece.parts}
    for h, work in enumerate(plan.host_work):
        reads = [t for t in work.origin.reads if not t.carried]
        own = {made_by[p] for t in reads for p in t.producers} | {count + other for t in reads for other in t.host if other != h}
        before[count + h] = sorted(own)
        for reader in work.readers:
            if first_of[reader] not in own:
                before[first_of[reader]].append(count + h)
    return before
