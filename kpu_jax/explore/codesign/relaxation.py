"""Chips with the best mapping of every operation inside: logarithms of their measures, and slopes at those mappings.

The mappings are the best of the stated set by the lower bound on time. A measure's slope is that at the mappings
chosen, held fixed (the envelope theorem): exact wherever the choice does not change.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.explore.codesign.networks import Networks
from kpu_jax.hardware.derived import tdp_watts
from kpu_jax.mapping.proposals import propose
from kpu_jax.model.costs import total_area_mm2
from kpu_jax.model.pricing import Price, price

CHIPS_AT_ONCE = 32
ROUNDS = 3  # of weighing energy against time as the mappings chosen before imply
UNFIT = (6.0, 12.0)  # added to a log measure if any operation does not fit, and times the share of those that do not

Scalar = jax.Array
Chips = Any


class Appraisal(NamedTuple):
    """Chips [chip] under their best mappings by the bound; NumPy float64."""

    logs: np.ndarray  # [chip, 2 networks + 2] log of seconds, energy [pJ] per network, area [mm^2], TDP [W]
    floors: np.ndarray  # [chip, 2 networks] log of the least seconds and energy of any mappings of the set
    fits: np.ndarray  # [chip] does every operation fit?
    choice: np.ndarray  # [chip, row] of the strategies


def _totals(cfg: Any, seconds: Scalar, energy: Scalar, fits: Scalar, count: Scalar) -> Scalar:
    """Log measures of per-row values; rows that do not fit count as a penalty that falls with their number."""
    used = count > 0
    missing = jnp.sum(used & ~fits, axis=-1) / jnp.sum(used, axis=-1)
    penalty = jnp.where(missing > 0, UNFIT[0], 0.0) + UNFIT[1] * missing

    def log_total(v: Scalar) -> Scalar:
        total = jnp.sum(count * jnp.where(fits, v, 0.0), axis=-1)
        return jnp.log(jnp.where(total > 0, total, 1.0)) + penalty

    chip = jnp.log(jnp.stack([jnp.asarray(total_area_mm2(cfg)), jnp.asarray(tdp_watts(cfg))]))
    return jnp.concatenate([log_total(seconds), log_total(energy), chip])


def _values(p: Price) -> tuple[Scalar, Scalar]:
    return p.seconds(p.cycles), p.energy_pj(p.cycles)


@jit_for(BATCH)
def _appraise(chips: Chips, ops: Any, count: Scalar, strategies: Scalar, powers: Scalar) -> Appraisal:
    owner = (count > 0).astype(count.dtype)

    def one(cfg: Any) -> Appraisal:
        def at(op: Any, strategy: Scalar) -> tuple[Scalar, Scalar]:
            p = price(cfg, op, propose(cfg, op, strategy))
            return tuple(jnp.where(p.status == 0, v, jnp.inf) for v in _values(p))  # type: ignore[return-value]

        seconds, energy = jax.vmap(lambda op: jax.vmap(lambda s: at(op, s))(strategies))(ops)
        row_fits = jnp.isfinite(seconds).any(axis=-1)

        def log_totals(s: Scalar, e: Scalar) -> Scalar:
            return _totals(cfg, s, e, row_fits, count)

        def best(logs: Scalar) -> tuple[Scalar, Scalar]:
            """The least of powers . (seconds, energy) / totals, row by row."""
            nets = count.shape[0]
            scale_s, scale_e = (jnp.exp(-part) @ owner for part in (logs[:nets], logs[nets : 2 * nets]))
            cost = powers[0] * seconds * scale_s[:, None] + powers[1] * energy * scale_e[:, None]
            choice = jnp.argmin(jnp.where(jnp.isfinite(seconds), cost, jnp.inf), axis=-1)
            pick = [jnp.take_along_axis(v, choice[:, None], axis=-1)[:, 0] for v in (seconds, energy)]
            return choice, log_totals(*pick)

        floor = log_totals(seconds.min(axis=-1), energy.min(axis=-1))
        choice, logs = best(floor)
        for _ in range(ROUNDS - 1):
            choice, logs = best(logs)
        return Appraisal(logs, floor[:-2], jnp.all(row_fits | ~(count > 0).any(axis=0)), choice)

    return jax.vmap(one)(chips)


@jit_for(BATCH)
def _slope(chips: Chips, ops: Any, count: Scalar, chosen: Scalar, weight: Scalar) -> tuple[Scalar, Chips]:
    def one(cfg: Any, rows: Scalar, w: Scalar) -> tuple[Scalar, Chips]:
        mappings = jax.vmap(lambda op, s: propose(cfg, op, s))(ops, rows)

        def weighted(c: Any) -> Scalar:
            p = jax.vmap(lambda op, m: price(c, op, m))(ops, mappings)
            return jnp.vdot(w, _totals(c, *_values(p), p.status == 0, count))

        return jax.value_and_grad(weighted)(cfg)

    return jax.vmap(one)(chips, chosen, weight)


def _in_blocks(call: Any, trees: tuple[Any, ...]) -> Any:
    """`call` on leaves [chip] in blocks of one size, so that one compilation serves all."""
    total = len(jax.tree.leaves(trees)[0])
    blocks = []
    with jax.enable_x64(True):
        for first in range(0, total, CHIPS_AT_ONCE):
            index = np.minimum(np.arange(first, first + CHIPS_AT_ONCE), total - 1)
            blocks.append(jax.tree.map(np.asarray, call(*jax.tree.map(lambda v, i=index: v[i], trees))))
    return jax.tree.map(lambda *v: np.concatenate(v)[:total], *blocks)


def appraise(chips: Chips, nets: Networks, strategies: np.ndarray, powers: np.ndarray) -> Appraisal:
    """The best mappings of `chips` (leaves [chip]) by the bound, for the least seconds^powers[0] energy^powers[1]."""
    return _in_blocks(lambda c: _appraise(c, nets.ops, nets.count, strategies, powers), (chips,))


def slopes(chips: Chips, nets: Networks, chosen: np.ndarray, weights: np.ndarray) -> Chips:
    """d (weights . logs) / d leaf of every chip [chip], with the mappings of the strategies `chosen` [chip, row, field] held."""
    return _in_blocks(lambda c, s, w: _slope(c, nets.ops, nets.count, s, w), (chips, chosen, weights))[1]
