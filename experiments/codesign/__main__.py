"""Co-design against random search, coordinate descent, CMA-ES and Bayesian optimisation, on the same evaluator.

    python -m experiments.codesign [--quick] [--networks resnet50 bert] [--seeds 5]

Every method gets the same space, limits and appraisal (the best mappings of the stated set inside, by the bound), as
many appraised chips as the co-design took for the same seed, and the same exact finish: its best chips timed exactly.
Equal counts, not equal wall time, which is printed. The best chip of the space by a certified sweep is the reference.
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

TIMED = 16  # chips that every method may time exactly


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
        values: dict[str, list[float]] = {}
        seconds: dict[str, list[float]] = {}
        budgets = []
        swept = kpu.sweep(space, net, objective="edp", constraints=LIMITS, retime_chips=96)
        reference = swept.retimed.best("edp")[1]
        for seed in range(seeds):
            start = time.perf_counter()
            found = kpu.codesign(space, net, constraints=LIMITS, seed=seed, retime_chips=TIMED, **short)
            seconds.setdefault("codesign", []).append(time.perf_counter() - start)
            values.setdefault("codesign", []).append(found.value)
            budgets.append(found.evaluations // (net.rows * len(SWEEP_STRATEGIES)))
            for method, run in BASELINES.items():
                start, finish = time.perf_counter(), fresh(space, net)
                run(finish, budgets[-1], seed)
                values.setdefault(method, []).append(finished(finish))
                seconds.setdefault(method, []).append(time.perf_counter() - start)
            latest = ", ".join(f"{m} {v[-1] / reference:.3f} in {seconds[m][-1]:.0f} s" for m, v in values.items())
            print(f"{name}, seed {seed}, {budgets[-1]} chips: {latest}", file=sys.stderr, flush=True)
        print(f"\n{name}: {seeds} seeds, {min(budgets)} to {max(budgets)} chips appraised; best of the space {reference:.4g} J s "
              f"({'certified' if swept.certified['edp'] else 'not certified'})")  # fmt: skip
        print("| method | EDP over the best: median (range) | seconds, median |\n|---|---|---|")
        for method, v in values.items():
            ratio = np.array(v) / reference
            spread = f"{np.median(ratio):.3f} ({ratio.min():.3f} to {ratio.max():.3f})"
            print(f"| {method} | {spread} | {np.median(seconds[method]):.1f} |", flush=True)


if __name__ == "__main__":
    main()
