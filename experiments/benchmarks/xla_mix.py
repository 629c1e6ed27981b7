"""What fraction of XLA's own speed the sweep reaches: against kernels of the same operations on arrays held in cache.

    python -m experiments.benchmarks.xla_mix [--repeats 7]

Counts the floating-point operations per evaluation of the stage that times and reduces mappings (from its jaxpr). Then times
kernels that do just as many additions, products, divisions, maxima, roundings and comparisons per element, in one fused
loop over arrays of 2^13 to 2^20 elements; the fastest counts. Kernel and sweep take turns. CPU seconds of the process, so
that other work on the machine hits neither. The stage's share of the whole sweep is printed, too: laying out the
mappings is other work.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kpu_jax as kpu
from kpu_jax.explore.kernel import evaluate_block, lay_block, reduce_block, time_block
from kpu_jax.mapping.proposals import SWEEP_STRATEGIES

SPACE = Path(__file__).parents[1] / "which_kpu" / "space.toml"
SAME = {"sub": "add", "neg": "add", "min": "max", "floor": "round", "ceil": "round"} | dict.fromkeys(("gt", "le", "ge", "eq", "ne"), "lt")
COUNTED = ("add", "mul", "div", "max", "round", "lt", "select_n")
GEOMETRIES = 4
SIZES = tuple(2**i for i in range(13, 21))
CHAINS = (4, 8)  # values in flight per element


def operations(function: Any, evaluations: int, *arguments: Any, **static: Any) -> Counter[str]:
    """Floating-point operations of a jitted function, by kind, per evaluation."""
    found: Counter[str] = Counter()

    def walk(jaxpr: Any) -> None:
        for eqn in jaxpr.eqns:
            inner = [v.jaxpr for v in eqn.params.values() if hasattr(v, "jaxpr")]
            for each in inner:
                walk(each)
            name = SAME.get(eqn.primitive.name, eqn.primitive.name)
            if not inner and name in COUNTED:
                found[name] += math.prod(eqn.outvars[0].aval.shape) / evaluations

    walk(jax.make_jaxpr(partial(function, **static))(*arguments).jaxpr)
    return found


def kernel(mix: Counter[str], chains: int) -> Callable[[Any, Any, Any], Any]:
    """So many operations of each kind on every element, on `chains` values in turn.

    Their second operands are an array and scalars that are not known when it is compiled, so that none can be left out.
    """
    counts = {name: round(mix[name]) for name in COUNTED}
    order = [name for i in range(max(counts.values())) for name, count in counts.items() if i < count]

    @jax.jit
    def run(x: Any, y: Any, s: Any) -> Any:
        values = [x * s[i % 8] for i in range(chains)]
        for i, name in enumerate(order):
            at, c, other = i % chains, s[(5 * i + 1) % 16], values[(i + 1) % chains]
            v = values[at]
            if name == "add":
                v = v + (y if i % 2 else c)
            elif name == "mul":
                v = v * c
            elif name == "div":
                v = v / (y if i % 2 else other)
            elif name == "max":
                v = jnp.maximum(v, y if i % 2 else c)
            elif name == "round":
                v = jnp.round(v)
            elif name == "lt":
                v = jnp.where(v < c, c, v)  # with one of the selections
            else:
                continue
            values[at] = v
        return sum(values)

    return run


def fastest(mix: Counter[str]) -> tuple[Callable[[], Any], int, str]:
    """(the best kernel's call, elements, its name) of all chains and sizes."""
    rng = np.random.default_rng(0)
    tried = []
    for chains in CHAINS:
        run = kernel(mix, chains)
        for size in SIZES:
            x, y = (jnp.asarray(rng.uniform(1.1, 1.9, size), jnp.float32) for _ in range(2))
            call = partial(run, x, y, jnp.asarray(rng.uniform(1.01, 1.2, 16), jnp.float32))
            jax.block_until_ready(call())
            rate = size / min(cpu(call, max(1, 2**20 // size)) for _ in range(3))
            tried.append((rate, call, size, f"{size:,} elements, {chains} values in flight"))
    _, call, size, name = max(tried, key=lambda t: t[0])
    return call, size, name


def cpu(call: Callable[[], Any], times: int = 1) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    for _ in range(times):
        jax.block_until_ready(call())
    return (time.process_time() - start) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    space, _ = kpu.load_space(SPACE)
    net = kpu.networks.resnet50() + kpu.networks.bert_base()
    base64, ops64 = (jax.tree.map(lambda v: np.asarray(v, np.float64), t) for t in (space.base, net.ops))

    def narrow(tree: Any) -> Any:
        return jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), tree)

    base, ops, speed = narrow(base64), narrow(ops64), narrow(space.speed_values(np.arange(space.speeds)))
    wide = space.geometry_values(np.arange(GEOMETRIES))
    geometry = narrow(wide)

    def lay() -> Any:
        with jax.enable_x64(True):
            return jax.block_until_ready(lay_block(base64, wide, ops64, np.asarray(SWEEP_STRATEGIES)))

    laid = narrow(lay())
    evaluations = GEOMETRIES * space.speeds * net.rows * len(SWEEP_STRATEGIES)
    cycles = jax.block_until_ready(time_block(base, geometry, speed, ops, laid.work))
    mix = operations(time_block, evaluations, base, geometry, speed, ops, laid.work)
    mix += operations(reduce_block, evaluations, base, geometry, speed, ops.count, laid.dynamic_pj, cycles, objective="edp")
    call, size, name = fastest(mix)
    print(f"per evaluation: {', '.join(f'{mix[k]:.0f} {k}' for k in COUNTED)}; {sum(mix.values()):.0f} operations")
    print(f"best kernel: {name}")

    def evaluate() -> Any:
        return evaluate_block(base, geometry, speed, ops, laid, "edp")

    jax.block_until_ready(evaluate())
    rows = []
    for _ in range(args.repeats):
        rows.append((size / cpu(call, max(1, 2**21 // size)), evaluations / cpu(evaluate), evaluations / cpu(lay)))
    best, timed, laid_out = (np.array(column) for column in zip(*rows, strict=True))
    whole = 1 / (1 / timed + 1 / laid_out)
    for what, rates in (("XLA kernel of that mix", best), ("mappings timed and reduced", timed), ("the whole sweep", whole)):
        share = rates / best
        print(f"{what:<28}{np.median(rates) / 1e6:>8.1f} million per CPU second ({rates.min() / 1e6:.1f} to {rates.max() / 1e6:.1f})"
              f"{np.median(share):>8.0%} of the kernel ({share.min():.0%} to {share.max():.0%})")  # fmt: skip


if __name__ == "__main__":
    main()
