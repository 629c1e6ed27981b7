"""Seeded random chips, operations and mappings, large enough for the laws: stacked NumPy pytrees [case].

Chips and operations come from pools, built one by one through the checked constructors, so that a hundred thousand
triples cost no more than some thousand constructor calls. Tiles are drawn log-uniform; `shrink_to_fit` then halves
the tile that overflows until the mapping fits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from kpu_jax.base.compilation import BATCH, jit_for
from kpu_jax.base.pytree import build
from kpu_jax.hardware import KPUConfig, preset
from kpu_jax.mapping import Mapping
from kpu_jax.mapping.legality import needs
from kpu_jax.mapping.visits import lay_out
from kpu_jax.model.evaluate import floats, rate_of
from kpu_jax.workload import ACTIVATIONS, MAC_FORMATS, VECTOR_FUNCTIONS, Conv, Gemm, Op, VectorOp

PRESETS = ("minimal", "edge_ai", "embodied_ai", "datacenter", "t64", "t256", "t768")
DTYPES = MAC_FORMATS
CHUNK = 4096  # cases per compiled call


class Triple(NamedTuple):
    """Chips, operations and mappings; leaves of one length, or single values."""

    cfg: Any
    op: Any
    mapping: Any


def stack(trees: list[Any]) -> Any:
    """Pytrees of numbers as one pytree of arrays [tree]."""
    return jax.tree.map(lambda *v: np.array(v, np.float64), *trees)


def take(tree: Any, index: Any) -> Any:
    """The cases at `index` of a stacked pytree."""
    return jax.tree.map(lambda v: v[index], tree)


def in_chunks(function: Callable[..., Any], *trees: Any) -> Any:
    """`function`, vmapped and compiled by the caller, over stacked pytrees in calls of one padded size, in float64."""
    count = len(jax.tree.leaves(trees)[0])
    parts = []
    with jax.enable_x64(True):
        for start in range(0, count, CHUNK):
            index = np.minimum(np.arange(start, start + min(CHUNK, _power_of_two(count))), count - 1)
            answer = function(*(take(t, index) for t in trees))
            parts.append(
                jax.tree.map(lambda v, n=min(count - start, len(index)): np.asarray(v, np.float64)[:n], answer)
            )
    return jax.tree.map(lambda *v: np.concatenate(v), *parts)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def choose(rng: np.random.Generator, options: Any) -> Any:
    """One of `options`, all equally likely, as it is."""
    return options[int(rng.integers(len(options)))]


def log_integer(rng: np.random.Generator, low: int, high: int) -> int:
    """A log-uniform integer in [low, high]."""
    return int(np.clip(np.floor(np.exp(rng.uniform(np.log(low), np.log(high + 1)))), low, high))


def random_chip(rng: np.random.Generator, most_side: int = 64) -> KPUConfig:
    """A preset with most of its numbers replaced by others of the same order, some of them at their special value."""

    def scaled(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    def sometimes(value: float, otherwise: float = 0.0) -> float:
        return value if rng.random() < 0.5 else otherwise

    rows, cols = log_integer(rng, 1, most_side), log_integer(rng, 1, most_side)
    tiles = log_integer(rng, 1, 64)
    latency = 0.0 if rng.random() < 0.1 else 1.0
    changes = {
        "host_memory.region_count": log_integer(rng, 1, 4),
        "host_memory.bandwidth_gbps": scaled(1, 200),
        "external_memory.bank_count": log_integer(rng, 1, 16),
        "external_memory.bandwidth_gbps": scaled(1, 400),
        "memory_controller.controller_count": log_integer(rng, 1, 8),
        "memory_controller.page_buffer_count": log_integer(rng, 1, 64),
        "memory_controller.page_buffer_capacity_kb": scaled(0.5, 64),
        "memory_controller.bandwidth_gbps": sometimes(scaled(10, 800)),
        "on_chip_memory.l3.tile_count": log_integer(rng, 1, 64),
        "on_chip_memory.l3.tile_capacity_kb": log_integer(rng, 4, 512),
        "on_chip_memory.l2.bank_count": tiles * log_integer(rng, 1, 8),
        "on_chip_memory.l2.bank_capacity_kb": log_integer(rng, 4, 128),
        "on_chip_memory.l1.buffer_capacity_kb": choose(rng, (0.25, 0.5, 1, 2, 4, 8, 64)),
        "on_chip_memory.l1.buffer_count": sometimes(log_integer(rng, 2, 5) * (rows + cols) * tiles),
        "data_movement.dma_engine_count": log_integer(rng, 1, 16),
        "data_movement.block_mover_count": log_integer(rng, 1, 64),
        "data_movement.streamer_count": log_integer(rng, 1, 256),
        "compute.tile_count": tiles,
        "compute.processor_array.rows": rows,
        "compute.processor_array.cols": cols,
        "compute.fold_overlap": bool(rng.random() < 0.7),
        "compute.drain_overlap": bool(rng.random() < 0.7),
        **{f"clocks.{name}_mhz": scaled(200, 3000) for name in ("fabric", "dma", "block_mover", "streamer")},
        **{f"buses.{name}_bytes": 2 ** int(rng.integers(2, 9)) for name in ("dma", "block_mover", "streamer", "burst")},
        **{
            f"latency.{name}_ns": latency * scaled(0.5, 500) for name in ("host", "external", "block_mover", "streamer")
        },
        **{f"precision.macs_{bits}": choose(rng, (1, 2, 4, 8)) for bits in (32, 16, 8, 4)},
        "vector.cycles_gelu": scaled(0.5, 16),
        "technology.sram_leakage_mw_per_mib": sometimes(scaled(0.1, 50)),
        "technology.clock_pj_per_cycle_per_pe": sometimes(scaled(0.001, 1)),
        "technology.logic_leakage_mw_per_mm2": sometimes(scaled(0.1, 50)),
    }
    kept = {path: value for path, value in changes.items() if rng.random() < 0.85}
    return preset(choose(rng, PRESETS)).replace(kept)


def random_op(rng: np.random.Generator, most: int = 4096) -> Op:
    """A GEMM (mostly), a convolution or a vector operation with sides up to `most`, any options."""
    kind = rng.choice(3, p=(0.65, 0.25, 0.1))
    if kind == 2:
        function = choose(rng, sorted(VECTOR_FUNCTIONS))
        per_element = choose(rng, (1.0, 1.0, 0.25))
        elements = log_integer(rng, 1, 64 * most)
        return VectorOp(
            elements,
            function=function,
            dtype=choose(rng, DTYPES),
            outputs_per_element=per_element,
            data_on=_locations(rng),
        ).plain()
    options = matrix_options(rng)
    if kind == 0:
        m, n, k = (log_integer(rng, 1, most) for _ in range(3))
        return Gemm(m, n, k, batch=log_integer(rng, 1, 16), **options).plain()
    return random_conv(rng, side=max(2, most // 64), channels=max(2, most // 16), **options)


def random_conv(rng: np.random.Generator, side: int, channels: int, **options: Any) -> Op:
    """A convolution on images up to `side` pixels a side, with padding, stride, dilation and groups."""
    kernel, dilation = (tuple(int(x) for x in rng.integers(1, 1 + top, 2)) for top in (4, 2))
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads = tuple(tuple(int(x) for x in rng.integers(0, min(s, 4), 2)) for s in spans)
    groups = log_integer(rng, 1, 3)
    return Conv(
        log_integer(rng, 1, 3),
        *(s - 1 + log_integer(rng, 1, side) for s in spans),
        groups * log_integer(rng, 1, channels),
        groups * log_integer(rng, 1, channels),
        kernel=kernel,
        stride=tuple(int(x) for x in rng.integers(1, 4, 2)),
        padding=choose(rng, (pads, "same", "valid")),
        dilation=dilation,
        groups=groups,
        **options,
    ).plain()


def matrix_options(rng: np.random.Generator) -> dict[str, Any]:
    """Formats, bias, activation, block sparsity and locations. Densities are dyadic, so that byte counts are exact."""
    mixed = rng.random() < 0.3
    return {
        "dtype": choose(rng, DTYPES),
        **({f"{x}_dtype": choose(rng, DTYPES) for x in "abc"} if mixed else {}),
        "bias": bool(rng.random() < 0.3),
        "activation": choose(rng, ACTIVATIONS),
        "density_a": choose(rng, (1.0, 1.0, 1.0, 0.5)),
        "density_b": choose(rng, (1.0, 1.0, 1.0, 0.25)),
        "zero_gating": choose(rng, (1.0, 0.5)),
        "data_on": _locations(rng),
    }


def _locations(rng: np.random.Generator) -> Any:
    if rng.random() < 0.6:
        return "external"
    return {x: choose(rng, ("host", "external", "l3")) for x in "ABC"}


def random_mapping(rng: np.random.Generator, op: Any, tiles: Any) -> Mapping:
    """Mappings [case] of stacked operations on chips with `tiles` [case] compute tiles; nearly all legal in form."""
    count = len(op.m)

    def log_uniform(most: Any) -> np.ndarray:
        return np.clip(np.floor(np.exp(rng.uniform(0, np.log(most + 1), count))), 1, most)

    def maybe(chance: float, value: Any, otherwise: Any) -> np.ndarray:
        return np.where(rng.random(count) < chance, value, otherwise)

    flow = rng.integers(0, 3, count)
    sizes = {"b": op.batch, "m": op.m, "n": op.n, "k": op.k}
    left = np.floor(maybe(0.1, 2 * tiles, tiles))  # a few ask for more compute tiles than there are
    parts = {}
    for axis in rng.permutation(list("bmnk")):
        parts[axis] = maybe(0.4, 1, log_uniform(np.minimum(left, maybe(0.1, 8, sizes[axis]))))
        left = np.maximum(np.floor(left / parts[axis]), 1)
    l3 = {a: maybe(0.3, sizes[a], log_uniform(sizes[a])) for a in "mnk"}
    windowed = (op.kind == 1) & (rng.random(count) > 0.02)
    l3 = {a: np.where(windowed, _whole_windows(op, a, l3[a]), l3[a]) for a in "mnk"}
    shares = {a: np.ceil(l3[a] / parts[a]) for a in "mnk"}
    l2 = {a: maybe(0.2, shares[a], log_uniform(shares[a])) for a in "mnk"}
    order = np.where(rng.random(count) < 0.01, rng.integers(0, 6, count), 2 * flow + rng.integers(0, 2, count))
    fields = {
        "dataflow": flow,
        **{f"{level}_{a}": tile[a] for level, tile in (("l3", l3), ("l2", l2)) for a in "mnk"},
        "l3_order": rng.integers(0, 6, count),
        "l2_order": rng.integers(0, 6, count),
        "pass_order": order,
        **{f"double_{level}": rng.integers(0, 2, count) for level in ("l3", "l2", "l1")},
        **{f"partition_{a}": parts[a] for a in "bmnk"},
    }
    return build(Mapping, **{name: np.asarray(fields[name], np.float64) for name in Mapping.__dataclass_fields__})


def _whole_windows(op: Any, axis: str, tile: Any) -> np.ndarray:
    """A convolution's L3 tile made legal: whole output rows or whole images along M, whole windows along K."""
    if axis == "m":
        image = op.out_h * op.out_w
        rows = np.clip(np.floor(tile / op.out_w), 1, op.out_h) * op.out_w
        return np.where(tile >= image, np.floor(tile / image) * image, rows)
    if axis == "k":
        kernel = op.kernel_h * op.kernel_w
        return np.clip(np.floor(tile / kernel), 1, op.channels) * kernel
    return tile


