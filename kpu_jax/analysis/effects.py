"""Which arguments of a function matter over their whole range: Sobol indices and Morris elementary effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, check_number, is_number, shown
from kpu_jax.base.tables import Sheet, Shown

Function = Callable[[np.ndarray], Any]  # points [n, argument] in the unit cube -> values [n]
RESAMPLES = 400  # of the bootstrap


@dataclass(frozen=True, repr=False)
class SobolIndices(Shown):
    """Shares of the variance, float64 [argument]; intervals [argument, (low, high)] by bootstrap over the samples."""

    names: tuple[str, ...]
    first: np.ndarray  # by the argument alone
    total: np.ndarray  # by the argument and all its interactions
    first_interval: np.ndarray
    total_interval: np.ndarray
    mean: float  # of the values
    variance: float
    confidence: float  # of the intervals
    evaluations: int
    of: str = "the function"

    def sheet(self) -> Sheet:
        """What prints: the arguments, the largest total share first."""
        rows = [
            {
                "argument": self.names[i], "alone": round(float(self.first[i]), 3), "interval": _span(self.first_interval[i]),
                "with interactions": round(float(self.total[i]), 3), "its interval": _span(self.total_interval[i]),
            }
            for i in np.argsort(-self.total, kind="stable")
        ]  # fmt: skip
        title = f"Shares of the variance of {self.of} (Sobol indices, {self.confidence:.0%} intervals, {self.evaluations:,} evaluations)"
        alone = f"arguments alone explain {self.first.sum():.0%}; mean {self.mean:.4g}, standard deviation {np.sqrt(self.variance):.4g}"
        return Sheet(title, {"": rows}, [alone])


@dataclass(frozen=True, repr=False)
class MorrisEffects(Shown):
    """Change of the value per whole range of an argument, float64 [argument]; the interval is of `size`, by bootstrap."""

    names: tuple[str, ...]
    size: np.ndarray  # mean of |effect|: how much it matters
    mean: np.ndarray  # mean of the effect: in which direction
    spread: np.ndarray  # standard deviation of the effect: curvature and interactions; 0 if linear and alone
    size_interval: np.ndarray  # [argument, (low, high)]
    confidence: float
    evaluations: int
    of: str = "the function"

    def sheet(self) -> Sheet:
        """What prints: the arguments, the largest effect first."""
        rows = [
            {
                "argument": self.names[i], "|effect|": float(self.size[i]), "interval": _span(self.size_interval[i]),
                "effect": float(self.mean[i]), "spread": float(self.spread[i]),
            }
            for i in np.argsort(-self.size, kind="stable")
        ]  # fmt: skip
        how = f"Morris, {self.confidence:.0%} intervals, {self.evaluations:,} evaluations"
        return Sheet(f"Change of {self.of} over the range of an argument ({how})", {"": rows})


def sobol_indices(
    function: Function, names: Sequence[str], *, samples: int = 1024, confidence: float = 0.95, seed: int = 0, of: str = "the function"
) -> SobolIndices:
    """First- and total-order Sobol indices of `function` over independent arguments, uniform on [0, 1).

    Saltelli's design on a Sobol sequence with a random shift: samples (arguments + 2) evaluations. First order by the
    estimator of Saltelli et al. (Computer Physics Communications 181, 2010, table 2b), total order by Jansen's (table 2f). Both are
    estimates, which may lie a little outside [0, 1]; the intervals hold for independent samples and so are wide for this sequence.
    Raises `KPUError` unless `samples` is a power of two, and for values that are not finite.
    """
    count = int(check_number("samples", samples, "samples", low=2, high=2**22, integer=True))
    if count & (count - 1):
        raise KPUError(f"samples must be a power of two, as a Sobol sequence needs it, got {count}: take {1 << count.bit_length()}")
    level = check_number("confidence", confidence, "probability", low=0, high=0.999, low_open=True)
    arguments, rng = len(_names(names)), np.random.default_rng(int(check_number("seed", seed, "seed", integer=True)))
    from scipy.stats import qmc  # takes most of a second to import

    both = (qmc.Sobol(2 * arguments, scramble=False).random(count) + rng.random(2 * arguments)) % 1.0
    a, b = both[:, :arguments], both[:, arguments:]
    mixed = [np.where(np.arange(arguments) == i, b, a) for i in range(arguments)]
    values = _values(function, np.concatenate([a, b, *mixed])).reshape(arguments + 2, count)
    mean = values[:2].mean()
    of_a, of_b, of_mixed = values[0] - mean, values[1] - mean, values[2:] - mean
    # The columns of which the indices are ratios of means, so that a bootstrap is a product with its weights.
    alone, with_others = of_b * (of_mixed - of_a), 0.5 * (of_a - of_mixed) ** 2
    moments = np.stack([of_a, of_b, of_a**2, of_b**2])

    def indices(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        m = weights @ moments.T
        variance = (m[:, 2] + m[:, 3]) / 2 - ((m[:, 0] + m[:, 1]) / 2) ** 2
        scale = np.where(variance > 0, variance, np.inf)[:, None]  # of a constant nothing is due to anything
        return weights @ alone.T / scale, weights @ with_others.T / scale, variance

    first, total, variance = indices(np.full((1, count), 1 / count))
    drawn = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    resampled = indices(drawn)
    ends = [(1 - level) / 2, (1 + level) / 2]
    intervals = [np.quantile(v, ends, axis=0).T for v in resampled[:2]]
    return SobolIndices(
        tuple(names), first[0], total[0], intervals[0], intervals[1], float(mean), float(max(variance[0], 0.0)), level, values.size, of
    )


def morris_effects(
    function: Function, names: Sequence[str], *, levels: int | Sequence[int] = 4, trajectories: int = 32, confidence: float = 0.95,
    seed: int = 0, of: str = "the function",
) -> MorrisEffects:  # fmt: skip
    """Elementary effects of `function` over arguments on [0, 1]: trajectories (arguments + 1) evaluations.

    Morris, Technometrics 33(2), 1991; size as in Campolongo et al., Environmental Modelling & Software 22, 2007. An argument
    takes `levels` equally spaced values (one number, or one per argument; 1: it stays at 0), and moves by half of them.
    Cheap screening: no shares of variance. Raises `KPUError` for values that are not finite.
    """
    count = int(check_number("trajectories", trajectories, "trajectories", low=2, high=1e6, integer=True))
    level = check_number("confidence", confidence, "probability", low=0, high=0.999, low_open=True)
    arguments, rng = len(_names(names)), np.random.default_rng(int(check_number("seed", seed, "seed", integer=True)))
    each = list(levels) if isinstance(levels, (list, tuple)) else [levels] * arguments
    if len(each) != arguments:
        raise KPUError(f"levels must be one number, or {arguments}, one per argument, got {shown(levels)}")
    sizes = np.array([check_number("levels", n, "values", low=1, high=1e6, integer=True) for n in each])
    step = sizes // 2  # levels that a move covers
    start = np.floor(rng.random((count, arguments)) * (sizes - step))
    upwards = rng.random((count, arguments)) < 0.5
    place = np.argsort(rng.random((count, arguments)), axis=1)  # [trajectory, argument]: as the how-manieth it moves
    moved = np.arange(arguments + 1)[:, None] > place[:, None, :]  # [trajectory, point, argument]
    at = start[:, None] + step * (moved == upwards[:, None])
    points = at / np.maximum(sizes - 1, 1)
    values = _values(function, points.reshape(-1, arguments)).reshape(count, arguments + 1)
    change = np.take_along_axis(np.diff(values, axis=1), place, axis=1)
    span = step / np.maximum(sizes - 1, 1)
    effect = np.where(span > 0, np.where(upwards, change, -change) / np.where(span > 0, span, 1.0), 0.0)
    weights = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    interval = np.quantile(weights @ np.abs(effect), [(1 - level) / 2, (1 + level) / 2], axis=0).T
    return MorrisEffects(
        tuple(names), np.abs(effect).mean(0), effect.mean(0), effect.std(0, ddof=1), interval, level, values.size, of
    )


def _span(interval: np.ndarray) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _names(names: Sequence[str]) -> Sequence[str]:
    of_text = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    if not of_text or not names or len(set(names)) != len(names):
        raise KPUError(f"names must list the arguments, each once, got {shown(names)}")
    return names


def _values(function: Function, points: np.ndarray) -> np.ndarray:
    if not callable(function):
        raise KPUError(f"the function must take points [n, argument] and give values [n], got {shown(function)}")
    given = function(points)
    try:
        found = np.asarray(given)
    except ValueError:  # rows of unequal lengths
        raise KPUError(f"the function must give one number per point [{len(points)}], got {shown(given)}") from None
    if not is_number(found) or found.shape != points.shape[:1]:
        raise KPUError(f"the function must give one number per point [{len(points)}], got {shown(found)} of shape {found.shape}")
    values = found.astype(np.float64)
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values)))
        raise KPUError(f"the function gives {values[bad]} at {np.round(points[bad], 4).tolist()}: effects need finite values everywhere")
    return values
