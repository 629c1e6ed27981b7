"""One mapping per operation, so that the whole workload is best."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kpu_jax.explore.limits import keeps, measures

WEIGHTS = np.concatenate([[1e-9], np.logspace(-3, 3, 97), [1e9]])  # of energy against time, each relative to its least
ROUNDS = 3  # of following the weight that the best mix itself implies


def choose(
    seconds: np.ndarray,
    energy_pj: np.ndarray,
    count: np.ndarray,
    objective: str,
    limits: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Index of one candidate per operation, [op], from times [s] and energies [pJ] [op, candidate]; infinite ones do not fit.

    `count`: how often each operation occurs. Latency, energy and EDP are each least at a corner of the convex hull of
    all (time, energy) totals, and a corner is a weighted sum's minimum, operation by operation. So a grid of weights
    is tried, and for EDP the weight that the best of them implies. Under a power limit P also energy - c time for c up
    to P: if any mix keeps the limit, that of c = P does. Among mixes within the `limits` on seconds, energy_pj and
    power_w the best is taken; if none is within them, the best of all.
    """
    used = count > 0
    fits = np.isfinite(seconds) & np.isfinite(energy_pj)
    some = used & fits.any(axis=1)
    least = [max(float(np.sum(np.where(fits, v, np.inf).min(axis=1)[some] * count[some])), 1e-300) for v in (seconds, energy_pj)]
    time, energy = (np.where(fits, v / scale, np.inf) for v, scale in zip((seconds, energy_pj), least, strict=True))
    rows = np.arange(len(seconds))

    def mix(of_time: float, of_energy: float) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.argmin(np.where(fits, of_time * time + of_energy * energy, np.inf), axis=1)

    def totals(choice: np.ndarray) -> tuple[float, float]:
        return tuple(float(np.sum(v[rows, choice][used] * count[used])) for v in (seconds, energy_pj))  # type: ignore[return-value]

    def rank(choice: np.ndarray) -> tuple[bool, float]:
        d, e = totals(choice)
        within = {name: v for name, v in (limits or {}).items() if name in ("seconds", "energy_pj", "power_w")}
        return (not keeps(within, measures(np.float64(d), np.float64(e), 0.0, 0.0)), value_of(objective, d, e))

    slopes = [(1.0, weight) for weight in WEIGHTS]
    if limits and "power_w" in limits:
        slopes += [(-share * limits["power_w"] * 1e12 * least[0] / least[1], 1.0) for share in np.linspace(0, 1, 33)]
    best = min((mix(*slope) for slope in slopes), key=rank)
    for _ in range(ROUNDS if objective == "edp" else 0):
        d, e = totals(best)
        if not np.isfinite(d * e):
            break
        best = min(best, mix(1.0, (d / least[0]) / (e / least[1])), key=rank)
    return best


def value_of(objective: str, seconds: float, energy_pj: float) -> float:
    """What an objective makes least: time [s], energy [pJ] or their product [pJ s]."""
    return {"latency": seconds, "energy": energy_pj, "edp": seconds * energy_pj}[objective]
