"""Exact time with gradients: the walk of `model.exact`, differentiable in the chip's rates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from kpu_jax.model.exact import exact_cycles
from kpu_jax.model.moves import context
from kpu_jax.model.rates import Rates

Scalar = jax.Array


@jax.custom_jvp
def makespan(rates: Rates, op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar, burst: Scalar) -> Scalar:
    """Exact makespan [fabric cycles]; infinite loops cannot occur, sizes must be positive.

    Forward and reverse mode give the derivative with respect to `rates` (the critical path's use of each);
    it is taken by walking every pass without leaps, so its cost grows with the number of passes.
    Sizes, tiles and counts of the mapping have derivative zero here: the bound has theirs.
    """
    return exact_cycles(context(op, mapping, rates, rows, cols, rate, burst), leap=True)[0]


@makespan.defjvp
def _makespan_jvp(primals: Any, tangents: Any) -> tuple[Scalar, Scalar]:
    rates, op, mapping, rows, cols, rate, burst = jax.lax.stop_gradient(primals)
    leaves, tree = jax.tree_util.tree_flatten(rates)
    shapes = [jnp.asarray(v, jnp.result_type(float)) for v in leaves]

    def walk(flat: Scalar) -> Scalar:
        r = jax.tree_util.tree_unflatten(tree, list(flat))
        return exact_cycles(context(op, mapping, r, rows, cols, rate, burst), leap=False)[0]

    slopes = jax.jacfwd(walk)(jnp.stack(shapes))
    out = makespan(rates, op, mapping, rows, cols, rate, burst)
    change = sum(slopes[i] * t for i, t in enumerate(jax.tree_util.tree_leaves(tangents[0])))
    return out, change
