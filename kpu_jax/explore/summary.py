"""What a sweep keeps of a range of chips, however long."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kpu_jax.explore import front
from kpu_jax.explore.limits import OBJECTIVES

BEST_KEPT = 10_000  # per objective, by floor
_NONE = np.zeros((0, 2))


@dataclass
class Summary:
    """What is kept of a range of chips. `+` is associative and commutative: ranges may be cut anywhere."""

    chips: int = 0
    evaluations: int = 0
    met: int = 0  # chips on which the bound leaves room for a schedule that keeps every limit
    front_points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))  # seconds, energy [pJ], area [mm^2]; `front.sparse`
    front_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    best: dict[str, np.ndarray] = field(default_factory=lambda: dict.fromkeys(OBJECTIVES, _NONE))  # [chip, (floor, id)]

    def __add__(self, other: Summary) -> Summary:
        points, ids = front.sparse(
            np.concatenate([self.front_points, other.front_points]), np.concatenate([self.front_ids, other.front_ids])
        )
        best = {o: least_of(self.best[o], other.best[o]) for o in OBJECTIVES}
        return Summary(
            self.chips + other.chips, self.evaluations + other.evaluations, self.met + other.met, points, ids, best
        )

    def floor(self, objective: str, seen: set[int]) -> float:
        """What no chip but those `seen` can fall below."""
        rows = self.best[objective]
        rest = [least for least, chip in rows if int(chip) not in seen]
        dropped = float(rows[-1, 0]) if len(rows) == BEST_KEPT else np.inf
        return min([*rest, dropped])

    def arrays(self) -> dict[str, np.ndarray]:
        """The same as named arrays, for files and for other processes."""
        counts = np.array([self.chips, self.evaluations, self.met], np.int64)
        best = {f"best_{name}": rows for name, rows in self.best.items()}
        return {"counts": counts, "front_points": self.front_points, "front_ids": self.front_ids, **best}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Summary:
        """The summary whose `arrays` these are."""
        best = {name: arrays[f"best_{name}"] for name in OBJECTIVES}
        chips, evaluations, met = (int(count) for count in arrays["counts"])
        return cls(chips, evaluations, met, arrays["front_points"], arrays["front_ids"], best)


def least_of(rows: np.ndarray, more: np.ndarray) -> np.ndarray:
    """The `BEST_KEPT` least of both, ties by id; `rows` are in order."""
    if len(rows) == BEST_KEPT:
        more = more[more[:, 0] <= rows[-1, 0]]
    joined = np.concatenate([rows, more])
    return joined[np.lexsort((joined[:, 1], joined[:, 0]))][:BEST_KEPT] if len(more) else rows
