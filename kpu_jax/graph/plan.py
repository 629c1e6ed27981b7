"""A network on the chip as a graph: what is fused, what stays in L3, what the host does, and what it costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, check_choice
from kpu_jax.base.pytree import build, is_traced
from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.explore.mix import value_of
from kpu_jax.graph.attention import Block, Site, blocks_of, find_sites
from kpu_jax.graph.epilogue import Fused, fuse_epilogues
from kpu_jax.graph.host import transfer_of, with_transfers
from kpu_jax.graph.pieces import Piece, Places, Step, pieces_of
from kpu_jax.graph.prices import Prices, Weights, stack
from kpu_jax.graph.report import Attention, KeptResult, NetworkReport, Plan, Totals
from kpu_jax.graph.residency import Cost, Residency, keep_results
from kpu_jax.hardware import KPUConfig, check_config
from kpu_jax.mapping import Mapping
from kpu_jax.model.concrete import report_of
from kpu_jax.model.report import Report
from kpu_jax.workload import Node, Origin, Workload, check_workload
from kpu_jax.workload.padding import pad_rows, padded_length, repeat_last

# What each policy of a plan may be.
POLICIES: dict[str, tuple[str, ...]] = {
    "objective": OBJECTIVES,
    "fusion": ("epilogue", "none"),
    "attention": ("row_blocks", "none"),
    "residency": ("optimal", "none"),
}
TIMINGS = ("exact", "bound")
FEWEST_ROWS = 24
ROUNDS = 2  # of placing results by weights that the placement before implies


def plan_network(
    cfg: KPUConfig,
    workload: Workload,
    *,
    objective: str = "edp",
    fusion: str = "epilogue",
    attention: str = "row_blocks",
    residency: str = "optimal",
    timing: str = "exact",
) -> NetworkReport:
    """Run `workload` on chip `cfg` as a graph and report what it costs and what was saved.

    - `fusion`: "epilogue" lets the drain of a product do the bias, activation and change of format behind it
      (`graph.epilogue`), where that is cheaper.
    - `attention`: "row_blocks" keeps the scores of attention on the chip (`graph.attention`), where that is cheaper.
    - `residency`: "optimal" keeps results in L3 (`graph.residency`), the best of all ways on a chain.
    - Work that the chip cannot do (`workload.host_work`) is listed with its transfers, which count (`graph.host`).

    "none" leaves a policy out; without all three the report is that of `simulate(cfg, workload)` and the host transfers.
    Mappings are the best of the stated set for the `objective` ("edp", "latency", "energy"), by exact time; what is cheaper is
    decided by it, the energy-delay product near the totals without any policy. `timing="bound"` reports the lower bound
    (decisions stay exact).

    Raises `InfeasibleError` for an operation without a mapping that fits, with what overflows; `KPUError` for unknown
    names, traced or stacked arguments, and a graph that is cyclic or out of order.
    """
    for name, given in (("objective", objective), ("fusion", fusion), ("attention", attention), ("residency", residency)):
        check_choice(name, given, POLICIES[name])
    check_choice("timing", timing, TIMINGS)
    check_config(cfg)
    if not isinstance(workload, Workload):
        raise KPUError(f"a network is a Workload, got {type(workload).__name__}; for one operation use kpu.simulate")
    if is_traced(cfg, workload) or np.ndim(cfg.compute.tile_count) or np.ndim(workload.ops.m) != 1:
        raise KPUError("a network is planned for one concrete chip and workload: call it outside of jit, vmap and grad")
    check_workload(workload)
    cfg = jax.tree.map(lambda v: np.asarray(v, np.float64), cfg)
    planner = _Planner(cfg, workload, objective)
    if fusion != "none":
        planner.fuse()
    whole = planner.pieces
    if attention != "none":
        planner.cut_attention()
    if residency != "none":
        planner.place_results()
    return planner.report(whole, timing == "exact")


class _Stage(NamedTuple):
    """A way to run the network."""

    steps: list[list[Step]]  # per piece, times all repeats
    chosen: list[int]  # mapping of every step
    external: list[float]  # bytes of every step
    totals: Totals


class _Planner:
    def __init__(self, cfg: KPUConfig, workload: Workload, objective: str) -> None:
        self._cfg, self._workload = cfg, workload
        self._prices = Prices(cfg, objective)
        self._objective = objective
        self.pieces = pieces_of(workload)
        self._placed = Residency([Places()] * len(self.pieces), [], 0.0, True)
        self._prices.learn(jax.tree.map(lambda v, r=row: np.float64(v[r]), workload.ops) for row in range(workload.rows))
        self._weights = Weights.of(objective, 1.0, 1.0)
        asked = self._stage(self.pieces, self._placed.places)
        self._weights = Weights.of(objective, asked.totals.seconds, asked.totals.energy_pj)
        self._stages = {"none": asked}
        self._fused: list[Fused] = []
        self._attention: list[Attention] = []

    # -- the three policies, in order

    def fuse(self) -> None:
        """Join epilogues to their products."""
        tried: list[Piece] = []

        def note(*pieces: Piece) -> bool:
            tried.extend(pieces)
            return True

        fuse_epilogues(self.pieces, note)
        self._learn([(piece, Places()) for piece in tried])
        self.pieces, self._fused = fuse_epilogues(
            self.pieces, lambda product, vector, joined: self._cost(joined) <= self._cost(product) + self._cost(vector)
        )
        self._settle("fusion")

    def cut_attention(self) -> None:
        """Cut attention into row blocks where that is cheaper than operation by operation with scores kept if they fit."""
        sites = find_sites(self.pieces)
        rows = int(self._cfg.compute.processor_array.rows)
        pieces = self.pieces
        for site in reversed(sites):  # the positions of those before stay
            choice, block = self._judge(site, blocks_of(site.whole, self._prices.capacity, rows))
            self._attention.insert(0, choice)
            if choice.chosen and block is not None:
                pieces = site.replace(pieces, block)
        self.pieces = pieces
        self._settle("attention")

    def place_results(self) -> None:
        """Keep results in L3."""
        best: tuple[float, _Stage, Residency] | None = None
        weights = self._weights
        for _ in range(ROUNDS if self._objective == "edp" else 1):
            placed = keep_results(self.pieces, self._costs(self.pieces, weights), self._prices.rounded)
            stage = self._stage(self.pieces, placed.places)
            value = value_of(self._objective, stage.totals.seconds, stage.totals.energy_pj)
            if best is not None and value >= best[0]:
                break
            best = value, stage, placed
            weights = Weights.of(self._objective, stage.totals.seconds, stage.totals.energy_pj)
        assert best is not None
        _, self._stages["residency"], self._placed = best

    # -- prices

    def _learn(self, asked: Sequence[tuple[Piece, Places]]) -> None:
        self._prices.learn(step.op for piece, places in asked for step in piece.work.steps(piece.name, places))

    def _cost(self, piece: Piece, places: Places = Places(), weights: Weights | None = None) -> float:
        return piece.repeats * self._prices.cost(piece.work.steps(piece.name, places), weights or self._weights)

    def _costs(self, pieces: Sequence[Piece], weights: Weights) -> Cost:
        """What `graph.residency` asks for; where nothing else is in L3, all is priced at once."""
        alone = [
            (piece, Places(a, b, c)) for piece in pieces for a in {False, "A" in piece.operands}
            for b in {False, "B" in piece.operands} for c in (False, True)
        ]  # fmt: skip
        self._learn([(piece, places) for piece, places in alone if self._prices.fits(piece, places)])

        def cost(asked: Sequence[tuple[int, Places]]) -> list[float]:
            fit = [(pieces[i], places) if self._prices.fits(pieces[i], places) else None for i, places in asked]
            self._learn([pair for pair in fit if pair is not None])
            return [np.inf if pair is None else self._cost(*pair, weights) for pair in fit]

        return cost

    def _judge(self, site: Site, blocks: Sequence[Block]) -> tuple[Attention, Block | None]:
        """What the site costs by the best of `blocks` and operation by operation, everything else in external memory."""
        inside = [self.pieces[i] for i in (site.scores, *site.middle, site.mix)]
        chain = []
        works = (inside[0].work, *site.whole.middle, inside[-1].work)
        for i, (piece, work, before) in enumerate(zip(inside, works, (None, site.scores, *site.middle), strict=True)):
            fed = {x: (i - 1,) for x, made in piece.operands.items() if before in made}
            last = i == len(inside) - 1
            chain.append(dataclasses.replace(piece, work=work, reads=(i - 1,) if i else (), operands=fed, leaves=last))
        apart = keep_results(chain, self._costs(chain, self._weights), self._prices.rounded)
        cut = {block: site.piece(self.pieces, block) for block in blocks}
        self._learn([(piece, Places()) for piece in cut.values()])
        best = min(cut, key=lambda block: self._cost(cut[block]), default=None)
        costs = np.inf if best is None else self._cost(cut[best])
        if not np.isfinite(costs):
            best = None
        blocked = None if best is None else self._stage([cut[best]], [Places()]).totals
        apart_totals = self._stage(chain, apart.places).totals
        return Attention(inside[-1].name, costs < apart.cost, best, blocked, apart_totals), best

    # -- stages

    def _settle(self, name: str) -> None:
        self._placed = Residency([Places()] * len(self.pieces), [], 0.0, True)
        self._stages[name] = self._stage(self.pieces, self._placed.places)

    def _stage(self, pieces: Sequence[Piece], places: Sequence[Places]) -> _Stage:
        """The pieces in their places, under the mappings that are best for all of them together."""
        steps = [
            [step._replace(times=step.times * piece.repeats) for step in piece.work.steps(piece.name, own)]
            for piece, own in zip(pieces, places, strict=True)
        ]
        flat = [step for own in steps for step in own]
        chosen = self._prices.best(flat, self._weights)
        external = self._prices.external_bytes(flat, chosen)
        return _Stage(steps, chosen, external, Totals(sum(external), *self._prices.totals(flat, chosen)))

    # -- the report

    def report(self, whole: Sequence[Piece], exact: bool) -> NetworkReport:
        """Everything that was decided, and the exact report of it."""
        stage = list(self._stages.values())[-1]
        nodes, ranges = self._nodes(stage)
        placed = Workload.from_graph(nodes)
        flat = [(step, c) for step, c in zip((s for own in stage.steps for s in own), stage.chosen, strict=True)]
        firsts = [placed.row_of.index(row) for row in range(placed.rows)]
        mappings = stack([jax.tree.map(lambda v, c=flat[i][1]: v[c], self._prices.of(flat[i][0].op).mappings) for i in firsts])
        transfers = tuple(transfer_of(self._cfg, work) for work in self._workload.host_work)
        report = with_transfers(self._evaluated(placed, mappings, exact), self._cfg, transfers)
        names = [piece.name for piece in self.pieces]
        plan = Plan(
            cfg=self._cfg,
            workload=placed,
            mappings=mappings,
            pieces=tuple(self.pieces),
            places=tuple(self._placed.places),
            steps=tuple(ranges),
            whole=tuple(whole),
            stages={name: stage.totals for name, stage in self._stages.items()},
            asked_bytes=tuple(self._stages["none"].external),
            asked_names=self._workload.names,
            fused=tuple(self._fused),
            attention=tuple(self._attention),
            kept=tuple(KeptResult(names[k.piece], self.pieces[k.piece].result_bytes, names[k.until], k.written) for k in self._placed.kept),
            optimal=self._placed.optimal,
            host_work=self._workload.host_work,
            transfers=transfers,
        )
        fields: dict[str, Any] = {f.name: getattr(report, f.name) for f in dataclasses.fields(Report)}
        return build(NetworkReport, **fields, plan=plan)

    def _evaluated(self, placed: Workload, mappings: Mapping, exact: bool) -> Report:
        """The report of the operations as they run. Small networks are padded alike, so that few kernels compile."""
        length = padded_length(max(placed.rows, FEWEST_ROWS))
        return report_of(self._cfg, pad_rows(placed.ops, length), repeat_last(mappings, length), exact).first_rows(placed.rows)

    def _nodes(self, stage: _Stage) -> tuple[list[Node], list[tuple[int, int]]]:
        """The operations as they run, in order, and the range of every piece's."""
        nodes: list[Node] = []
        ranges: list[tuple[int, int]] = []
        for piece, steps in zip(self.pieces, stage.steps, strict=True):
            start = len(nodes)
            origin = Origin(piece.origin.source, piece.origin.scope, piece.origin.primitives, piece.origin.loops)
            for step in steps:
                reads = tuple(ranges[p][1] - 1 for p in piece.reads) if len(nodes) == start else (len(nodes) - 1,)
                nodes.append(Node(step.name, step.op, reads, step.times, origin))
            ranges.append((start, len(nodes)))
        return nodes, ranges
