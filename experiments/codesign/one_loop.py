"""Hardware and mapping searched together, every evaluated mapping counted: the setting of DOSA (Hong et al., MICRO 2023).

    python -m experiments.codesign.one_loop [--networks resnet50 bert unet retinanet] [--seeds 5]

A sample is one mapping of one layer on one chip, evaluated by the bound. The baselines are DOSA's: random search,
10 chips with 1,000 random legal mappings of each layer; Bayesian optimisation in two nested loops of Gaussian processes,
100 random chips and the 10 that the process likes best, each with 100 random mappings of every layer and those 10
of 1,000 others that a second process likes best. DOSA's rule keeps the best of those 10; the stronger one, of all 110.
The co-design proposes 16 mappings of every layer, and its exact timings count too. Limits as in `experiments.codesign`;
a chip beyond the area is drawn again, uncounted. Each method's best chip is timed exactly, and that is its value.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
import warnings
from typing import Any

import jax
import numpy as np

import kpu_jax as kpu
from experiments.codesign.layers import NETWORKS, dosa_network
from experiments.codesign.random_mappings import edp, legal, network_edp, taken
from experiments.codesign.setting import LIMITS, SPACE
from kpu_jax.explore.codesign.axes import axes_of, knots_of
from kpu_jax.explore.limits import OBJECTIVES
from kpu_jax.explore.retime import FINALISTS
from kpu_jax.mapping.proposals import STRATEGIES
from kpu_jax.model.costs import total_area_mm2

# Chosen greedily by exact time on ResNet-50 and BERT-base: `python -m experiments.mapping_set --choose 16`.
PROPOSALS = STRATEGIES[[67, 88, 105, 111, 114, 154, 179, 271, 272, 322, 374, 396, 412, 418, 424, 625]]
RANDOM_CHIPS, RANDOM_MAPPINGS = 10, 1000
CHIPS, CHIPS_PICKED, MAPPINGS, MAPPINGS_PICKED, POOL = 100, 10, 100, 10, 1000
CANDIDATES = 10_000  # chips that the process over chips ranks
DESCENT = {"starts": 1, "steps": 6, "retime_chips": 8}


def draw(space: kpu.Space, rng: np.random.Generator, count: int) -> list[int]:
    """Chips within the area."""
    chips: list[int] = []
    while len(chips) < count:
        i = int(rng.integers(len(space)))
        if i not in chips and total_area_mm2(space.chip(i)) <= LIMITS["area_mm2"]:
            chips.append(i)
    return chips


def features(tree: Any) -> np.ndarray:
    """Logarithms of a mapping's fields [mapping, field]."""
    return np.log2(1 + np.stack([np.asarray(v, float) for v in jax.tree.leaves(tree)], axis=1))


