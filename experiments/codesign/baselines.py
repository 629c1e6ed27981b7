"""Black-box searches over the chips of a space; each appraises at most a given number of chips."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from kpu_jax.explore.codesign.axes import chip_ids
from kpu_jax.explore.codesign.finish import Finish

EXCESS = 10.0  # what a log excess over a limit costs, in log value


def cost(finish: Finish, ids: np.ndarray) -> np.ndarray:
    """Log value plus a penalty of chips, appraised by the bound like those of the co-design."""
    finish.appraise(ids.tolist())
    keys = np.array([finish.bound[i] for i in ids.tolist()])
    return np.log(keys[:, 1]) + EXCESS * keys[:, 0]


def random_search(finish: Finish, budget: int, seed: int) -> None:
    """Chips drawn uniformly without repeats."""
    rng = np.random.default_rng(seed)
    finish.appraise(rng.choice(len(finish.space), min(budget, len(finish.space)), replace=False).tolist())


def coordinate_descent(finish: Finish, budget: int, seed: int) -> None:
    """From random chips: all neighbours along one axis, to the best of them, until none is better; then the next start."""
    rng = np.random.default_rng(seed)
    while len(finish.bound) < budget:
        at = int(rng.integers(len(finish.space)))
        finish.appraise([at])
        while len(finish.bound) < budget:
            around = finish.neighbours(at)[: budget - len(finish.bound)]
            finish.appraise(around)
            best = min([at, *around], key=finish.bound.__getitem__)
            if best == at:
                break
            at = best


def cma_es(finish: Finish, budget: int, seed: int) -> None:
    """CMA-ES (library `cma`) over knot positions, rounded; restarts with a doubled population until the budget is spent."""
    import cma

    axes = finish.relaxation.axes
    last, tries, spent, restart = np.array([len(a.knots) - 1 for a in axes]), 0, 0, 0
    rng = np.random.default_rng(seed)
    while spent < budget and tries < 20 * budget:
        options = {"bounds": [0, 1], "seed": seed + 1000 * restart + 1, "verbose": -9, "popsize": 12 * 2**restart}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search = cma.CMAEvolutionStrategy(rng.random(len(axes)), 0.3, options)
        while spent < budget and not search.stop() and tries < 20 * budget:
            points = search.ask()
            ids = chip_ids(axes, np.rint(np.array(points) * last).astype(int))
            search.tell(points, cost(finish, ids).tolist())
            tries, spent = tries + len(points), len(finish.bound)
        restart = min(restart + 1, 4)


def bayesian(finish: Finish, budget: int, seed: int) -> None:
    """Bayesian optimisation: the tree-structured Parzen estimator of library `optuna`, multivariate."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    study = optuna.create_study(sampler=sampler)
    axes = finish.relaxation.axes
    for _ in range(2 * budget):  # repeats are free, but bounded
        if len(finish.bound) >= budget:
            return
        trials = [study.ask() for _ in range(min(8, budget))]
        knots = np.array([[t.suggest_int(str(i), 0, len(a.knots) - 1) for i, a in enumerate(axes)] for t in trials])
        for trial, value in zip(trials, cost(finish, chip_ids(axes, knots)), strict=True):
            study.tell(trial, float(value))


BASELINES: dict[str, Callable[[Finish, int, int], None]] = {
    "random search": random_search,
    "coordinate descent": coordinate_descent,
    "CMA-ES": cma_es,
    "Bayesian (TPE)": bayesian,
}
