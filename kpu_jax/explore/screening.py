"""Every chip of a range by the bound, in blocks that are the same however the range is cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from kpu_jax.explore import front
from kpu_jax.explore.kernel import Laid, Totals, evaluate_block, lay_block
from kpu_jax.explore.limits import OBJECTIVES, floors, keeps, limits_of, measures
from kpu_jax.explore.space import Space
from kpu_jax.explore.summary import Summary, least_kept
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES
from kpu_jax.workload import Op
from kpu_jax.workload.padding import pad_rows

BLOCK_EVALUATIONS = 8_000_000  # chips x operations x mappings on the device at once: bounds the memory
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Blocks:
    """A space cut into blocks of one shape, which the space and the workload alone decide.

    A chip is always in the same lane of the same block, so its figures are the same to the last bit whatever range,
    part, device or process evaluates it.
    """

    geometries: int  # per block
    speeds: int
    of_geometries: int  # in the space
    of_speeds: int

    @classmethod
    def of(cls, space: Space, per_chip: int) -> Blocks:
        """Blocks of at most `BLOCK_EVALUATIONS`, at `per_chip` evaluations for each chip."""
        speeds = max(1, min(space.speeds, BLOCK_EVALUATIONS // per_chip))
        whole = speeds == space.speeds  # else one geometry at a time, so that every block is a range of indices
        geometries = max(1, min(space.geometries, BLOCK_EVALUATIONS // (per_chip * speeds))) if whole else 1
        return cls(geometries, speeds, space.geometries, space.speeds)

    @property
    def per_row(self) -> int:
        """Blocks that share their geometries."""
        return -(-self.of_speeds // self.speeds)

    def __len__(self) -> int:
        return -(-self.of_geometries // self.geometries) * self.per_row

    def first_chip(self, block: int) -> int:
        """Index of the first chip of a block; of one past the last: the number of chips."""
        row, column = divmod(block, self.per_row)
        return min(row * self.geometries, self.of_geometries) * self.of_speeds + column * self.speeds

    def indices(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """(geometries, speeds) of a block; those past the end of the space pad its shape."""
        row, column = divmod(block, self.per_row)
        return row * self.geometries + np.arange(self.geometries), column * self.speeds + np.arange(self.speeds)

    def over(self, start: int, stop: int) -> Iterator[int]:
        """The blocks that hold the chips [start, stop)."""
        row = start // self.of_speeds // self.geometries
        for block in range(row * self.per_row, len(self)):
            if self.first_chip(block) >= stop:
                return
            if self.first_chip(block + 1) > start:
                yield block


def blocks_of(space: Space, ops: Op, strategies: np.ndarray = SWEEP_STRATEGIES) -> Blocks:
    """The blocks in which a sweep of `space` with this workload is evaluated."""
    return Blocks.of(space, len(pad_rows(ops).m) * len(strategies))


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

    Work is laid out in float64 and timed in float32, which keeps 1e-5 relative; floors allow for that. The blocks go
    round the `devices` (default: all local ones). Neither cuts nor their number change a bit.
    """
    limits, total = limits_of(constraints), Summary()
    devices = jax.local_devices() if devices is None else devices
    evaluator = _Evaluator(space, ops, np.asarray(strategies, np.float64), objective)
    waiting: deque[_Pending] = deque()

    def finish() -> None:
        nonlocal total
        pending = waiting.popleft()
        if pending.totals is not None:
            kept = jax.tree.map(lambda v: np.asarray(v, np.float64)[pending.keep], pending.totals)
            part = _summarise(kept, pending.ids, limits, total)
            part.evaluations = len(pending.ids) * evaluator.per_chip
            total = total + part
        if progress:
            progress(pending.points)

    for number, block in enumerate(evaluator.blocks.over(start, stop)):
        waiting.append(evaluator.begin(block, start, stop, devices[number % len(devices)]))
        if len(waiting) >= len(devices):
            finish()
    while waiting:
        finish()
    return total


