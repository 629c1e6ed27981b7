"""From the descent's points to a chip of the space: rounding, coordinate steps by the bound, then by exact time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import numpy as np

from kpu_jax.explore.codesign.axes import chip_ids, knots_of
from kpu_jax.explore.codesign.gradient import Relaxation
from kpu_jax.explore.codesign.lagrangian import Problem
from kpu_jax.explore.limits import OBJECTIVES, ROUNDING
from kpu_jax.explore.mapping_search import search
from kpu_jax.explore.mix import choose
from kpu_jax.explore.retime import CHIPS_AT_ONCE, FINALISTS
from kpu_jax.explore.space import Space
from kpu_jax.mapping import Mapping

CLIMBERS = 4  # rounded points that take coordinate steps by the bound
FIRST_TIMED = 8  # chips timed exactly before the exact steps
UNFIT = 100.0  # log excess of a chip that cannot hold one tile of every operation

Key = tuple[float, float]  # (log excess over the limits, value): less is better


@dataclass
class Exact:
    """One chip with the best mappings by exact time."""

    key: Key
    logs: np.ndarray  # [measure]
    mappings: tuple[Mapping, ...]  # per network, leaves [row]


class Finish:
    """Local search on the grid; every chip is appraised once and timed once."""

    def __init__(self, space: Space, relaxation: Relaxation, problem: Problem, objective: str, limits: dict[str, float]) -> None:
        self.space, self.relaxation, self.problem = space, relaxation, problem
        self.objective, self.limits = objective, limits
        self.bound: dict[int, Key] = {}  # by the mappings that are best by the bound
        self.floor: dict[int, float] = {}  # value that no mappings of the set fall below; infinite if a limit is exceeded for sure
        self.exact: dict[int, Exact] = {}

    def appraise(self, ids: Iterable[int]) -> None:
        """Bound every chip of `ids` that is new."""
        new = np.array([i for i in dict.fromkeys(map(int, ids)) if i not in self.bound], np.int64)
        if not len(new):
            return
        found = self.relaxation.appraise(self.space.chips(new))
        least = np.concatenate([found.floors, found.logs[:, -2:]], axis=1)
        value, floor = self.problem.value(found.logs), self.problem.value(least) * (1 - 1e-12)
        worst = self.problem.worst(found.logs)
        worst = np.where(~found.fits, UNFIT, np.where(worst < 1e-9, 0.0, worst))  # slowed to a limit, but for rounding
        # Power is no monotone measure: only limits on single measures exclude a chip by its least ones.
        single = (np.abs(self.problem.forms).sum(axis=1) == 1)[None]
        excluded = np.any((self.problem.excess(least) > ROUNDING) & single, axis=1) | ~found.fits
        for i, chip in enumerate(new.tolist()):
            self.bound[chip] = (float(worst[i]), float(value[i]))
            self.floor[chip] = np.inf if excluded[i] else float(floor[i])

    def neighbours(self, chip: int, reach: bool = False, pairs: bool = False) -> list[int]:
        """Chips one knot away along one axis; `reach`: also 2, 4, 8, ... knots; `pairs`: also one knot along two axes at once."""
        axes = self.relaxation.axes
        at = knots_of(axes, np.array(chip))
        moves = []
        for i, axis in enumerate(axes):
            longest = len(axis.knots) - 1 if reach else min(1, len(axis.knots) - 1)
            moves += [{i: sign * 2**p} for p in range(longest.bit_length()) for sign in (-1, 1)]
        if pairs:
            singles = [m for m in moves if abs(next(iter(m.values()))) == 1]
            moves += [{**a, **b} for a, b in itertools.combinations(singles, 2) if a.keys() != b.keys()]
        ends = np.array([len(axis.knots) for axis in axes])
        targets = np.repeat(at[None], len(moves), axis=0)
        for row, move in enumerate(moves):
            for i, step in move.items():
                targets[row, i] += step
        inside = np.all((targets >= 0) & (targets < ends), axis=1)
        return chip_ids(axes, targets[inside]).tolist()

    def climb(self, ids: np.ndarray) -> None:
        """Coordinate steps by the bound from the best of `ids`, then pairs of steps, until neither improves."""
        self.appraise(ids)
        at = sorted(dict.fromkeys(map(int, ids)), key=self.bound.__getitem__)[:CLIMBERS]
        pairs = False
        while True:
            around = {c: self.neighbours(c, reach=True, pairs=pairs) for c in at}
            self.appraise(itertools.chain.from_iterable(around.values()))
            after = [min([c, *around[c]], key=self.bound.__getitem__) for c in at]
            if after != at:
                at, pairs = list(dict.fromkeys(after)), False
            elif pairs:
                return
            else:
                pairs = True

    def time(self, ids: list[int]) -> None:
        """Search and time exactly the chips `ids`, at most `CHIPS_AT_ONCE`."""
        nets = self.relaxation.nets
        padded = np.array(ids + ids[-1:] * (CHIPS_AT_ONCE - len(ids)))
        chips = self.space.chips(padded)
        logs = self.relaxation.appraise(self.space.chips(np.array(ids))).logs
        mappings: list[list[Mapping]] = [[] for _ in ids]
        for n, net in enumerate(nets.workloads):
            count, rows = np.asarray(net.ops.count, np.float64), np.arange(net.rows)
            found = search(
                chips, net.ops, self.relaxation.strategies, OBJECTIVES, finalists=FINALISTS, chips_used=len(ids)
            )
            for i in range(len(ids)):
                choice = choose(found.seconds[i], found.energy_pj[i], count, self.objective, self.limits)
                totals = [np.sum(v[i][rows, choice][count > 0] * count[count > 0]) for v in (found.seconds, found.energy_pj)]
                logs[i, [n, len(nets.names) + n]] = np.log(totals)
                mappings[i].append(jax.tree.map(lambda v, i=i, c=choice, r=rows: v[i, r, c], found.mappings))
        for i, chip in enumerate(ids):
            key = float(self.problem.worst(logs[i])), float(self.problem.value(logs[i]))
            self.exact[chip] = Exact(key if np.isfinite(key[1]) else (UNFIT, np.inf), logs[i], tuple(mappings[i]))

    @property
    def best(self) -> int:
        """The best chip by exact time."""
        return min(self.exact, key=lambda c: self.exact[c].key)

    def settle(self, most: int) -> bool:
        """Exact steps: time the chips that promise most, then neighbours of the best that could still beat it,
        then any other chip appraised that could.

        At most `most` chips are timed. True if no neighbour along one axis can be better than the best (within the
        stated set of mappings): proven by the bound or by exact time.
        """
        fitting = [c for c in self.bound if self.bound[c][0] < UNFIT]
        wanted = sorted(fitting, key=self.bound.__getitem__)[: min(FIRST_TIMED, most)]
        while wanted:
            self.time(wanted)
            around = self._open(self.neighbours(self.best))
            rest = [c for c in self._open(self.bound) if c not in around]
            wanted = (around + rest)[: min(CHIPS_AT_ONCE, most - len(self.exact))]
        return bool(self.exact) and not self._open(self.neighbours(self.best))

    def _open(self, ids: Iterable[int]) -> list[int]:
        """Those of `ids` that are not timed and could still beat the best, most promising by the bound first."""
        self.appraise(ids)
        best = self.exact[self.best].key
        open_ = [c for c in ids if c not in self.exact and self._may_beat(c, best)]
        return sorted(open_, key=self.bound.__getitem__)

    def _may_beat(self, chip: int, best: Key) -> bool:
        """Could exact time put `chip` before a chip with key `best`?"""
        return self.floor[chip] < best[1] if best[0] == 0 else self.bound[chip][0] < best[0]
