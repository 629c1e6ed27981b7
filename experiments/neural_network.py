"""What do the KPU's narrow number formats cost a small network, and does training through the simulator win it back?

    python -m experiments.neural_network [--quick]

A perceptron learns scikit-learn's handwritten digits in float32. Its products then run on a simulated chip in narrower
formats (operands rounded, scaled to their range), which gives the accuracy, the cycles and the energy. Last it is tuned
for each format with gradients through `machine.matmul`, whose rounding is straight-through, and runs again.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import kpu_jax as kpu

FORMATS = ("int8", "fp8", "int4", "fp4")
WIDTHS = (64, 32, 32, 10)  # pixels, two hidden layers, digits
Params = list[tuple[Any, Any]]  # weights [inputs, outputs] and bias [outputs] of each layer


class Digits(NamedTuple):
    """Images [image, 64] from 0 to 1, and which digit each is."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


class Row(NamedTuple):
    """One format: accuracy on the test images, and what classifying all of them takes."""

    dtype: str
    accuracy: float  # of the float network, run in this format
    tuned: float  # after tuning for this format
    cycles: float
    energy_uj: float


def load(seed: int) -> Digits:
    """A fifth of the 1,797 images for testing, the rest for training, drawn at random."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    held = len(x) // 5
    return Digits(x[held:], y[held:], x[:held], y[:held])


def initial(seed: int) -> Params:
    """He's initialisation (arXiv:1502.01852)."""
    rng = np.random.default_rng(seed)
    shapes = list(zip(WIDTHS[:-1], WIDTHS[1:], strict=True))
    return [(np.float32(rng.normal(0, np.sqrt(2 / m), (m, n))), np.zeros(n, np.float32)) for m, n in shapes]


def logits(matmul: Any, params: Params, x: Any) -> Any:
    """The network by `matmul(x, weights, bias=, activation=)`: ReLU between layers, fused."""
    for weights, bias in params[:-1]:
        x = matmul(x, weights, bias=bias, activation="relu")
    weights, bias = params[-1]
    return matmul(x, weights, bias=bias)


@functools.partial(jax.jit, static_argnames=("dtype", "steps"))
def train(params: Params, x: Any, y: Any, rate: float, *, dtype: str, steps: int) -> Params:
    """`steps` of Adam on all images, every product as the machine computes it in `dtype`; the weights stay float32."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    matmul = functools.partial(kpu.machine.matmul, dtype=dtype)

    def loss(p: Params) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits(matmul, p, x), y).mean()

    def step(state: Any, _: None) -> tuple[Any, None]:
        p, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(p), memory, p)
        return (optax.apply_updates(p, updates), memory), None

    return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[0][0]


def measure(sim: kpu.Simulator, params: Params, digits: Digits, dtype: str) -> tuple[float, float, float]:
    """Accuracy, cycles and energy [uJ] of the test images on the simulated chip, layer after layer."""
    reports = []

    def matmul(*operands: Any, **options: Any) -> Any:
        out = sim.matmul(*operands, dtype=dtype, **options)
        reports.append(sim.report)
        return out

    host = [(np.asarray(weights), np.asarray(bias)) for weights, bias in params]
    found = np.argmax(logits(matmul, host, digits.test_x), axis=1)
    cycles, energy = (sum(float(getattr(r, name)) for r in reports) for name in ("cycles", "energy_pj"))
    return float(np.mean(found == digits.test_y)), cycles, energy * 1e-6


def study(seeds: int = 3, steps: int = 300, tuning: int = 300, formats: tuple[str, ...] = FORMATS) -> list[Row]:
    """Every format, accuracies averaged over `seeds` splits and initialisations; the first row is float32."""
    rows: dict[str, list[Row]] = {dtype: [] for dtype in ("fp32", *formats)}
    with kpu.Simulator(config=kpu.presets.edge_ai()) as sim:
        for seed in range(seeds):
            digits = load(seed)
            learn = functools.partial(train, x=digits.train_x, y=digits.train_y)
            trained = learn(initial(seed), rate=0.02, dtype="fp32", steps=steps)
            accuracy, *cost = measure(sim, trained, digits, "fp32")
            rows["fp32"].append(Row("fp32", accuracy, accuracy, *cost))
            for dtype in formats:
                accuracy, *cost = measure(sim, trained, digits, dtype)
                tuned = learn(trained, rate=0.01, dtype=dtype, steps=tuning)
                rows[dtype].append(Row(dtype, accuracy, measure(sim, tuned, digits, dtype)[0], *cost))
    return [Row(dtype, *np.mean([row[1:] for row in found], axis=0)) for dtype, found in rows.items()]


def main(arguments: list[str] | None = None) -> list[Row]:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one split, few steps, int8 and int4 only")
    quick = parser.parse_args(arguments).quick
    rows = study(seeds=1, steps=60, tuning=30, formats=("int8", "int4")) if quick else study()
    print("format   accuracy   after tuning   cycles   energy [uJ]   energy against fp32")
    for row in rows:
        tuned = "" if row.dtype == "fp32" else f"{row.tuned:.1%}"
        share = row.energy_uj / rows[0].energy_uj
        print(f"{row.dtype:6} {row.accuracy:10.1%} {tuned:>14} {row.cycles:8,.0f} {row.energy_uj:13.2f} {share:21.2f}")
    return rows


if __name__ == "__main__":
    main()
