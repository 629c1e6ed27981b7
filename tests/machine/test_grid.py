"""The stepped grid: which PE fires when, how long a pass takes, and in which order it adds."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_model import fused

from kpu_jax.machine import step_pass
from kpu_jax.machine.arithmetic import arithmetic
from kpu_jax.workload.dtypes import parse_dtype

ROWS, COLS, LONGEST = 3, 4, 8
FP32 = arithmetic(parse_dtype("", "fp32"), parse_dtype("", "fp32"))
step = jax.jit(step_pass, static_argnums=(0, 1, 2))


def operands(flow: int, rate: int, extents: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blocks of A and B as the array takes them, with rubbish where nothing is, and accumulators to begin with."""
    m, n, k = ((ROWS, COLS, LONGEST * rate), (LONGEST, COLS, ROWS * rate), (COLS, LONGEST, ROWS * rate))[flow]
    rng = np.random.default_rng(sum(extents))
    a, b, acc = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n), (m, n)))
    a[1 % extents[0], 0] = 0  # gated
    return a, b, acc


@pytest.mark.parametrize("flow", range(3))
@pytest.mark.parametrize("rate", [1, 2])
def test_every_wave_arrives_when_it_should(flow, rate):
    most = ((ROWS, COLS, LONGEST * rate), (LONGEST, COLS, ROWS * rate), (COLS, LONGEST, ROWS * rate))[flow]
    rng = np.random.default_rng((flow, rate))
    for extents in [most, (1, 1, 1), *(tuple(int(rng.integers(1, x + 1)) for x in most) for _ in range(4))]:
        a, b, acc = operands(flow, rate, extents)
        sums, activity = step(FP32, flow, rate, a, b, acc, jnp.array(extents))
        m, n, k = extents
        streamed = (-(-k // rate), m, n)[flow]
        beyond = ROWS + COLS - 2 + (ROWS if flow else 0)
        assert int(activity.cycles) == streamed + beyond
        fired = np.zeros(activity.fired.shape, int)
        switched = np.zeros_like(fired)
        for i, j, l in itertools.product(range(m), range(n), range(k)):  # noqa: E741
            row, col, wave = ((i, j, l // rate), (l // rate, j, i), (l // rate, i, j))[flow]
            cycle = wave + row + col + (ROWS if flow else 0)
            fired[cycle, row, col] += 1
            switched[cycle, row, col] += a[i, l] != 0 and b[l, j] != 0
        np.testing.assert_array_equal(activity.fired, fired)
        np.testing.assert_array_equal(activity.switched, switched)
        assert fired.sum() == m * n * k > switched.sum()
        for i, j in itertools.product(range(m), range(n)):
            s = float(acc[i, j]) if flow == 0 else 0.0
            for l in range(k):  # noqa: E741
                s = fused(s, float(a[i, l]), float(b[l, j]))
            assert float(sums[i, j]) == s


def test_compute_tiles_step_side_by_side():
    a, b, acc = operands(1, 1, (5, 4, 3))
    alone, _ = step(FP32, 1, 1, a, b, acc, jnp.array([5, 4, 3]))
    both, _ = jax.jit(jax.vmap(lambda a, e: step_pass(FP32, 1, 1, a, b, acc, e)))(np.stack([a, 2 * a]), jnp.array([[5, 4, 3], [5, 4, 3]]))
    np.testing.assert_array_equal(both[0][:5], alone[:5])
    np.testing.assert_array_equal(both[1][:5], 2 * alone[:5])
