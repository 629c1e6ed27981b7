"""Exact time with gradients: the walk of `model.exact`, differentiable in the chip's rates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from kpu_jax.base.compilation import ONCE_LOOP, jit_for
from kpu_jax.base.pytree import is_traced, leaf_paths
from kpu_jax.engines.rates import Rates
from kpu_jax.model.exact import exact_cycles
from kpu_jax.model.moves import context

Scalar = jax.Array
# The rates without a derivative: codes, what is no limit, and the fill and drain of the array (a count's).
_CONSTANT = {"host.engines", "host.bus", "host.cycles", "block_mover.limit", "streamer.limit", "overlap", "fill_drain"}


@jax.custom_jvp
def makespan(rates: Rates, op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar, burst: Scalar) -> Scalar:
    """Exact makespan [fabric cycles]; infinite if a size or a rate is no positive number.

    Forward and reverse mode give the derivative with respect to `rates` (the critical path's use of each);
    it is taken by walking every pass without leaps, so its cost grows with the number of passes.
    Sizes, tiles, counts of the mapping and the array's rows and columns (its fill and drain with them) have
    derivative zero here: the bound has theirs.
    """
    return exact_cycles(context(op, mapping, rates, rows, cols, rate, burst))[0]


def _slopes(chosen: tuple[int, ...], primals: Any) -> tuple[Scalar, Scalar]:
    """(derivatives of the makespan by the leaves `chosen` of the rates, the makespan)."""
    rates, op, mapping, rows, cols, rate, burst = primals
    leaves, tree = jax.tree.flatten(rates)

    def walk(values: Scalar) -> tuple[Scalar, Scalar]:
        now = dict(enumerate(leaves)) | dict(zip(chosen, values, strict=True))
        moved = jax.tree.unflatten(tree, now.values())
        cycles, _ = exact_cycles(context(op, mapping, moved, rows, cols, rate, burst), leap=False)
        return cycles, cycles

    return jax.jacfwd(walk, has_aux=True)(jnp.stack([jnp.asarray(leaves[i], jnp.result_type(float)) for i in chosen]))


# Called eagerly, op by op, the loop would be compiled with the default options, which take longer.
_slopes_eagerly = jit_for(ONCE_LOOP, static_argnums=0)(_slopes)


def _makespan_jvp(primals: Any, tangents: Any) -> tuple[Scalar, Scalar]:
    values, pushed = jax.tree.leaves(primals[0]), jax.tree.leaves(tangents[0])
    names = [name for name, _ in leaf_paths(primals[0])]
    chosen = tuple(i for i, t in enumerate(pushed) if names[i] not in _CONSTANT and not isinstance(t, SymbolicZero))
    if not chosen:
        out = makespan(*primals)
        return out, jnp.zeros_like(out)
    fixed = jax.lax.stop_gradient(primals)
    slopes, cycles = (_slopes if is_traced(fixed) else _slopes_eagerly)(chosen, fixed)
    # The makespan is linear in the rates nearby: this is its value and, to a derivative of this derivative, its slope.
    out = cycles + sum(slope * (values[i] - jax.lax.stop_gradient(values[i])) for i, slope in zip(chosen, slopes, strict=True))
    return out, sum(slope * pushed[i] for i, slope in zip(chosen, slopes, strict=True))


makespan.defjvp(_makespan_jvp, symbolic_zeros=True)
