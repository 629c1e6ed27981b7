"""What operations cost in their places: the best mappings of the stated set, timed exactly, each operation once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.compilation import ONCE, jit_for
from kpu_jax.base.errors import InfeasibleError
from kpu_jax.explore.mapping_search import Found, search
from kpu_jax.explore.mix import choose, value_of
from kpu_jax.graph.pieces import Piece, Places, Step
from kpu_jax.hardware import KPUConfig
from kpu_jax.hardware.derived import l3_capacity_bytes
from kpu_jax.mapping import Mapping
from kpu_jax.mapping.legality import explain
from kpu_jax.mapping.proposals import STRATEGIES
from kpu_jax.mapping.rate import rate_of
from kpu_jax.mapping.visits import lay_out
from kpu_jax.model.traffic import OPERANDS, count_traffic
from kpu_jax.workload import Op
from kpu_jax.workload.op import FIELDS, leaves
from kpu_jax.workload.padding import pad_rows, repeat_last

LEVELS = 16  # parts of L3: what other results occupy is rounded up to whole ones, so that prices are shared
TIE = 1e-9  # of the objective: the other of energy and time decides between equals


class Candidates(NamedTuple):
    """The mappings of one operation that were timed, [mapping]; those that do not fit are infinite."""

    seconds: np.ndarray
    energy_pj: np.ndarray
    mappings: Mapping
    status: float  # of the nearest, for messages
    overflow: float


class Weights(NamedTuple):
    """What a second and a picojoule are worth; the cost of an operation is their weighted sum."""

    per_second: float
    per_pj: float

    @classmethod
    def of(cls, objective: str, seconds: float, energy_pj: float) -> Weights:
        """The objective's, near these totals: the energy-delay product E D is E0 D + D0 E up to second order."""
        shares = {"latency": (1.0, TIE), "energy": (TIE, 1.0), "edp": (1.0, 1.0)}[objective]
        return cls(shares[0] / seconds, shares[1] / energy_pj)

    def cost(self, seconds: Any, energy_pj: Any) -> Any:
        return self.per_second * seconds + self.per_pj * energy_pj


class Prices:
    """Prices of operations on one chip, remembered. Exact time and energy, under the best mapping of the stated set."""

    def __init__(self, cfg: KPUConfig, objective: str) -> None:
        self.cfg, self.objective = cfg, objective
        self.capacity = float(l3_capacity_bytes(cfg))
        self._chips = jax.tree.map(lambda v: np.asarray(v, np.float64)[None], cfg)
        self._known: dict[tuple[float, ...], Candidates] = {}

    def learn(self, ops: Iterable[Op]) -> None:
        """Price those that are not known yet, all at once."""
        fresh = {key: op for op in ops if (key := operation_key(op)) not in self._known}
        if not fresh:
            return
        found = search(self._chips, stack(list(fresh.values())), STRATEGIES, (self.objective,))
        for i, key in enumerate(fresh):
            self._known[key] = _candidates(found, i)

    def of(self, op: Op) -> Candidates:
        self.learn([op])
        return self._known[operation_key(op)]

    def cost(self, steps: Iterable[Step], weights: Weights) -> float:
        """Of these steps one after the other; infinite where one has no mapping that fits."""
        return sum(step.times * float(np.min(_costs(self.of(step.op), weights))) for step in steps)

    def fits(self, piece: Piece, places: Places) -> bool:
        """False if L3 is too small whatever the mapping: a cheap look before pricing."""
        own = sum(piece.work.held_bytes(x) for x, there in zip("ABC", places[:3], strict=True) if there)
        return own + places.reserved < self.capacity

    def rounded(self, reserved: float) -> float:
        """Bytes that others occupy, rounded up."""
        return float(np.ceil(reserved / self.capacity * LEVELS)) * self.capacity / LEVELS

    def best(self, steps: Sequence[Step], weights: Weights) -> list[int]:
        """The mapping of each step, as an index into its candidates, that is best for all together: `explore.mix.choose`
        or the one of least weighted cost, whichever total is better. Raises `InfeasibleError` where none fits."""
        self.learn(step.op for step in steps)
        found = [self.of(step.op) for step in steps]
        for step, own in zip(steps, found, strict=True):
            if not np.isfinite(own.seconds).any():
                raise InfeasibleError(
                    f"{step.name}: no mapping of the stated set fits this chip; the nearest: {explain(own.status, own.overflow)}"
                )
        times = np.array([step.times for step in steps])
        seconds, energy = (np.stack([getattr(own, name) for own in found]) for name in ("seconds", "energy_pj"))
        mixed = choose(seconds, energy, times, self.objective)
        weighed = np.array([int(np.argmin(_costs(own, weights))) for own in found])
        rows = np.arange(len(steps))

        def value(choice: np.ndarray) -> float:
            d, e = (float(np.sum(v[rows, choice] * times)) for v in (seconds, energy))
            return value_of(self.objective, d, e)

        return [int(c) for c in min(mixed, weighed, key=value)]

    def totals(self, steps: Sequence[Step], chosen: Sequence[int]) -> tuple[float, float]:
        """(seconds, picojoules) of the steps under these candidates."""
        pairs = [(step.times, self.of(step.op), c) for step, c in zip(steps, chosen, strict=True)]
        return sum(t * float(f.seconds[c]) for t, f, c in pairs), sum(t * float(f.energy_pj[c]) for t, f, c in pairs)

    def external_bytes(self, steps: Sequence[Step], chosen: Sequence[int]) -> list[float]:
        """Bytes read and written at external memory by each step, all its times. Exact."""
        ops = stack([step.op for step in steps])
        mappings = stack([jax.tree.map(lambda v, c=c: v[c], self.of(s.op).mappings) for s, c in zip(steps, chosen, strict=True)])
        rows = len(steps)
        ops = pad_rows(ops, max(64, -(-rows // 64) * 64))
        mappings = repeat_last(mappings, len(ops.m))
        with jax.enable_x64(True):
            each = np.asarray(_external(self.cfg, ops, mappings))[:rows]
        return [float(size * step.times) for size, step in zip(each, steps, strict=True)]


def stack(trees: Sequence[Any]) -> Any:
    """Pytrees of one structure with float64 leaves [tree]."""
    return jax.tree.map(lambda *v: np.array(v, np.float64), *trees)


def operation_key(op: Op) -> tuple[float, ...]:
    """What tells operations apart, their count aside."""
    values = leaves(op)
    return tuple(float(values[name]) for name in FIELDS if name != "count")


def _candidates(found: Found, row: int) -> Candidates:
    mappings = jax.tree.map(lambda v: v[0, row], found.mappings)
    return Candidates(
        found.seconds[0, row], found.energy_pj[0, row], mappings, float(found.status[0, row, 0]), float(found.overflow[0, row, 0])
    )


def _costs(found: Candidates, weights: Weights) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(found.seconds), weights.cost(found.seconds, found.energy_pj), np.inf)


@jit_for(ONCE)
def _external(cfg: Any, ops: Any, mappings: Any) -> Any:
    """Bytes at external memory of each operation under its mapping, once, [op]."""

    def one(op: Any, mapping: Any) -> Any:
        array = cfg.compute.processor_array
        layout = lay_out(op, mapping, array.rows, array.cols, rate_of(cfg, op))
        traffic = count_traffic(op, mapping, layout, cfg.buses.burst_bytes)
        return sum(traffic.reads["dram"][x] + traffic.writes["dram"][x] for x in OPERANDS)

    return jax.vmap(one)(*jax.tree.map(lambda v: jnp.asarray(v, float), (ops, mappings)))
