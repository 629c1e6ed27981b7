"""Fit fields of a chip to measured times, by gradient descent through the simulator.

The prediction for an operation is the least exact time of any mapping that the measured machine considers
(`MappingRules`; by default those of a sweep), plus a constant per call. The descent follows a surrogate: for the few
mappings that promise most, the bound times what the exact time was beyond it at the last chip; rounds of descent and
exact timing alternate, so that surrogate and exact time agree where they end. At its minimiser the gradient is that of
the minimum (the envelope theorem), so mappings may change as the chip does. The loss is Cauchy's,
log(1 + (e / 3 %)^2) of the logarithmic error e: it asks for small typical errors, whatever a few rows do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.errors import KPUError, check_number, nearest
from kpu_jax.base.pytree import get_path, replace_path
from kpu_jax.base.validation import check_type
from kpu_jax.explore.finalists import Finalists, finalists_on, least_seconds, timed, wide
from kpu_jax.explore.mapping_rules import MappingRules
from kpu_jax.explore.measurements import Measurements
from kpu_jax.explore.space import is_speed
from kpu_jax.hardware import KPUConfig, check_config
from kpu_jax.hardware.fields import FIELDS
from kpu_jax.workload import Workload

if TYPE_CHECKING:  # optax is imported where a descent begins: importing the package stays light
    import optax

SCALE = 0.03  # error from which on a row counts less and less
SPREAD = 0.7  # of the starts around the given chip, in units of the logarithm


class Interval(NamedTuple):
    """A fitted value with its 95 % confidence interval; unbounded if the measurements do not determine it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """A chip whose simulated times come near the measured ones."""

    config: KPUConfig
    overhead_s: float  # of each call [s]
    intervals: dict[str, Interval]  # by field, and "overhead_us"
    predicted_s: np.ndarray  # [row], fitted to all rows
    held_out_s: np.ndarray | None  # [row], each predicted by a fit to the other folds; None without cross-validation
    measured_s: np.ndarray  # [row]
    rules: MappingRules

    def errors(self, *, held_out: bool = False) -> np.ndarray:
        """|predicted / measured - 1| [row], float64. Raises `KPUError` for held-out errors where nothing was held out."""
        if held_out and self.held_out_s is None:
            raise KPUError("held-out errors need cross-validation: calibrate with folds of 2 or more")
        predicted = self.held_out_s if held_out and self.held_out_s is not None else self.predicted_s
        return np.abs(predicted / self.measured_s - 1)

    def predict(self, workload: Workload) -> np.ndarray:
        """Exact times [row] of one execution of each operation on the calibrated chip [s]. Raises `KPUError` for what is no workload."""
        check_type("workload", workload, Workload, "make one with kpu.Workload.from_ops")
        return timed(self.config, workload, finalists_on(self.config, workload, self.rules)) + self.overhead_s

    def __str__(self) -> str:
        lines = [f"calibrated to {len(self.measured_s)} measured times; median error {np.median(self.errors()):.1%}"]
        if self.held_out_s is not None:
            lines[0] += f", {np.median(self.errors(held_out=True)):.1%} on rows not used"
        for name, (value, low, high) in self.intervals.items():
            unit = "us" if name == "overhead_us" else FIELDS[name].unit
            within = f"95 %: {low:.4g} to {high:.4g}" if math.isfinite(high) else "not determined by these measurements"
            lines.append(f"  {name:<36} {value:10.4g} {unit:<5} ({within})")
        return "\n".join(lines)


