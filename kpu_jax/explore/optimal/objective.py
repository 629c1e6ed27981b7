"""What a search minimises: time and energy, each to a power."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kpu_jax.base.errors import KPUError, check_choice, check_number, nearest
from kpu_jax.explore.limits import OBJECTIVES

TERMS = ("latency", "energy")


class Objective(NamedTuple):
    """seconds ** latency * joules ** energy, exponents not negative: never less when either term grows."""

    latency: float
    energy: float

    def of(self, price: Any, cycles: Any) -> Any:
        """The objective of a mapping of this `Price` that takes `cycles`; with a lower bound on these, one on it."""
        return self.at(price.seconds(cycles), price.energy_pj(cycles))

    def at(self, seconds: Any, energy_pj: Any) -> Any:
        return seconds**self.latency * (energy_pj * 1e-12) ** self.energy

    @property
    def nearest_name(self) -> str:
        """The named objective that serves to find a first incumbent."""
        if self.energy == 0:
            return "latency"
        return "edp" if self.latency else "energy"


def objective_of(objective: Any) -> Objective:
    """From "latency", "energy", "edp", or exponents {"energy": 1, "latency": 2}. Raises `KPUError`."""
    if not isinstance(objective, Mapping):
        name = check_choice("objective", objective, OBJECTIVES)
        return Objective(float(name != "energy"), float(name != "latency"))
    for term in objective:
        if term not in TERMS:
            raise KPUError(f"objective: {term!r} is unknown: {nearest(term, TERMS)}")
    powers = {t: float(check_number(f"objective.{t}", objective.get(t, 0), "exponent", low=0)) for t in TERMS}
    if not any(powers.values()):
        raise KPUError('objective needs an exponent above 0, such as {"energy": 1, "latency": 2}')
    return Objective(**powers)