@dataclass
class _Pending:
    """A block under way on a device."""

    totals: Totals | None  # None where no chip is to be kept
    keep: np.ndarray  # [geometry, speed]: in the range and allowed
    ids: np.ndarray  # of those
    points: int  # in the range, allowed or not


class _Evaluator:
    def __init__(self, space: Space, ops: Op, strategies: np.ndarray, objective: str) -> None:
        self.space, self.strategies, self.objective = space, strategies, objective
        self.base64, self.table64 = (jax.tree.map(lambda v: np.asarray(v, np.float64), t) for t in (space.base, pad_rows(ops)))
        self.base, self.table = _float32(self.base64), _float32(self.table64)
        self.blocks = blocks_of(space, ops, strategies)
        self.per_chip = int(np.sum(self.table64.count > 0)) * len(strategies)
        self._laid: dict[jax.Device, tuple[int, Any]] = {}  # the last geometries of each device

    def begin(self, block: int, start: int, stop: int, device: jax.Device) -> _Pending:
        """Start a block on a device, without waiting for it."""
        space = self.space
        geometry_index, speed_index = self.blocks.indices(block)
        ids = geometry_index[:, None] * space.speeds + speed_index
        inside = (geometry_index < space.geometries)[:, None] & (speed_index < space.speeds) & (ids >= start) & (ids < stop)
        keep = inside & space.allowed(np.where(inside, ids, 0))
        if not keep.any():
            return _Pending(None, keep, ids[keep], int(inside.sum()))
        geometry = _geometry(space, np.minimum(geometry_index, space.geometries - 1))
        speed = _speed(space, np.minimum(speed_index, space.speeds - 1))
        place = jax.sharding.SingleDeviceSharding(device)
        laid = self._lay(block // self.blocks.per_row, geometry, device, place)
        base, geometry, speed, table = jax.device_put((self.base, _float32(geometry), speed, self.table), place)
        return _Pending(evaluate_block(base, geometry, speed, table, laid, self.objective), keep, ids[keep], int(inside.sum()))

    def _lay(self, row: int, geometry: dict[str, np.ndarray], device: jax.Device, place: Any) -> Laid:
        known, laid = self._laid.get(device, (-1, None))
        if known != row:
            self._laid.pop(device, None)  # frees the memory of the last ones first
            with jax.enable_x64(True):
                given = jax.device_put((self.base64, geometry, self.table64, self.strategies), place)
                laid = _float32(lay_block(*given))
            self._laid[device] = row, laid
        return laid


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda v: v.astype(np.float32), tree)


def _geometry(space: Space, index: np.ndarray) -> dict[str, np.ndarray]:
    """Values of the geometry axes; a space without any gets its base's compute tiles, so that there is an axis to batch over."""
    return space.geometry_values(index) or {"compute.tile_count": np.full(len(index), float(space.base.compute.tile_count))}


def _speed(space: Space, index: np.ndarray) -> dict[str, np.ndarray]:
    values = space.speed_values(index) or {"clocks.fabric_mhz": np.full(len(index), float(space.base.clocks.fabric_mhz))}
    return _float32(values)


def _summarise(totals: Totals, ids: np.ndarray, limits: dict[str, float], known: Summary) -> Summary:
    floor = floors(totals, limits)
    possible = np.isfinite(floor["latency"])
    kept = keeps(limits, measures(totals.seconds, totals.energy_pj, totals.area_mm2, totals.tdp_w))
    points = np.where(kept[:, None], np.stack([totals.seconds, totals.energy_pj, totals.area_mm2], axis=1), np.inf)
    alive = front.prefilter(points, known.front_points)
    points, front_ids = front.merge(np.zeros((0, 3)), np.zeros(0, np.int64), points[alive], ids[alive])
    best = {o: least_kept(np.stack([floor[o][possible], ids[possible].astype(float)], axis=1)) for o in OBJECTIVES}
    return Summary(len(ids), 0, int(possible.sum()), points, front_ids, best)
