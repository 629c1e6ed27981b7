"""How often every dataflow, order, buffering and kind of partition occurs in a set of mappings."""

from __future__ import annotations

from typing import Any

import numpy as np

from kpu_jax.mapping import BUFFERINGS, DATAFLOWS, ORDERS, PASS_ORDERS

LEVELS = ("l3", "l2", "l1")


def shares(mappings: Any, chosen: Any = None) -> dict[str, float]:
    """Share of the `chosen` cases (all, without it) of stacked `mappings` that have each feature."""
    codes = {name: np.asarray(getattr(mappings, name)) for name in type(mappings).__dataclass_fields__}
    if chosen is not None:
        codes = {name: value[np.asarray(chosen)] for name, value in codes.items()}
    parts = {a: codes[f"partition_{a}"] > 1 for a in "bmnk"}
    cut = sum(parts.values())
    features = {
        **{flow: codes["dataflow"] == i for i, flow in enumerate(DATAFLOWS)},
        **{f"{lv} order {order}": codes[f"{lv}_order"] == i for lv in ("l3", "l2") for i, order in enumerate(ORDERS)},
        **{f"pass order {order}": codes["pass_order"] == i for i, order in enumerate(PASS_ORDERS)},
        **{f"{lv} {kind}": codes[f"double_{lv}"] == i for lv in LEVELS for i, kind in enumerate(BUFFERINGS)},
        **{f"partition of {a}": parts[a] for a in "bmnk"},
        "no partition": cut == 0,
        "partition of several axes": cut > 1,
    }
    return {name: float(np.mean(mask)) for name, mask in features.items()}


def check(mappings: Any, chosen: Any = None, least: float = 0.01) -> None:
    """Print the shares; every feature must have at least `least` of the cases."""
    found = shares(mappings, chosen)
    print("; ".join(f"{name} {100 * share:.1f} %" for name, share in found.items()))
    rare = {name: share for name, share in found.items() if share < least}
    assert not rare, f"in fewer than {100 * least:g} % of the cases: {rare}"
