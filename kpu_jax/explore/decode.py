"""The chips of a block from its number, on the device: indices, field values, and whether each is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.explore.blocks import Blocks
from kpu_jax.explore.conditions import Condition
from kpu_jax.explore.space import Axes, Space, digits

Columns = dict[str, Any]  # dotted path -> values


class Chips(NamedTuple):
    """The chips [geometry, speed] of a block. Needs x64: indices go up to 2^53."""

    ids: jax.Array  # index in the space, int64
    keep: jax.Array  # in the range that is asked for, and allowed by the conditions
    geometry: Columns  # float64 [geometry]
    speed: Columns  # float64 [speed]


def tables_of(space: Space) -> tuple[Axes, Axes]:
    """The axes of geometries and of speeds; a space without any gets a value of its base, so that there is one to batch over."""
    tiles, clock = space.base.compute.tile_count, space.base.clocks.fabric_mhz
    geometry = space.geometry or [(("compute.tile_count",), np.full((1, 1), tiles, np.float64))]
    speed = space.speed or [(("clocks.fabric_mhz",), np.full((1, 1), clock, np.float64))]
    return geometry, speed


@partial(jax.jit, static_argnames=("blocks", "names"))
def _decoded(rows: Any, first_geometry: Any, first_speed: Any, start: Any, stop: Any, *, blocks: Blocks, names: Any) -> Chips:
    geometry_index = first_geometry + jnp.arange(blocks.geometries)
    speed_index = first_speed + jnp.arange(blocks.speeds)
    ids = geometry_index[:, None] * blocks.of_speeds + speed_index
    inside = (geometry_index < blocks.of_geometries)[:, None] & (speed_index < blocks.of_speeds)
    geometry, speed = (list(zip(n, r, strict=True)) for n, r in zip(names, rows, strict=True))
    return Chips(
        ids,
        inside & (ids >= start) & (ids < stop),
        digits(geometry, jnp.minimum(geometry_index, blocks.of_geometries - 1)),
        digits(speed, jnp.minimum(speed_index, blocks.of_speeds - 1)),
    )


def decode(
    tables: tuple[Axes, Axes], constants: Columns, where: Sequence[Condition], blocks: Blocks, block: int, start: int, stop: int
) -> Chips:
    """The chips of a `block`, of which those in [start, stop) that meet every condition are to be kept.

    `tables`: of `tables_of`, on the device. Conditions are computed operation by operation, not under jit, which
    would contract products and sums: so they hold for the same chips as on the host, to the last bit.
    """
    names = tuple(tuple(name for name, _ in axes) for axes in tables)
    rows = tuple(tuple(values for _, values in axes) for axes in tables)
    chips = _decoded(rows, *map(np.int64, (*blocks.first(block), start, stop)), blocks=blocks, names=names)
    columns = {**constants, **{path: v[:, None] for path, v in chips.geometry.items()}, **chips.speed} if where else {}
    keep = chips.keep
    for each in where:
        keep = keep & each(columns)
    return chips._replace(keep=keep)
