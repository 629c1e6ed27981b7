"""How long instructions hold their engines on a chip, and how much of that the engines do not work."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kpu_jax.engines.rates import Gang, Rates
from kpu_jax.program.isa import Engine


class Kinds(NamedTuple):
    """The columns of a program that durations depend on, [kind]: it has many instructions and few kinds."""

    engine: Any
    burst_bytes: Any
    stream: Any
    bias_lanes: Any
    activation_lanes: Any


class Durations(NamedTuple):
    """[kind], in fabric cycles."""

    hold: Any  # the engine serves nothing else
    delay: Any  # from then to completion
    work: Any  # the part of the hold in which the engine itself works
    by_memory: Any  # bool: in the rest it waits for the memory's bandwidth; else for the vector engine


def durations(kinds: Kinds, rates: Rates, vector: Any) -> Durations:
    """Durations of instructions on engines of these `rates`; `vector`: the passes are a vector operation's.

    Exact (`design.md`, section 2); traceable, and differentiable in the rates as `Gang.hold` is.
    """
    served = [rates.host, rates.dma, rates.block_mover, rates.streamer]
    gang: Gang = jax.tree.map(lambda *v: jnp.stack([jnp.asarray(x, jnp.result_type(float)) for x in v])[_gang(kinds)], *served)
    size = jnp.asarray(kinds.burst_bytes, gang.limit.dtype)
    memory, serving = size / gang.limit, gang.serve(size)
    lanes = kinds.bias_lanes * rates.bias + kinds.activation_lanes * rates.activation
    hold = jnp.maximum(gang.hold(size), lanes)
    work = jnp.where(kinds.engine == Engine.HOST, memory, serving)  # the host's link is an engine that is all bandwidth

    overlap = rates.overlap > 0
    stream = kinds.stream * jnp.where(vector, rates.element, rates.stream)
    fill = jnp.where(vector, 0.0, rates.fill_drain)
    compute = stream + rates.unload + jnp.where(overlap, 0.0, fill)
    on_fabric, none = kinds.engine == Engine.FABRIC, kinds.engine == Engine.CONTROL

    def choose(of_gang: Any, of_fabric: Any) -> Any:
        return jnp.where(none, 0.0, jnp.where(on_fabric, of_fabric, of_gang))

    return Durations(
        hold=choose(hold, compute),
        delay=choose(gang.latency, jnp.where(overlap, fill, 0.0)),
        work=choose(work, compute),
        by_memory=memory >= lanes,
    )


def _gang(kinds: Kinds) -> Any:
    """Index into the four gangs; any, for instructions that none of them serves."""
    return jnp.minimum(jnp.asarray(kinds.engine), Engine.STREAMER)