@jit_for(BATCH)
@jax.vmap
def _status(cfg: Any, op: Any, mapping: Any) -> Any:
    cfg, op, mapping = floats(cfg), floats(op), floats(mapping)
    array = cfg.compute.processor_array
    layout = lay_out(op, mapping, array.rows, array.cols, rate_of(cfg, op))
    return needs(cfg, op, mapping, layout).status


def status_of(triple: Triple) -> np.ndarray:
    """[case]: the code of what does not fit, 0 if all does."""
    return in_chunks(_status, *triple)


@jit_for(BATCH)
@jax.vmap
def _passes(cfg: Any, op: Any, mapping: Any) -> Any:
    cfg, op, mapping = floats(cfg), floats(op), floats(mapping)
    array = cfg.compute.processor_array
    layout = lay_out(op, mapping, array.rows, array.cols, rate_of(cfg, op))
    return layout.batch_steps * layout.m.passes * layout.n.passes * layout.k.passes


def passes_of(triple: Triple) -> np.ndarray:
    """[case]: fabric passes of the schedule, that is, steps of a walk without leaps."""
    return in_chunks(_passes, *triple)


def shrink_to_fit(rng: np.random.Generator, triple: Triple, chance: float = 0.8, rounds: int = 60) -> Triple:
    """With a `chance` each, mappings whose largest tile was halved until the chip holds them (or nothing is left)."""
    cfg, op, mapping = triple
    fields = {name: np.array(getattr(mapping, name)) for name in Mapping.__dataclass_fields__}
    status = status_of(triple)
    picked = rng.random(len(status)) < chance
    for _ in range(rounds):
        todo = np.flatnonzero(picked & (status > 0))
        if not len(todo):
            break
        part = {name: value[todo] for name, value in fields.items()}
        _halve(part, status[todo], take(op, todo), cfg.compute.tile_count[todo])
        for name, value in part.items():
            fields[name][todo] = value
        status[todo] = status_of(Triple(take(cfg, todo), take(op, todo), build(Mapping, **part)))
    return Triple(cfg, op, build(Mapping, **fields))