def calibrate(
    cfg: KPUConfig,
    measured: Measurements,
    free: Sequence[str],
    *,
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 200,
    rounds: int = 4,
    starts: int = 4,
    folds: int = 5,
    groups: Sequence[Any] | None = None,
    rules: MappingRules = MappingRules(),
    overhead_us: float = 1.0,
    seed: int = 0,
) -> Calibration:
    """The chip like `cfg` whose `free` fields, and a constant per call, fit the measured times best.

    `free`: dotted paths of clocks, bandwidths, latencies and vector-engine costs (real numbers that leave the mappings'
    work as it is). `optimizer`: of optax, on their logarithms (default: Adam, its rate falling from 0.1 to 0).
    `starts`: the given values, and others drawn around them. `folds`: of the cross-validation (0: none). `groups`:
    labels [row]; rows of one label are left out together. `rules`: which mappings the machine considers. `overhead_us`:
    where the constant starts [us].

    Each of the `rounds` times the most promising mappings exactly and descends for `steps`; the best round counts.
    The fields are calibrated, the times exact for the fitted chip. Intervals: from the curvature of the surrogate's
    least-squares problem at the fit.
    Raises `KPUError` for fields, counts and names that cannot be, `InfeasibleError` if an operation has no mapping.
    """
    check_config(cfg)
    check_type("measured", measured, Measurements, "make it with kpu.Measurements or kpu.load_measurements")
    names = _checked(cfg, free)
    steps = int(check_number("steps", steps, "descents", low=1, integer=True))
    rounds = int(check_number("rounds", rounds, "rounds", low=1, integer=True))
    starts = int(check_number("starts", starts, "fits", low=1, integer=True))
    folds = int(check_number("folds", folds, "parts", low=0, high=len(measured), integer=True))
    overhead_us = check_number("overhead_us", overhead_us, "us", low=0, low_open=True)
    check_type("rules", rules, MappingRules, "make them with kpu.MappingRules")
    part = _parts(groups, len(measured), folds, np.random.default_rng(seed))
    import optax

    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps)) if optimizer is None else optimizer
    descend = _descent(measured.seconds, names, optimizer, steps)
    given = np.log(np.array([*(float(get_path(cfg, name)) for name in names), overhead_us]))
    rng = np.random.default_rng(seed)
    points = [given] + [given + SPREAD * rng.standard_normal(len(given)) for _ in range(starts - 1)]

    def fit(point: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, Finalists]:
        """(loss, point, exact times) of the best of `rounds`: finalists timed exactly, then a descent."""
        tried = []
        for last in range(rounds + 1):
            chip = _chip(cfg, names, point)
            finalists = finalists_on(chip, measured.workload, rules)
            predicted = timed(chip, measured.workload, finalists) + math.exp(point[-1]) * 1e-6
            with jax.enable_x64(True):
                loss = float(_loss(predicted, measured.seconds, weights))
            tried.append((loss, point, predicted, finalists))
            if last < rounds:
                point = descend(chip, measured.workload.ops, finalists, point, weights)
        return min(tried, key=lambda found: found[0])

    everything = np.ones(len(measured))
    fits = [fit(point, everything) for point in points]
    best = min(range(starts), key=lambda i: fits[i][0])
    _, fitted, predicted, finalists = fits[best]
    held_out = None
    if folds > 1:
        held_out = np.zeros(len(measured))
        for i in range(folds):
            held_out[part == i] = fit(points[best], np.asarray(part != i, np.float64))[2][part == i]
    return Calibration(
        config=_chip(cfg, names, fitted),
        overhead_s=math.exp(fitted[-1]) * 1e-6,
        intervals=_intervals(cfg, measured, finalists, names, fitted),
        predicted_s=predicted,
        held_out_s=held_out,
        measured_s=measured.seconds,
        rules=rules,
    )


def _checked(cfg: KPUConfig, free: Sequence[str]) -> tuple[str, ...]:
    """The names of `free`, each a real number of the chip on which only the speed of its engines depends."""
    names = (free,) if isinstance(free, str) else tuple(free)
    possible = [p for p, field in FIELDS.items() if (is_speed(p) or p.startswith("vector.")) and not field.integer and not field.flag]
    for name in names:
        if name not in possible:
            hint = nearest(name, possible) if name not in FIELDS else "choose among clocks, bandwidths, latencies and vector costs"
            raise KPUError(f"free: {name!r} cannot be fitted; {hint}")
        if not float(get_path(cfg, name)) > 0:
            raise KPUError(f"free: {name} is {float(get_path(cfg, name)):g} on this chip; start from a value above 0 [{FIELDS[name].unit}]")
    if len(set(names)) != len(names):
        raise KPUError(f"free names a field twice: {', '.join(names)}")
    return names


