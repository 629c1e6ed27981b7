"""The critical path: which engine class the time is spent on, as a gradient."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import InfeasibleError, KPUError
from kpu_jax.base.pytree import is_traced
from kpu_jax.explore.mapping_search import best_mapping
from kpu_jax.hardware import KPUConfig, check_config
from kpu_jax.mapping import Mapping, check_mapping
from kpu_jax.mapping.legality import explain
from kpu_jax.model.evaluate import criticality
from kpu_jax.workload import Op, check_op

_compiled = jax.jit(criticality)


def critical_path(cfg: KPUConfig, gemm: Op, mapping: Mapping | None = None) -> dict[str, Any]:
    """Fabric cycles that each engine class contributes to the exact time of `gemm` (of all its `count` executions).

    An engine's part is the derivative of the exact time with respect to a scale factor (= 1) on all durations and
    latencies of its class: `host`, `dma` (the external memory's rate included), `block_mover`, `streamer`, `vector`
    (bias, activation and vector operations where they take longer than the bytes) and `fabric`. Time is max-plus
    linear and so homogeneous of degree one in them: the parts add up to `simulate(...).cycles` to 1e-12 (Euler).
    At ties several paths are critical; the split is that of one of them, or a convex combination of several.

    float64 with concrete values; inside jit or vmap pure, in the ambient precision (give a mapping then).
    Raises `InfeasibleError` if the mapping does not fit, `KPUError` for arguments of the wrong kind. Under a trace
    the parts of an infeasible mapping are infinite.
    """
    check_config(cfg)
    check_op(gemm)
    if mapping is not None:
        check_mapping(mapping)
    traced = is_traced(cfg, gemm, mapping)
    if mapping is None:
        if traced:
            raise KPUError("critical_path under jit or vmap needs a mapping: find it outside with best_mapping")
        mapping = best_mapping(cfg, gemm)
    arguments: tuple[Any, Any, Any] = (cfg, gemm.plain(), mapping)
    if traced:
        return criticality(*arguments)[1]
    if any(np.ndim(leaf) for leaf in jax.tree.leaves(arguments)):
        raise KPUError("critical_path takes one chip, operation and mapping; use jax.vmap(kpu.critical_path) over stacked ones")
    with jax.enable_x64(True):
        found = _compiled(*jax.tree.map(lambda v: np.asarray(v, np.float64), arguments))
    _, parts, status, overflow = jax.tree.map(np.asarray, found)
    if status:
        raise InfeasibleError(f"the mapping does not fit: {explain(float(status), float(overflow))}")
    return {name: np.float64(cycles) for name, cycles in parts.items()}
