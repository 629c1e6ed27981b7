"""The same numbers however the arguments are batched: chips, operations and mappings on axes of their own."""

import jax
import numpy as np
import pytest

from kpu_jax.explore.space import Space
from kpu_jax.mapping.proposals import STRATEGIES, propose
from kpu_jax.model.evaluate import evaluate
from kpu_jax.workload import networks

FIELDS = {
    ("compute.processor_array.rows", "compute.processor_array.cols"): [[8, 8], [24, 32]],
    "compute.tile_count": [3, 7],
    "data_movement.streamer_count": [3, 11],
}


def _evaluate(cfg, op, strategy):
    mapping = propose(cfg, op, strategy)
    return mapping, evaluate(cfg, op, mapping, exact=False)


@pytest.fixture(scope="module")
def pointwise():
    """(chips, ops, strategies, (mappings, reports)) with every leaf batched: no divisor is broadcast."""
    space, net = Space(FIELDS), networks.resnet50() + networks.mobilenet_v2() + networks.bert_base()
    chips = jax.tree.map(lambda v: np.asarray(v, np.float64), space.chips(np.arange(len(space))))
    ops = jax.tree.map(lambda v: np.asarray(v, np.float64), net.ops)
    strategies = STRATEGIES[::37]
    axes = (len(space), len(ops.m), len(strategies))
    index = np.unravel_index(np.arange(np.prod(axes)), axes)
    with jax.enable_x64(True):
        flat = jax.jit(jax.vmap(_evaluate))(
            jax.tree.map(lambda v: v[index[0]], chips), jax.tree.map(lambda v: v[index[1]], ops), strategies[index[2]]
        )
    return chips, ops, strategies, jax.tree.map(lambda v: np.asarray(v).reshape(axes), flat)


@pytest.mark.parametrize(("x64", "rtol"), [(True, 1e-12), (False, 2e-5)])
def test_nested_axes_agree_with_points(pointwise, x64, rtol):
    chips, ops, strategies, (mappings, expected) = pointwise
    with jax.enable_x64(x64):

        def one(cfg, op, mapping):
            return evaluate(cfg, op, mapping, exact=False)

        nested = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, 0)), (0, None, 0))
        got = jax.tree.map(np.asarray, jax.jit(nested)(chips, ops, mappings))
    same = got.status_code == expected.status_code  # float32 may lose a byte of a capacity
    assert same.all() if x64 else same.mean() > 0.999
    for name in ("cycles", "energy_pj", "reads", "writes", "overfetch", "busy"):
        for a, b in zip(jax.tree.leaves(getattr(got, name)), jax.tree.leaves(getattr(expected, name)), strict=True):
            scale = expected.overfetch + sum(expected.reads["dram"].values()) if name == "overfetch" else b
            kept = same & np.isfinite(b)
            np.testing.assert_array_less(np.abs(a[kept] - b[kept]), (rtol * np.abs(scale) + 1e-9)[kept])


def test_proposals_agree_with_points(pointwise):
    """A proposal shaped on other axes may differ at a rounding of its own choices, never often, and never illegally."""
    chips, ops, strategies, (mappings, _) = pointwise
    with jax.enable_x64(True):
        nested = jax.vmap(jax.vmap(jax.vmap(propose, (None, None, 0)), (None, 0, None)), (0, None, None))
        got = jax.tree.map(np.asarray, jax.jit(nested)(chips, ops, strategies))
    equal = np.all([a == b for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(mappings), strict=True)], axis=0)
    assert equal.mean() > 0.99
    assert all((leaf == np.floor(leaf)).all() for leaf in jax.tree.leaves(got))
