"""Co-design against random search, coordinate descent, CMA-ES and Bayesian optimisation, on the same evaluator.

    python -m experiments.codesign [--quick] [--networks resnet50 bert] [--seeds 5]

Every method gets the same space, limits and appraisal (the best mappings of the stated set inside, by the bound), as
much wall time as the co-design took in all for the same seed, everything compiled before, and then the same exact
finish on top: its best 96 chips timed exactly. The best chip of the space by a certified sweep is the reference.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

import kpu_jax as kpu
from experiments.codesign.baselines import BASELINES
from experiments.codesign.layers import NETWORKS, dosa_network
from experiments.codesign.setting import LIMITS, SPACE
from kpu_jax.explore.codesign.axes import axes_of
from kpu_jax.explore.codesign.finish import Finish
from kpu_jax.explore.codesign.gradient import Relaxation
from kpu_jax.explore.codesign.lagrangian import Problem
from kpu_jax.explore.codesign.networks import networks_of
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES

TIMED = 96  # chips that every method may time exactly


def fresh(space: kpu.Space, net: kpu.Workload) -> Finish:
    """An evaluator that has seen no chip."""
    nets = networks_of(net, None)
    problem = Problem.of(nets, "edp", LIMITS)
    relaxation = Relaxation(space.base, axes_of(space), nets, SWEEP_STRATEGIES, problem.powers, LIMITS["power_w"])
    return Finish(space, relaxation, problem, "edp", LIMITS)


def finished(finish: Finish) -> float:
    """Exact EDP of the best of the chips found [J s]; infinite if none keeps the limits."""
    ranked = sorted(finish.bound, key=finish.bound.__getitem__)[:TIMED]
    for first in range(0, len(ranked), 8):
        finish.time(ranked[first : first + 8])
    excess, value = finish.exact[finish.best].key
    return value if excess == 0 else np.inf


Run = tuple[float, int, float]  # EDP [J s], chips appraised, seconds without the exact finish of the baselines


def run_all(space: kpu.Space, net: kpu.Workload, seed: int, options: dict) -> dict[str, Run]:
    """Every method with this seed."""
    start = time.perf_counter()
    found = kpu.codesign(space, net, constraints=LIMITS, seed=seed, retime_chips=TIMED, **options)
    allowed = time.perf_counter() - start
    runs = {"co-design": (found.value, found.evaluations // (net.rows * len(SWEEP_STRATEGIES)), allowed)}
    for method, search in BASELINES.items():
        finish, start = fresh(space, net), time.perf_counter()
        search(finish, lambda start=start: time.perf_counter() - start < allowed, seed)
        seconds = time.perf_counter() - start
        runs[method] = (finished(finish), len(finish.bound), seconds)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ResNet-50 and BERT, 3 seeds, a short descent")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--seeds", type=int)
    args = parser.parse_args()
    names = args.networks or (NETWORKS[:2] if args.quick else NETWORKS)
    seeds = args.seeds or (3 if args.quick else 5)
    short = {"starts": 4, "steps": 12} if args.quick else {}
    space, _ = kpu.load_space(SPACE)
    for name in names:
        net = dosa_network(name)
        swept = kpu.sweep(space, net, objective="edp", constraints=LIMITS, retime_chips=96)
        reference = swept.retimed.best("edp")[1]
        kpu.codesign(space, net, constraints=LIMITS, seed=seeds, retime_chips=TIMED, **short)  # compiles
        runs = []
        for seed in range(seeds):
            runs.append(run_all(space, net, seed, short))
            latest = ", ".join(f"{m} {v / reference:.3f} of {c} chips in {t:.1f} s" for m, (v, c, t) in runs[-1].items())
            print(f"{name}, seed {seed}: {latest}", file=sys.stderr, flush=True)
        print(f"\n{name}: {seeds} seeds; best of the space {reference:.4g} J s "
              f"({'certified' if swept.certified['edp'] else 'not certified'})")  # fmt: skip
        print("| method | EDP over the best: median (range) | chips appraised | seconds |\n|---|---|---|---|")
        for method in runs[0]:
            value, chips, seconds = np.array([run[method] for run in runs]).T
            spread = f"{np.median(value / reference):.3f} ({value.min() / reference:.3f} to {value.max() / reference:.3f})"
            print(f"| {method} | {spread} | {np.median(chips):,.0f} | {np.median(seconds):.1f} |", flush=True)


if __name__ == "__main__":
    main()
