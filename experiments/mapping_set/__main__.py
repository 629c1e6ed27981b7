"""How good is the stated set of mappings against random legal ones, by exact time?

    python -m experiments.mapping_set [--random 10000] [--set sweep|all] [--choose 64]

For every operation of ResNet-50 and BERT-base and 16 seeded chips (the seven presets among them): the EDP of
the best of the set's finalists, as a sweep picks them, over that of the best of 10,000 random legal mappings. The best
random one is exact too: candidates are timed in the order of their lower bound until no bound is below the best.
`--choose N` picks N strategies of the whole set greedily, each the one that lowers the mean log EDP most.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import kpu_jax as kpu
from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.explore.mapping_search import search
from kpu_jax.explore.retime import FINALISTS
from kpu_jax.mapping.proposals import STRATEGIES, SWEEP_STRATEGIES, propose
from kpu_jax.mapping.sampling import random_mappings
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.pricing import price

PRESETS = ("minimal", "edge_ai", "embodied_ai", "datacenter", "t64", "t256", "t768")
DRAWN = 4096  # random mappings priced at once
SPACE = Path(__file__).parents[1] / "which_kpu" / "space.toml"


def chips(seed: int, count: int) -> list[Any]:
    """The presets, and seeded chips of the main job's space."""
    space, _ = kpu.load_space(SPACE)
    ids = np.random.default_rng(seed).choice(len(space), max(count - len(PRESETS), 0), replace=False)
    return [getattr(kpu.presets, name)() for name in PRESETS][:count] + [space.chip(int(i)) for i in ids]


@jax.jit
def _prices(cfg: Any, op: Any, mappings: Any) -> Any:
    return jax.vmap(lambda m: price(cfg, op, m))(mappings)


def best_random(rng: np.random.Generator, cfg: Any, op: Any, count: int) -> tuple[float, int]:
    """(EDP [J s] of the best of `count` random legal mappings by exact time, how many were legal of 40 times as many drawn)."""
    parts, legal = [], 0
    for _ in range(-(-40 * count // DRAWN)):
        drawn = random_mappings(rng, op, int(cfg.compute.tile_count), DRAWN)
        with jax.enable_x64(True):
            prices = jax.tree.map(np.asarray, _prices(cfg, op, drawn))
        fits = np.flatnonzero(prices.status == 0)[: count - legal]
        legal += len(fits)
        parts.append(jax.tree.map(lambda v, i=fits: v[i], (drawn, prices)))
        if legal >= count:
            break
    drawn, p = jax.tree.map(lambda *v: np.concatenate(v), *parts)
    bound = p.seconds(p.cycles) * p.energy_pj(p.cycles)
    order, least = np.argsort(bound), np.inf
    for first in range(0, len(order), 16):
        if bound[order[first]] >= least:
            break
        part = order[first : first + 16]
        repeat = jax.tree.map(lambda v, n=len(part): np.full(n, v), (cfg, op))
        cycles = exact_cycles_of(*repeat, jax.tree.map(lambda v, i=part: v[i], drawn))
        seconds, energy = p.seconds_per_cycle[part] * cycles, p.dynamic_pj[part] + p.pj_per_cycle[part] * cycles
        least = min(least, float(np.min(seconds * energy)))
    return least * 1e-12, legal


@jax.jit
def _proposed(cfg: Any, ops: Any) -> Any:
    return jax.vmap(lambda op: jax.vmap(lambda s: propose(cfg, op, s))(STRATEGIES))(ops)


def edp_of_all(cfg: Any, ops: Any, found: Any) -> np.ndarray:
    """EDP [op, strategy] of the whole set: the finalists' and of the strategies that coincide with one; else infinite."""
    salt = np.random.default_rng(0).random(len(jax.tree.leaves(found.mappings)))

    def key(mappings: Any) -> np.ndarray:
        return sum(np.asarray(v, np.float64) * s for v, s in zip(jax.tree.leaves(mappings), salt, strict=True))

    with jax.enable_x64(True):
        every = key(_proposed(cfg, jax.tree.map(lambda v: np.asarray(v, np.float64), ops)))
    same = np.isclose(every[:, :, None], key(found.mappings)[0][:, None, :], rtol=1e-13, atol=0)
    edp = found.seconds[0] * found.energy_pj[0]
    return np.min(np.where(same, edp[:, None, :], np.inf), axis=2)


def choose(edp: np.ndarray, count: int) -> list[int]:
    """`count` columns of edp [case, strategy], greedily; a case without a mapping counts as four times its best."""
    cost = np.log(np.minimum(edp / edp.min(axis=1, keepdims=True), 4.0))
    best, chosen = np.full(len(cost), np.log(4.0)), []
    while len(chosen) < count and (best > cost.min(axis=1)).any():
        gain = np.minimum(best[:, None], cost).mean(axis=0)
        chosen.append(int(np.argmin(gain)))
        best = np.minimum(best, cost[:, chosen[-1]])
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=10_000, help="random legal mappings per operation and chip")
    parser.add_argument("--chips", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", choices=("sweep", "all"), default="sweep", help="which stated set")
    parser.add_argument("--finalists", type=int, default=FINALISTS, help="mappings of the set that are timed exactly, per objective")
    parser.add_argument("--choose", type=int, default=0, help="pick that many strategies of the whole set, and stop")
    args = parser.parse_args()
    net = kpu.networks.resnet50() + kpu.networks.bert_base()
    strategies = STRATEGIES if args.set == "all" or args.choose else SWEEP_STRATEGIES
    rng, table, ratios, legals = np.random.default_rng(args.seed), [], [], []
    for number, cfg in enumerate(tqdm(chips(args.seed, args.chips), unit="chip", disable=None)):
        stacked = jax.tree.map(lambda v: np.asarray(v, np.float64)[None], cfg)
        found = search(stacked, net.ops, strategies, ("edp",) if args.choose else OBJECTIVES, finalists=args.finalists)
        edp = found.seconds[0] * found.energy_pj[0] * 1e-12
        if args.choose:
            table.append(edp_of_all(cfg, net.ops, found))
            continue
        for row in range(net.rows):
            least, legal = best_random(rng, cfg, net.row(row), args.random)
            legals.append(legal)
            if np.isfinite(least):
                ratios.append((edp[row].min() / least, number >= len(PRESETS)))
    if args.choose:
        print(sorted(choose(np.concatenate(table), args.choose)))
        return
    ratio, drawn = (np.array(column) for column in zip(*ratios, strict=True))
    print(f"{len(strategies)} strategies, {args.chips} chips x {net.rows} operations, against {args.random:,} random legal mappings "
          f"({np.sum(np.array(legals) < args.random)} cases with fewer, at least {min(legals):,})")  # fmt: skip
    print(f"EDP of the set's best / of the best random one: median {np.median(ratio):.3f}, " +
          ", ".join(f"{q} % below {np.percentile(ratio, q):.3f}" for q in (75, 90, 99)) + f", worst {ratio.max():.3f}")  # fmt: skip
    print(f"presets alone {np.median(ratio[~drawn]):.3f}, drawn chips alone {np.median(ratio[drawn]):.3f}")


if __name__ == "__main__":
    main()