def _parts(groups: Sequence[Any] | None, rows: int, folds: int, rng: np.random.Generator) -> np.ndarray:
    """The fold [row] in which each row is left out, at random; rows of one group together."""
    if groups is None:
        return rng.permutation(rows) % max(folds, 1)
    if len(groups) != rows:
        raise KPUError(f"groups must hold one label per measured row, {rows}, got {len(groups)}")
    label = np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(label.max()) + 1
    if count < folds:
        raise KPUError(f"groups holds {count} different labels, too few for {folds} folds: leave out fewer parts")
    return (rng.permutation(count) % max(folds, 1))[label]


def _chip(cfg: KPUConfig, names: tuple[str, ...], point: np.ndarray) -> KPUConfig:
    """The chip at a point of the descent, each field within its range."""
    values = {name: float(np.clip(v, FIELDS[name].low, FIELDS[name].high)) for name, v in zip(names, np.exp(point), strict=False)}
    return cfg.replace(values)


def _loss(predicted: Any, measured: Any, weights: Any) -> Any:
    """The weighted mean of Cauchy's loss of the logarithmic error."""
    return jnp.sum(weights * jnp.log1p((jnp.log(predicted / measured) / SCALE) ** 2)) / jnp.sum(weights)


def _at(cfg: Any, names: tuple[str, ...], point: Any) -> Any:
    for name, value in zip(names, point, strict=False):
        cfg = replace_path(cfg, name, jnp.exp(value))
    return cfg


def _descent(seconds: np.ndarray, names: tuple[str, ...], optimizer: Any, steps: int) -> Any:
    """(chip, operations, finalists, point, weights) -> point, after `steps` of the optimizer on the surrogate; float32."""
    import optax

    @jax.jit
    def run(chip: Any, ops: Any, finalists: Finalists, measured: Any, point: Any, weights: Any) -> Any:
        def loss(at: Any) -> Any:
            predicted = least_seconds(_at(chip, names, at), ops, finalists)
            return _loss(predicted + jnp.exp(at[-1]) * 1e-6, measured, weights)

        def step(carry: Any, _: Any) -> Any:
            at, state = carry
            updates, state = optimizer.update(jnp.nan_to_num(jax.grad(loss)(at)), state, at)
            return (optax.apply_updates(at, updates), state), None

        return jax.lax.scan(step, (point, optimizer.init(point)), None, steps)[0][0]

    def descend(chip: KPUConfig, ops: Any, finalists: Finalists, point: np.ndarray, weights: np.ndarray) -> np.ndarray:
        narrow = jax.tree.map(lambda v: np.asarray(v, np.float32), (chip, ops, finalists, seconds, point, weights))
        return np.asarray(run(*narrow), np.float64)

    return descend


def _intervals(
    cfg: KPUConfig, measured: Measurements, finalists: Finalists, names: tuple[str, ...], fitted: np.ndarray
) -> dict[str, Interval]:
    """Gauss-Newton: variance of the error (by its median) times the inverse of J^T J, in logarithms."""
    with jax.enable_x64(True):

        ops, chip = wide(measured.workload.ops), wide(cfg)

        def error(point: Any) -> Any:
            predicted = least_seconds(_at(chip, names, point), ops, finalists)
            return jnp.log((predicted + jnp.exp(point[-1]) * 1e-6) / measured.seconds)

        residual, jacobian = np.asarray(error(fitted)), np.asarray(jax.jacfwd(error)(fitted))
    deviation = 1.4826 * np.median(np.abs(residual))
    information = jacobian.T @ jacobian
    size = np.sqrt(np.maximum(np.diag(information), 1e-300))
    values, vectors = np.linalg.eigh(information / np.outer(size, size))
    weak = values < 1e-9
    variance = deviation**2 * (vectors**2 / np.where(weak, 1.0, values)).sum(axis=1) / size**2
    lost = (size < 1e-9) | ((vectors**2)[:, weak].sum(axis=1) > 1e-3)
    found = {}
    for i, name in enumerate([*names, "overhead_us"]):
        half = np.inf if lost[i] else 1.96 * math.sqrt(variance[i])
        spread = math.exp(half) if half < 700 else math.inf
        value = math.exp(fitted[i])
        found[name] = Interval(value, 0.0 if spread == math.inf else value / spread, value * spread)
    return found