def _halve(fields: dict[str, np.ndarray], status: np.ndarray, op: Any, tiles: np.ndarray) -> None:
    """One step towards a mapping that fits, by the code of what does not."""
    names = {2: ("l3_m", "l3_n", "l3_k"), 3: ("l2_m", "l2_n", "l2_k")}
    axes = ("partition_b", "partition_m", "partition_n", "partition_k")
    for code, group in ((1, axes), (2, names[2]), (3, names[3]), (5, axes)):
        table = np.stack([fields[name] for name in group])
        if code in (2, 3):  # the size that the block really has
            table = np.minimum(table, np.stack([op.m, op.n, op.k]))
        largest = np.argmax(table, axis=0)
        for i, name in enumerate(group):
            mine = (status == code) & (largest == i) & (table[i] > 1)
            fields[name] = np.where(
                mine, np.ceil(table[i] / 2) if code in (2, 3) else np.floor(table[i] / 2), fields[name]
            )
        stuck = (status == code) & (table.max(axis=0) <= 1)
        for name in ("double_l3", "double_l2", "double_l1"):
            fields[name] = np.where(stuck, 0, fields[name])
    streamed = np.stack([fields["l2_k"], fields["l2_m"], fields["l2_n"]])
    for flow, name in enumerate(("l2_k", "l2_m", "l2_n")):
        along_m = (op.kind == 2) & (name == "l2_m")
        mine = (status == 4) & (((fields["dataflow"] == flow) & (op.kind < 2)) | along_m)
        fields[name] = np.where(mine, np.maximum(1, np.floor(streamed[flow] / 2)), fields[name])
    for a in "mk":
        legal = _whole_windows(op, a, fields[f"l3_{a}"])
        fields[f"l3_{a}"] = np.where((op.kind == 1) & (status == 2), legal, fields[f"l3_{a}"])


def random_triples(seed: int, count: int, *, most: int = 4096, most_side: int = 64, fitting: float = 0.8) -> Triple:
    """`count` chips, operations and mappings; a `fitting` share of the mappings is shrunk until it fits, if it can."""
    rng = np.random.default_rng(seed)
    pool = int(np.clip(count // 10, 40, 1500))
    chips = stack([random_chip(rng, most_side) for _ in range(pool)])
    ops = stack([random_op(rng, most) for _ in range(2 * pool)])
    cfg, op = take(chips, rng.integers(0, pool, count)), take(ops, rng.integers(0, 2 * pool, count))
    mapping = random_mapping(rng, op, cfg.compute.tile_count)
    return shrink_to_fit(rng, Triple(cfg, op, mapping), fitting)
