"""What a sweep keeps of the chips seen so far, on the device: counts, the least floors, and candidates for the front.

All of it needs x64. Folding chips in is associative and commutative as far as what comes out in the end is concerned.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.explore.front import BOX_BITS
from kpu_jax.explore.kernel import Totals
from kpu_jax.explore.limits import OBJECTIVES, floors, keeps, measures

Array = Any  # jax.Array, or NumPy before the first chip
ROOM = 2048  # points that the device keeps as candidates for the front; the host takes them over when they are too many
AT_ONCE = 256  # new points that are compared with them in one go
GUARDS = 32  # of the boxes seen: enough to drop most points before they are compared
NEW_BEST = 1024  # that are sorted into the least floors in one go
LAST = np.iinfo(np.int64).max


class Kept(NamedTuple):
    """Of the chips seen so far."""

    chips: Array
    met: Array  # chips on which the bound leaves room for a schedule that keeps every limit
    floors: Array  # [objective, rank] float64, ascending; infinite where there are fewer
    floor_ids: Array  # [objective, rank] int64
    points: Array  # [ROOM, (seconds, energy, area)] float32, infinite from `size` on
    ids: Array  # [ROOM]
    size: Array
    guards: Array  # [GUARDS, 3] boxes of points seen


class Rest(NamedTuple):
    """Points that found no room."""

    points: Array  # [chip, 3]
    ids: Array
    left: Array  # mask
    some: Array  # is any left?


def nothing(best: int) -> Kept:
    """Before any chip; `best`: how many of the least floors to keep."""
    shape = (len(OBJECTIVES), best)
    return Kept(
        np.int64(0), np.int64(0), np.full(shape, np.inf), np.full(shape, LAST), *_no_points(),
        np.full((GUARDS, 3), np.iinfo(np.int32).max, np.int32),
    )  # fmt: skip


def _no_points() -> tuple[np.ndarray, np.ndarray, Any]:
    return np.full((ROOM, 3), np.inf, np.float32), np.full(ROOM, LAST), np.int32(0)


def emptied(kept: Kept) -> Kept:
    """The same after the host has taken the points over; what they dominate is still dropped."""
    points, ids, size = _no_points()
    return kept._replace(points=points, ids=ids, size=size)


@jax.jit
def fold(kept: Kept, totals: Totals, ids: Array, keep: Array, limits: dict[str, Any]) -> tuple[Kept, Rest]:
    """Fold the chips of a block in; `limits`: every name of `limits.CONSTRAINTS`, infinite where there is none."""
    ids, keep = ids.ravel(), keep.ravel()
    wide = jax.tree.map(lambda v: v.ravel().astype(jnp.float64), totals)
    by_name = floors(wide, limits)
    least = jnp.where(keep, jnp.stack([by_name[name] for name in OBJECTIVES]), jnp.inf)
    possible = jnp.isfinite(least[0])
    within = keep & keeps(limits, measures(wide.seconds, wide.energy_pj, wide.area_mm2, wide.tdp_w))
    points = jnp.stack([v.ravel() for v in (totals.seconds, totals.energy_pj, totals.area_mm2)], axis=1)
    new_floors, new_ids = _least(kept.floors, kept.floor_ids, least, ids)
    kept = kept._replace(
        chips=kept.chips + keep.sum(), met=kept.met + possible.sum(), floors=new_floors, floor_ids=new_ids
    )
    return _placed(kept, points, ids, within)


@jax.jit
def fold_rest(kept: Kept, rest: Rest) -> tuple[Kept, Rest]:
    """Fold in what found no room before."""
    return _placed(kept, rest.points, rest.ids, rest.left)


def _least(known: Array, known_ids: Array, values: Array, ids: Array) -> tuple[Array, Array]:
    """The least of both [objective, rank], ties by id."""
    best = known.shape[1]

    def better(known: Array, known_ids: Array) -> Array:
        last, last_id = known[:, -1:], known_ids[:, -1:]
        return (values < last) | ((values == last) & (ids < last_id) & jnp.isfinite(values))

    def merge(state: Any) -> Any:
        known, known_ids, left = state
        rows = jax.vmap(lambda mask: jnp.nonzero(mask, size=NEW_BEST, fill_value=len(ids))[0])(left)
        more = jax.vmap(lambda v, r: v.at[r].get(mode="fill", fill_value=jnp.inf))(values, rows)
        more_ids = ids.at[rows].get(mode="fill", fill_value=LAST)
        joined = (jnp.concatenate([known, more], axis=1), jnp.concatenate([known_ids, more_ids], axis=1))
        known, known_ids = (v[:, :best] for v in jax.lax.sort(joined, dimension=1, num_keys=2))
        taken = jax.vmap(lambda mask, r: mask.at[r].set(False, mode="drop"))(left, rows)
        return known, known_ids, taken & better(known, known_ids)

    state = (known, known_ids, better(known, known_ids))
    return jax.lax.while_loop(lambda s: s[2].any(), merge, state)[:2]


def _boxes(points: Array) -> Array:
    return jax.lax.bitcast_convert_type(points, jnp.int32) >> BOX_BITS


def _placed(kept: Kept, points: Array, ids: Array, wanted: Array) -> tuple[Kept, Rest]:
    """Merge points into the candidates for the front, as long as there is room for all that one step may add."""
    boxes = _boxes(points)
    below = (kept.guards <= boxes[:, None]).all(axis=2) & (kept.guards < boxes[:, None]).any(axis=2)
    wanted = wanted & ~below.any(axis=1)

    def more(state: tuple[Kept, Array]) -> Array:
        return state[1].any() & (state[0].size <= ROOM - AT_ONCE)

    def step(state: tuple[Kept, Array]) -> tuple[Kept, Array]:
        kept, left = state
        rows = jnp.nonzero(left, size=AT_ONCE, fill_value=len(ids))[0]
        new = points.at[rows].get(mode="fill", fill_value=jnp.inf)
        new_ids = ids.at[rows].get(mode="fill", fill_value=LAST)
        both, both_ids = jnp.concatenate([kept.points, new]), jnp.concatenate([kept.ids, new_ids])
        x, y, z = _boxes(both).astype(jnp.int64).T
        # In this order no point is beaten by a later one: see `front.sparse`.
        _, a, b, c, order_ids = jax.lax.sort((x << 32 | y << 16 | z, *both.T, both_ids), num_keys=5)
        both = jnp.stack([a, b, c], axis=1)
        box = _boxes(both)
        place = jnp.arange(len(both))
        beaten = ((box <= box[:, None]).all(axis=2) & (place < place[:, None])).any(axis=1) | ~jnp.isfinite(a)
        chosen = jnp.nonzero(~beaten, size=ROOM, fill_value=len(both))[0]
        points_kept = both.at[chosen].get(mode="fill", fill_value=jnp.inf)
        guards = jax.lax.top_k(-_boxes(points_kept).sum(axis=1), GUARDS)[1]
        return kept._replace(
            points=points_kept,
            ids=order_ids.at[chosen].get(mode="fill", fill_value=LAST),
            size=(~beaten).sum(dtype=jnp.int32),
            guards=_boxes(points_kept[guards]),
        ), left.at[rows].set(False, mode="drop")

    kept, left = jax.lax.while_loop(more, step, (kept, wanted))
    return kept, Rest(points, ids, left, left.any())
