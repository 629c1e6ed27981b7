"""Exact time with gradients: the walk of `model.exact`, differentiable in the chip's rates, and the critical path."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from kpu_jax.base.pytree import is_traced, leaf_paths
from kpu_jax.engines.rates import Rates
from kpu_jax.model.batch import Problem, times
from kpu_jax.model.exact import Slopes

Scalar = jax.Array
# The rates without a derivative: codes, what is no limit, and the fill, drain and unloading of the array (a count's).
_CONSTANT = {
    "host.engines", "host.bus", "host.cycles", "block_mover.limit", "streamer.limit", "stream", "overlap", "fill_drain", "unload",
}  # fmt: skip
ENGINES = ("host", "dma", "block_mover", "streamer", "vector", "fabric")


@jax.custom_jvp
def makespan(rates: Rates, op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar, burst: Scalar) -> Scalar:
    """Exact makespan [fabric cycles]; infinite if a size or a rate is no positive number.

    Forward and reverse mode give the derivative with respect to `rates`: how often the critical path uses each,
    exactly, at the cost of a walk or two. At a tie one of the critical paths is followed. Sizes, tiles, counts of
    the mapping and the array's rows and columns (its fill and drain with them) have derivative zero here: the
    bound has theirs. Under `jax.vmap` the schedules run side by side.
    """
    return times()(_problem(rates, op, mapping, rows, cols, rate, burst))[0]


def _problem(*parts: Any) -> Problem:
    """Leaves of one dtype (custom_vmap leaves their shapes alone)."""
    return Problem(*jax.tree.map(lambda v: jnp.asarray(v, jnp.result_type(float)), parts))


@functools.cache
def _by_leaves(chosen: tuple[int, ...]) -> Any:
    """The directions of single leaves of the rates."""

    def along(p: Problem) -> Slopes:
        leaves, tree = jax.tree.flatten(p.rates)

        def rates_at(values: Scalar) -> Rates:
            now = dict(enumerate(leaves)) | dict(zip(chosen, values, strict=True))
            return jax.tree.unflatten(tree, now.values())

        return Slopes(rates_at, jnp.stack([leaves[i] for i in chosen]))

    return along


def by_engines(p: Problem) -> Slopes:
    """The directions of the engine classes: one scale factor on all durations and latencies of each."""

    def rates_at(scales: Scalar) -> Rates:
        host, dma, block_mover, streamer, vector, fabric = scales
        r = p.rates
        return r._replace(
            host=r.host.slower(host),
            dma=r.dma.slower(dma),
            block_mover=r.block_mover.slower(block_mover),
            streamer=r.streamer.slower(streamer),
            bias=r.bias * vector,
            activation=r.activation * vector,
            element=r.element * vector,
            stream=r.stream * fabric,
            fill_drain=r.fill_drain * fabric,
            unload=r.unload * fabric,
        )

    return Slopes(rates_at, jnp.stack([jnp.ones_like(p.rows)] * len(ENGINES)))


def sloped(rates: Rates) -> tuple[int, ...]:
    """The leaves of the rates, by position, of which the makespan has derivatives."""
    return tuple(i for i, (name, _) in enumerate(leaf_paths(rates)) if name not in _CONSTANT)


def rate_slopes(rates: Rates, op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar, burst: Scalar) -> tuple[Scalar, Scalar]:
    """(exact makespan, its derivatives by the leaves `sloped(rates)` [leaf]), of the critical path that `makespan` follows."""
    return times(_by_leaves(sloped(rates)))(_problem(rates, op, mapping, rows, cols, rate, burst))


def critical_cycles(rates: Rates, op: Any, mapping: Any, rows: Scalar, cols: Scalar, rate: Scalar, burst: Scalar) -> tuple[Scalar, Scalar]:
    """(exact makespan, the cycles that each of `ENGINES` spends on the critical path [engine])."""
    return times(by_engines)(_problem(rates, op, mapping, rows, cols, rate, burst))


def _slopes(chosen: tuple[int, ...], primals: Any) -> tuple[Scalar, Scalar]:
    """(derivatives of the makespan by the leaves `chosen` of the rates, the makespan)."""
    cycles, slopes = times(_by_leaves(chosen))(_problem(*primals))
    return slopes, cycles


_slopes_eagerly = jax.jit(_slopes, static_argnums=0)  # else every operation would be compiled on its own


def _makespan_jvp(primals: Any, tangents: Any) -> tuple[Scalar, Scalar]:
    values, pushed = jax.tree.leaves(primals[0]), jax.tree.leaves(tangents[0])
    chosen = tuple(i for i in sloped(primals[0]) if not isinstance(pushed[i], SymbolicZero))
    if not chosen:
        out = makespan(*primals)
        return out, jnp.zeros_like(out)
    fixed = jax.lax.stop_gradient(primals)
    slopes, cycles = (_slopes if is_traced(fixed) else _slopes_eagerly)(chosen, fixed)
    # The makespan is linear in the rates nearby: this is its value and, to a derivative of this derivative, its slope.
    out = cycles + sum(slope * (values[i] - jax.lax.stop_gradient(values[i])) for i, slope in zip(chosen, slopes, strict=True))
    return out, sum(slope * pushed[i] for i, slope in zip(chosen, slopes, strict=True))


makespan.defjvp(_makespan_jvp, symbolic_zeros=True)
