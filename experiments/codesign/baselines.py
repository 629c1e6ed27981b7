"""Black-box searches over the chips of a space; each goes on while `left()` says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from kpu_jax.explore.codesign.axes import chip_ids
from kpu_jax.explore.codesign.finish import Finish

AT_ONCE = 32  # chips that are appraised in one block: fewer take as long
TRIALS = 8  # of the Bayesian optimiser at once
EXCESS = 10.0  # what a log excess over a limit costs, in log value


def cost(finish: Finish, ids: np.ndarray) -> np.ndarray:
    """Log value plus a penalty of chips, appraised by the bound like those of the co-design."""
    finish.appraise(ids.tolist())
    keys = np.array([finish.bound[i] for i in ids.tolist()])
    return np.log(keys[:, 1]) + EXCESS * keys[:, 0]


def random_search(finish: Finish, left: Callable[[], bool], seed: int) -> None:
    """Chips drawn uniformly without repeats."""
    order = np.random.default_rng(seed).permutation(len(finish.space))
    for first in range(0, len(order), AT_ONCE):
        if not left():
            return
        finish.appraise(order[first : first + AT_ONCE].tolist())


def coordinate_descent(finish: Finish, left: Callable[[], bool], seed: int) -> None:
    """From random chips: all neighbours along one axis, to the best of them, until none is better; then the next start."""
    rng = np.random.default_rng(seed)
    while left():
        at = int(rng.integers(len(finish.space)))
        finish.appraise([at])
        while left():
            around = finish.neighbours(at)
            finish.appraise(around)
            best = min([at, *around], key=finish.bound.__getitem__)
            if best == at:
                break
            at = best


def cma_es(finish: Finish, left: Callable[[], bool], seed: int) -> None:
    """CMA-ES (library `cma`) over knot positions, rounded; restarts with a doubled population."""
    import cma

    axes = finish.relaxation.axes
    last, restart = np.array([len(a.knots) - 1 for a in axes]), 0
    rng = np.random.default_rng(seed)
    while left():
        options = {"bounds": [0, 1], "seed": seed + 1000 * restart + 1, "verbose": -9, "popsize": AT_ONCE * 2 ** min(restart, 4)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search = cma.CMAEvolutionStrategy(rng.random(len(axes)), 0.3, options)
        while left() and not search.stop():
            points = search.ask()
            ids = chip_ids(axes, np.rint(np.array(points) * last).astype(int))
            search.tell(points, cost(finish, ids).tolist())
        restart += 1


def bayesian(finish: Finish, left: Callable[[], bool], seed: int) -> None:
    """Bayesian optimisation: the tree-structured Parzen estimator of library `optuna`, multivariate."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    axes = finish.relaxation.axes
    while left():
        trials = [study.ask() for _ in range(TRIALS)]
        knots = np.array([[t.suggest_int(str(i), 0, len(a.knots) - 1) for i, a in enumerate(axes)] for t in trials])
        for trial, value in zip(trials, cost(finish, chip_ids(axes, knots)), strict=True):
            study.tell(trial, float(value))


BASELINES: dict[str, Callable[[Finish, Callable[[], bool], int], None]] = {
    "random search": random_search,
    "coordinate descent": coordinate_descent,
    "CMA-ES": cma_es,
    "Bayesian (TPE)": bayesian,
}
