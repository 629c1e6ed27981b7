"""How much time, energy and their product change with every field of a chip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from kpu_jax.analysis.slopes import CONTINUOUS, STEPPED, Slopes, simulate_chips, slopes_of
from kpu_jax.analysis.subjects import table_of
from kpu_jax.base.errors import KPUError, check_choice, nearest, shown
from kpu_jax.base.pytree import get_path
from kpu_jax.base.tables import Row, Sheet, Shown
from kpu_jax.explore.codesign.lagrangian import POWERS
from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.explore.mapping_search import best_mapping, search
from kpu_jax.explore.mix import choose
from kpu_jax.hardware import KPUConfig
from kpu_jax.hardware.fields import FIELDS
from kpu_jax.mapping import Mapping
from kpu_jax.mapping.proposals import STRATEGIES
from kpu_jax.workload import Op, Workload

SHOWN = 20  # fields that print


class FieldSensitivity(NamedTuple):
    """What one field does. Slopes are per unit of the field; elasticities say by how many percent a measure changes per
    percent of the field. nan where the field has no neighbour that fits."""

    path: str
    value: float
    unit: str
    how: str  # "gradient", or "secant x2", "secant /2": from the chip with this field doubled, or halved
    d_seconds: float  # d time / d field [s per unit]
    d_energy_pj: float  # d energy / d field [pJ per unit]
    d_edp: float  # d (energy x delay) / d field [J s per unit]
    latency: float  # elasticity of the time
    energy: float  # elasticity of the energy
    edp: float  # elasticity of energy x delay


@dataclass(frozen=True, repr=False)
class Sensitivity(Shown):
    """The fields of a chip by what they do, the strongest first; prints as a table. `s["clocks.fabric_mhz"]` is one of them."""

    fields: tuple[FieldSensitivity, ...]  # the largest elasticity of the objective first
    objective: str
    seconds: float  # of the workload on the chip as it is
    energy_pj: float

    def __getitem__(self, path: str) -> FieldSensitivity:
        for field in self.fields:
            if field.path == path:
                return field
        raise KPUError(f"no sensitivity by {shown(path)}: {nearest(path, [field.path for field in self.fields])}")

    def rows(self) -> list[Row]:
        """One dict per field, for tables and files."""
        return [field._asdict() for field in self.fields]

    def sheet(self) -> Sheet:
        """What prints: the strongest fields."""
        table = [
            {
                "field": f.path, "value": f.value, "unit": f.unit, "latency": f.latency, "energy": f.energy, "edp": f.edp,
                "d time [ns per unit]": f.d_seconds * 1e9, "d energy [nJ per unit]": f.d_energy_pj * 1e-3, "how": f.how,
            }
            for f in self.fields[:SHOWN]
        ]  # fmt: skip
        title = f"Elasticities: percent by which time, energy and EDP change per percent of a field, strongest for {self.objective} first"
        return Sheet(title, {"": table}, [f"{len(table)} of {len(self.fields)} fields, the others are in .fields"])


def sensitivity(
    cfg: KPUConfig, workload: Op | Workload, mapping: Mapping | None = None, *, objective: str = "edp"
) -> Sensitivity:
    """Slopes and elasticities of exact time, energy and EDP by every numeric field of `cfg`.

    Clocks, bandwidths, latencies, cycles of the vector engine and the technology's constants: the exact gradient at the
    mapping (that of one of the critical paths where several tie). Counts, capacities and rates of number formats, at which
    time and legality step: secants, from the chip with the field doubled (halved where doubled is out of range or does not fit).
    Fields that the chip derives from others, addresses and flags are left out.

    `mapping`: as in `simulate`, held on every chip. None: the best mapping for the `objective` on each: gradients are
    then those at the best mapping (envelope theorem), and secants search anew on the changed chip, whose mapping is the
    best found there or the one that the chip has as it is.
    Raises `InfeasibleError` where the mapping does not fit, `KPUError` for arguments of the wrong kind and traced ones.
    """
    check_choice("objective", objective, OBJECTIVES)
    held = best_mapping(cfg, workload, objective=objective) if mapping is None else mapping
    ops, mappings = table_of("sensitivity", cfg, workload, held)
    here = slopes_of(cfg, ops, mappings)
    fields = [_gradient(cfg, path, here) for path in CONTINUOUS if not _is_derived(cfg, path)]
    fields += _secants(cfg, ops, mappings, here, objective if mapping is None else None)
    strongest = sorted(fields, key=lambda f: 0.0 if math.isnan(f.edp) else -abs(getattr(f, objective)))
    return Sensitivity(tuple(strongest), objective, here.seconds, here.energy_pj)


def _is_derived(cfg: KPUConfig, path: str) -> bool:
    field = FIELDS[path]
    return field.special_means == "derived" and float(get_path(cfg, path)) == field.special


def _gradient(cfg: KPUConfig, path: str, here: Slopes) -> FieldSensitivity:
    value, (d_seconds, d_energy) = float(get_path(cfg, path)), here.by_field[path].tolist()
    d_edp = 1e-12 * (d_seconds * here.energy_pj + here.seconds * d_energy)
    latency, energy = value * d_seconds / here.seconds, value * d_energy / here.energy_pj
    return FieldSensitivity(path, value, FIELDS[path].unit, "gradient", d_seconds, d_energy, d_edp, latency, energy, latency + energy)


def _secants(cfg: KPUConfig, ops: Op, mappings: Mapping, here: Slopes, objective: str | None) -> list[FieldSensitivity]:
    """Of the stepped fields: one chip each with the field doubled, and one with it halved where that does not do.

    `objective`: what mappings are searched for on each of them; None: the mappings are held.
    """
    found: dict[str, FieldSensitivity] = {}
    paths = [path for path in STEPPED if not _is_derived(cfg, path)]
    for how in ("secant x2", "secant /2"):
        wanted = {path: _neighbour(cfg, path, how) for path in paths if path not in found}
        tried = {path: value for path, value in wanted.items() if value is not None}
        chips = [cfg.replace({path: value}) for path, value in tried.items()]
        costs = simulate_chips(chips, ops, mappings)
        if objective is not None and chips:
            costs = _better(objective, costs, _searched(chips, ops, objective))
        for (path, value), (seconds, energy) in zip(tried.items(), costs.tolist(), strict=True):
            if math.isfinite(seconds):
                found[path] = _secant(cfg, path, value, how, here, seconds, energy)
    nothing = [np.nan] * 6
    return [
        found.get(path) or FieldSensitivity(path, float(get_path(cfg, path)), FIELDS[path].unit, "no neighbour fits", *nothing)
        for path in paths
    ]


def _neighbour(cfg: KPUConfig, path: str, how: str) -> float | None:
    value, field = float(get_path(cfg, path)), FIELDS[path]
    other = 2 * value if how.endswith("x2") else value / 2
    other = math.floor(other) if field.integer else other
    return other if field.low <= other <= field.high else None


def _secant(cfg: KPUConfig, path: str, value: float, how: str, here: Slopes, seconds: float, energy_pj: float) -> FieldSensitivity:
    old = float(get_path(cfg, path))
    before, after = (np.array([s, e, s * e * 1e-12]) for s, e in ((here.seconds, here.energy_pj), (seconds, energy_pj)))
    slopes, elasticities = (after - before) / (value - old), np.log(after / before) / math.log(value / old)
    return FieldSensitivity(path, old, FIELDS[path].unit, how, *slopes.tolist(), *elasticities.tolist())


def _searched(chips: list[KPUConfig], ops: Op, objective: str) -> np.ndarray:
    """(seconds, energy [pJ]) of each chip [chip, 2] under the best mappings of the stated set; infinite where none fits."""
    found = search(jax.tree.map(lambda *v: np.stack(v), *chips), ops, STRATEGIES, (objective,))
    count, rows = np.asarray(ops.count, np.float64), np.arange(len(ops.m))
    costs = []
    for seconds, energy in zip(found.seconds, found.energy_pj, strict=True):
        choice = choose(seconds, energy, count, objective)
        costs.append([float(np.sum(count * v[rows, choice])) for v in (seconds, energy)])
    return np.array(costs)


def _better(objective: str, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Row by row [chip, 2] the one with the lesser objective."""
    powers = np.array(POWERS[objective])
    return np.where((np.log(one) @ powers <= np.log(other) @ powers)[:, None], one, other)
