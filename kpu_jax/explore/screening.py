"""Every chip of a range by the bound: the devices go through its blocks and keep what a sweep needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from kpu_jax.explore import fold, front
from kpu_jax.explore.blocks import Blocks, blocks_of
from kpu_jax.explore.decode import Chips, decode, tables_of
from kpu_jax.explore.kernel import Laid, Totals, evaluate_block, lay_block
from kpu_jax.explore.limits import CONSTRAINTS, OBJECTIVES, limits_of
from kpu_jax.explore.space import Space
from kpu_jax.explore.summary import BEST_KEPT, Summary
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES
from kpu_jax.workload import Op
from kpu_jax.workload.padding import pad_rows

Progress = Callable[[int], None]
Watcher = Callable[[Chips, Totals], None]  # is shown every block as it is on the device
AHEAD = 2  # blocks that may be under way on a device: it need not wait for the host, and memory stays bounded


def evaluate_range(
    space: Space,
    ops: Op,
    start: int,
    stop: int,
    *,
    objective: str = "edp",
    constraints: Mapping[str, float] | None = None,
    strategies: np.ndarray = SWEEP_STRATEGIES,
    devices: Sequence[jax.Device] | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Evaluate the chips [start, stop) of `space` by the bound; memory does not depend on their number.

    Work is laid out in float64 and timed in float32, which keeps 1e-5 relative; floors allow for that. The `devices`
    (default: all local ones) get equal shares. Neither cuts nor their number change a bit.
    """
    screening = Screening(space, ops, objective, limits_of(constraints), strategies=strategies, devices=devices)
    blocks = list(screening.blocks.over(start, stop))
    share = -(-len(blocks) // len(screening.lanes))
    edges = [start, *(screening.blocks.first_chip(block) for block in blocks[share::share]), stop]
    return sum(screening.parts(list(zip(edges, edges[1:], strict=False)), progress), Summary())


class Screening:
    """Chips of one space by the bound, for one workload and objective and within the same limits."""

    def __init__(
        self,
        space: Space,
        ops: Op,
        objective: str,
        limits: Mapping[str, float],
        *,
        strategies: np.ndarray = SWEEP_STRATEGIES,
        devices: Sequence[jax.Device] | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        """`limits`: of `limits_of`. `watcher`: is called with every block, of each part in order."""
        table = jax.tree.map(lambda v: np.asarray(v, np.float64), pad_rows(ops))
        self.blocks = blocks_of(space, ops, strategies)
        given = (space, table, np.asarray(strategies, np.float64), objective, dict(limits), self.blocks, watcher)
        self.lanes = [_Lane(device, *given) for device in devices or jax.local_devices()]

    def parts(self, ranges: Iterable[tuple[int, int]], progress: Progress | None = None) -> Iterator[Summary]:
        """A summary for each range [start, stop) of chips, in order. Each is evaluated on one device, several at once.

        `progress` is called with the number of chips just screened.
        """
        waiting, idle = deque(ranges), deque(self.lanes)
        running: deque[_Part] = deque()
        while waiting or running:
            while waiting and idle:
                running.append(_Part(idle.popleft(), *waiting.popleft()))
            for part in [part for part in running if part.summary is None]:
                chips = part.advance()
                if progress and chips:
                    progress(chips)
                if part.summary is not None:
                    idle.append(part.lane)
            while running and running[0].summary is not None:
                yield running.popleft().summary  # type: ignore[misc]


class _Part:
    """A range of chips under way on a device."""

    def __init__(self, lane: _Lane, start: int, stop: int) -> None:
        self.lane, self.summary = lane, None
        self._work = lane.run(start, stop)

    summary: Summary | None

    def advance(self) -> int:
        """Start the next block, and wait for an earlier one if too many are under way; returns how many chips are done."""
        try:
            return next(self._work)
        except StopIteration as end:
            self.summary = end.value
            return 0


class _Lane:
    """A device, what lies on it, and the geometries that it has laid out last."""

    def __init__(
        self,
        device: jax.Device,
        space: Space,
        table: Any,
        strategies: np.ndarray,
        objective: str,
        limits: dict[str, float],
        blocks: Blocks,
        watcher: Watcher | None,
    ) -> None:
        self.objective, self.blocks, self.watcher = objective, blocks, watcher
        self.per_chip = int(np.sum(table.count > 0)) * len(strategies)
        self.where, self.constants = space.where, space.constants
        place = jax.sharding.SingleDeviceSharding(device)
        base = jax.tree.map(lambda v: np.asarray(v, np.float64), space.base)
        with jax.enable_x64(True):
            geometry, speed = ([(names, jax.device_put(rows, place)) for names, rows in axes] for axes in tables_of(space))
            self.tables = (geometry, speed)
            self.base64, self.table64, self.strategies = jax.device_put((base, table, strategies), place)
            self.limits = jax.device_put({name: np.float64(limits.get(name, np.inf)) for name in CONSTRAINTS}, place)
            self.nothing = jax.device_put(fold.nothing(BEST_KEPT), place)
            self.base, self.table = _float32((self.base64, self.table64))
        self._row = -1
        self._laid: Laid | None = None

    def run(self, start: int, stop: int) -> Generator[int, None, Summary]:
        """Evaluate the chips [start, stop) block by block; yields how many more are done, and returns their summary."""
        kept, under_way, taken_over = self.nothing, deque[tuple[int, fold.Rest]](), Candidates()
        for block in self.blocks.over(start, stop):
            chips = min(stop, self.blocks.first_chip(block + 1)) - max(start, self.blocks.first_chip(block))
            folded = self._block(kept, block, start, stop)
            if folded is None:
                yield chips
                continue
            kept, rest = folded
            under_way.append((chips, rest))
            if len(under_way) >= AHEAD:
                done, rest = under_way.popleft()
                kept = taken_over.make_room(kept, rest)
                yield done
        while under_way:
            done, rest = under_way.popleft()
            kept = taken_over.make_room(kept, rest)
            yield done
        taken_over.take(kept)
        floors, ids = np.asarray(kept.floors), np.asarray(kept.floor_ids, np.float64)
        best = {
            name: np.stack([least[np.isfinite(least)], chip[np.isfinite(least)]], axis=1)
            for name, least, chip in zip(OBJECTIVES, floors, ids, strict=True)
        }
        return Summary(int(kept.chips), int(kept.chips) * self.per_chip, int(kept.met), taken_over.points, taken_over.ids, best)

    def _block(self, kept: fold.Kept, block: int, start: int, stop: int) -> tuple[fold.Kept, fold.Rest] | None:
        """Start a block without waiting for it; None where none of its chips is to be kept."""
        with jax.enable_x64(True):
            chips = decode(self.tables, self.constants, self.where, self.blocks, block, start, stop)
            if self.where and not bool(chips.keep.any()):
                return None
            laid = self._lay(block // self.blocks.per_row, chips)
            geometry, speed = _float32((chips.geometry, chips.speed))
        totals = evaluate_block(self.base, geometry, speed, self.table, laid, self.objective)
        if self.watcher:
            self.watcher(chips, totals)
        with jax.enable_x64(True):
            return fold.fold(kept, totals, chips.ids, chips.keep, self.limits)

    def _lay(self, row: int, chips: Chips) -> Laid:
        if self._laid is None or self._row != row:
            self._laid = None  # frees the memory of the last ones first
            self._laid = _float32(lay_block(self.base64, chips.geometry, self.table64, self.strategies))
            self._row = row
        return self._laid


class Candidates:
    """Candidates for the front that the host has taken over from a device."""

    def __init__(self) -> None:
        self.points, self.ids = np.zeros((0, 3)), np.zeros(0, np.int64)

    def take(self, kept: fold.Kept) -> None:
        """Take over what the device has."""
        size = int(kept.size)
        points = np.concatenate([self.points, np.asarray(kept.points, np.float64)[:size]])
        self.points, self.ids = front.sparse(points, np.concatenate([self.ids, np.asarray(kept.ids)[:size]]))

    def make_room(self, kept: fold.Kept, rest: fold.Rest) -> fold.Kept:
        """Wait for a block, and take over from the device until all its points have found room."""
        while bool(rest.some):
            self.take(kept)
            with jax.enable_x64(True):
                kept, rest = fold.fold_rest(fold.emptied(kept), rest)
        return kept


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda v: v.astype(np.float32), tree)
