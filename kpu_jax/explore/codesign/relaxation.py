"""Chips with the best mapping of every operation inside: logarithms of their measures, and slopes at those mappings.

The mappings are the best of the stated set by the lower bound on time. A measure's slope is that at the mappings
chosen, held fixed (the envelope theorem): exact wherever the choice does not change. The bound's time is short, so its
power is high: under a power limit a network counts as slowed until it keeps the limit, as exact schedules are slower.
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
from kpu_jax.model.costs import costs_of, total_area_mm2
from kpu_jax.model.pricing import price

CHIPS_AT_ONCE = 32
NO_LIMIT = 1e15  # W
ROUNDS = 3  # of weighing energy against time as the mappings chosen before imply
UNFIT = (6.0, 12.0)  # added to a log measure if any operation does not fit, and times the share of those that do not

Scalar = jax.Array
Chips = Any


class Appraisal(NamedTuple):
    """Chips [chip] under their best mappings by the bound; NumPy float64 outside of jit."""

    logs: Any  # [chip, 2 networks + 2] log of seconds, energy [pJ] per network, area [mm^2], TDP [W]
    floors: Any  # [chip, 2 networks] log of the least seconds and energy of any mappings of the set
    fits: Any  # [chip] does every operation fit?
    choice: Any  # [chip, row] of the strategies


class Rows(NamedTuple):
    """Seconds and energy that does not depend on time [pJ] of every row; infinite or ignored where it does not fit."""

    seconds: Scalar
    dynamic_pj: Scalar


def _totals(cfg: Any, rows: Rows, fits: Scalar, count: Scalar, limit_w: Scalar) -> Scalar:
    """Log measures [measure]; rows that do not fit count as a penalty that falls with their number.

    A network above `limit_w` is slowed until it keeps it, at most until what is left beside static power is 1 % of it.
    """
    used = count > 0
    missing = jnp.sum(used & ~fits, axis=-1) / jnp.sum(used, axis=-1)
    penalty = jnp.where(missing > 0, UNFIT[0], 0.0) + UNFIT[1] * missing

    def total(v: Scalar) -> Scalar:
        summed = jnp.sum(count * jnp.where(fits, v, 0.0), axis=-1)
        return jnp.where(summed > 0, summed, 1.0)

    static = _static_w(cfg)
    dynamic = total(rows.dynamic_pj)
    seconds = jnp.maximum(total(rows.seconds), dynamic * 1e-12 / jnp.maximum(limit_w - static, 0.01 * limit_w))
    energy = dynamic + static * 1e12 * seconds
    chip = jnp.log(jnp.stack([jnp.asarray(total_area_mm2(cfg)), jnp.asarray(tdp_watts(cfg))]))
    return jnp.concatenate([jnp.log(seconds) + penalty, jnp.log(energy) + penalty, chip])


def _static_w(cfg: Any) -> Scalar:
    """Leakage and clock power [W]."""
    costs = costs_of(cfg)
    return costs.leakage_w + costs.clock_pj * cfg.clocks.fabric_mhz * 1e-6


@jit_for(BATCH)
def _appraise(chips: Chips, ops: Any, count: Scalar, strategies: Scalar, powers: Scalar, limit_w: Scalar) -> Appraisal:
    owner = (count > 0).astype(count.dtype)

    def one(cfg: Any) -> Appraisal:
        def at(op: Any, strategy: Scalar) -> Rows:
            p = price(cfg, op, propose(cfg, op, strategy))
            return Rows(*(jnp.where(p.status == 0, v, jnp.inf) for v in (p.seconds(p.cycles), p.dynamic_pj)))

        rows = jax.vmap(lambda op: jax.vmap(lambda s: at(op, s))(strategies))(ops)
        energy = rows.dynamic_pj + _static_w(cfg) * 1e12 * rows.seconds
        fits, nets = jnp.isfinite(rows.seconds).any(axis=-1), count.shape[0]

        def log_totals(of_row: Rows) -> Scalar:
            return _totals(cfg, of_row, fits, count, limit_w)

        def best(logs: Scalar) -> tuple[Scalar, Scalar]:
            """The least of powers . (seconds, energy) / totals, row by row."""
            scale_s, scale_e = (jnp.exp(-part) @ owner for part in (logs[:nets], logs[nets : 2 * nets]))
            cost = powers[0] * rows.seconds * scale_s[:, None] + powers[1] * energy * scale_e[:, None]
            choice = jnp.argmin(jnp.where(jnp.isfinite(energy), cost, jnp.inf), axis=-1)
            return choice, log_totals(Rows(*(jnp.take_along_axis(v, choice[:, None], axis=-1)[:, 0] for v in rows)))

        floor = log_totals(Rows(*(v.min(axis=-1) for v in rows)))  # every row at its least: no choice is below in either
        choice, logs = best(floor)
        for _ in range(ROUNDS - 1):
            choice, logs = best(logs)
        return Appraisal(logs, floor[:-2], jnp.all(fits | ~(count > 0).any(axis=0)), choice)

    return jax.vmap(one)(chips)


@jit_for(BATCH)
def _slope(chips: Chips, ops: Any, count: Scalar, chosen: Scalar, weight: Scalar, limit_w: Scalar) -> tuple[Scalar, Chips]:
    def one(cfg: Any, rows: Scalar, w: Scalar) -> tuple[Scalar, Chips]:
        mappings = jax.vmap(lambda op, s: propose(cfg, op, s))(ops, rows)

        def weighted(c: Any) -> Scalar:
            p = jax.vmap(lambda op, m: price(c, op, m))(ops, mappings)
            return jnp.vdot(w, _totals(c, Rows(p.seconds(p.cycles), p.dynamic_pj), p.status == 0, count, limit_w))

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


def appraise(chips: Chips, nets: Networks, strategies: np.ndarray, powers: np.ndarray, limit_w: float = NO_LIMIT) -> Appraisal:
    """The best mappings of `chips` (leaves [chip]) by the bound, for the least seconds^powers[0] energy^powers[1]."""
    return _in_blocks(lambda c: _appraise(c, nets.ops, nets.count, strategies, powers, limit_w), (chips,))


def slopes(chips: Chips, nets: Networks, chosen: np.ndarray, weights: np.ndarray, limit_w: float = NO_LIMIT) -> Chips:
    """d (weights . logs) / d leaf of every chip [chip], with the mappings of the strategies `chosen` [chip, row, field] held."""
    return _in_blocks(lambda c, s, w: _slope(c, nets.ops, nets.count, s, w, limit_w), (chips, chosen, weights))[1]