def ranked(x: np.ndarray, y: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Candidates in the order of mean less one deviation of a Gaussian process through (x, y), standardised."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.preprocessing import StandardScaler

    kept = np.isfinite(y)
    if not kept.any():
        return np.arange(len(candidates))
    scale_x, scale_y = StandardScaler().fit(x), StandardScaler().fit(y[kept, None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        process = GaussianProcessRegressor(alpha=1e-6).fit(scale_x.transform(x[kept]), scale_y.transform(y[kept, None])[:, 0])
        mean, deviation = process.predict(scale_x.transform(candidates), return_std=True)
    return np.argsort(mean - deviation)


def best_of_random(rng: np.random.Generator, cfg: Any, op: Any) -> tuple[tuple, int] | None:
    """((mapping, price), samples) of the least EDP; None where no random mapping is legal."""
    found = legal(rng, cfg, op, RANDOM_MAPPINGS)
    values = edp(found[1])
    return (taken(found, int(np.argmin(values))), len(values)) if len(values) else None


def best_of_process(rng: np.random.Generator, cfg: Any, op: Any, picked_only: bool = False) -> tuple[tuple, int] | None:
    """The same of 100 random mappings and the 10 of 1,000 others that a Gaussian process through them picks, or of these 10."""
    pool = legal(rng, cfg, op, MAPPINGS + POOL)
    values = edp(pool[1])  # of the picked ones only the values are read
    if not len(values):
        return None
    x, first = features(pool[0]), min(MAPPINGS, len(values))
    picked = first + ranked(x[:first], values[:first], x[first:])[:MAPPINGS_PICKED] if len(values) > first else []
    sampled = np.concatenate([np.arange(first), np.asarray(picked, int)])
    kept = sampled[first:] if picked_only and len(sampled) > first else sampled
    return taken(pool, int(kept[np.argmin(values[kept])])), len(sampled)


class Search:
    """Chips evaluated one by one with mappings found by `inner`; the best by the bound is timed exactly."""

    def __init__(self, space: kpu.Space, net: kpu.Workload, rng: np.random.Generator, inner: Any) -> None:
        self.space, self.net, self.rng, self.inner = space, net, rng, inner
        self.samples, self.best, self.chosen = 0.0, (np.inf, -1), None

    def evaluate(self, chip: int) -> float:
        cfg = self.space.chip(chip)
        layers = [self.inner(self.rng, cfg, self.net.row(row)) for row in range(self.net.rows)]
        self.samples += sum(layer[1] for layer in layers if layer) / self.net.rows
        if not all(layers):
            return np.inf
        chosen = [layer[0] for layer in layers]
        value = network_edp(cfg, self.net, chosen, LIMITS["power_w"], exact=False)
        if value < self.best[0]:
            self.best, self.chosen = (value, chip), chosen
        return value

    def exact(self) -> float:
        cfg = self.space.chip(self.best[1])
        return network_edp(cfg, self.net, self.chosen, np.inf, exact=True)  # exact time is longer: power only falls


def random_search(space: kpu.Space, net: kpu.Workload, seed: int) -> tuple[float, float]:
    """(exact EDP [J s], samples per layer)."""
    rng = np.random.default_rng(seed)
    search = Search(space, net, rng, best_of_random)
    for chip in draw(space, rng, RANDOM_CHIPS):
        search.evaluate(chip)
    return search.exact(), search.samples


def bayesian(space: kpu.Space, net: kpu.Workload, seed: int, picked_only: bool = False) -> tuple[float, float]:
    """The same by two nested loops of Gaussian processes."""
    rng = np.random.default_rng(seed)
    search, axes = Search(space, net, rng, functools.partial(best_of_process, picked_only=picked_only)), axes_of(space)
    seen = draw(space, rng, CHIPS)
    values = np.array([search.evaluate(chip) for chip in seen])
    others = np.setdiff1d(rng.choice(len(space), min(CANDIDATES, len(space)), replace=False), seen)
    order = others[ranked(knots_of(axes, np.array(seen)), values, knots_of(axes, others))]
    within = (int(c) for c in order if total_area_mm2(space.chip(int(c))) <= LIMITS["area_mm2"])
    for _, chip in zip(range(CHIPS_PICKED), within, strict=False):
        search.evaluate(chip)
    return search.exact(), search.samples


def gradient(space: kpu.Space, net: kpu.Workload, seed: int) -> tuple[float, float]:
    """The same by the co-design; a finalist timed exactly counts as a sample more."""
    found = kpu.codesign(space, net, constraints=LIMITS, seed=seed, strategies=PROPOSALS, **DESCENT)
    return found.value, found.evaluations / net.rows + found.timed * (len(PROPOSALS) + FINALISTS * len(OBJECTIVES))


METHODS = {
    "co-design": gradient,
    "random search": random_search,
    "Bayesian, best of all": bayesian,
    "Bayesian, DOSA's rule": functools.partial(bayesian, picked_only=True),
}


def spread(values: np.ndarray, digits: str) -> str:
    """Median (range)."""
    median, low, high = (format(v, f".{digits}") for v in (np.median(values), values.min(), values.max()))
    return f"{median} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    args = parser.parse_args()
    space, _ = kpu.load_space(SPACE)
    print("| network | method | EDP, J s: median (range) | over the co-design's | samples per layer | seconds |\n|---|---|---|---|---|---|")
    for name in args.networks:
        net, rows = dosa_network(name), {}
        for method in dict.fromkeys(["co-design", *args.methods]):
            found = []
            for seed in range(args.seeds):
                start = time.perf_counter()
                found.append((*METHODS[method](space, net, seed), time.perf_counter() - start))
                print(f"{name}, seed {seed}, {method}: {found[-1]}", file=sys.stderr, flush=True)
            rows[method] = np.array(found)
        ours = rows["co-design"][:, 0]
        for method, row in rows.items():
            samples, seconds = np.median(row[:, 1:], axis=0)
            cells = [name, method, spread(row[:, 0], "3g"), spread(row[:, 0] / ours, "2f"), f"{samples:,.0f}", f"{seconds:.0f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
