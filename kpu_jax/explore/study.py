"""A study: a space of chips, the workload that they are to run, what is asked for and within which limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kpu_jax.base.errors import KPUError, check_choice, shown
from kpu_jax.explore.limits import OBJECTIVES, limits_of
from kpu_jax.explore.space import Space, load_space
from kpu_jax.workload import Workload, network


@dataclass
class Study:
    """What `kpu-jax sweep FILE` answers."""

    space: Space
    workload: Workload
    names: tuple[str, ...]  # of the networks in the workload
    objective: str = "edp"
    constraints: dict[str, float] = field(default_factory=dict)


def load_study(path: str | Path) -> Study:
    """A study from a TOML file: the space of `load_space`, and

    `workload`: a list of network names, or of tables such as {network = "bert_base", batch = 8}; one pass of
    each, one after the other. `objective`: "latency", "energy" or "edp". `[constraints]`: upper limits
    (area_mm2, power_w, seconds, energy_pj). Raises `KPUError` naming the file, the entry and what is allowed.
    """
    space, rest = load_space(path)
    given = rest.get("workload")
    items = given if isinstance(given, list) else [given]
    if given is None or not items:
        raise KPUError(f'{path}: `workload` is missing: give network names, such as workload = ["resnet50", "bert_base"]')
    networks = [_network(path, item) for item in items]
    total = networks[0][1]
    for _, more in networks[1:]:
        total = total + more
    constraints = rest.get("constraints", {})
    if not isinstance(constraints, dict):
        raise KPUError(f"{path}: constraints = {shown(constraints)} must be a table: [constraints] with lines like area_mm2 = 60")
    try:
        objective = check_choice("objective", rest.get("objective", "edp"), OBJECTIVES)
        limits = limits_of(constraints)
    except KPUError as error:
        raise KPUError(f"{path}: {error}") from None
    return Study(space, total, tuple(name for name, _ in networks), objective, limits)


def _network(path: str | Path, item: Any) -> tuple[str, Workload]:
    """(name, workload) of a network's name, or of a table with its options."""
    options = dict(item) if isinstance(item, dict) else {"network": item}
    name = options.pop("network", None)
    if not isinstance(name, str):
        raise KPUError(f'{path}: workload entry {shown(item)} must be a network\'s name or a table with `network = "..."`')
    try:
        return name, network(name, **options)
    except KPUError as error:
        raise KPUError(f"{path}: workload: {error}") from None
