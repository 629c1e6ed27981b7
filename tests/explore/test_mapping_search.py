"""The best of the stated set against timing the whole set; pins; networks; compilations."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from compilations import compilations

import kpu_jax as kpu
from kpu_jax.explore.mapping_search import search
from kpu_jax.explore.pins import pins_of
from kpu_jax.mapping.proposals import STRATEGIES, propose
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.pricing import price

CHIP = kpu.presets.edge_ai()
OPS = [kpu.Gemm(128, 768, 768), kpu.Conv(1, 28, 28, 64, 32, 3, padding=1, stride=2), kpu.Gemm(5, 3000, 40, dtype="bf16", bias=True)]


@pytest.mark.parametrize("op", OPS, ids=repr)
def test_the_best_of_the_set_by_exact_time(op):
    """All 864 mappings timed: none that fits is better than the best found by more than the screening can hide."""
    with jax.enable_x64(True):
        mappings, prices = jax.jit(
            lambda op: jax.vmap(lambda s: (m := propose(CHIP, op, s), price(CHIP, op, m)))(STRATEGIES)
        )(op.plain())
    mappings, prices = jax.tree.map(np.asarray, (mappings, prices))
    fits = np.flatnonzero(prices.status == 0)
    one = jax.tree.map(lambda v: np.full(len(fits), v), (CHIP, op.plain()))
    cycles = exact_cycles_of(*one, jax.tree.map(lambda v: v[fits], mappings))
    for objective in ("latency", "edp"):
        d, e = prices.seconds_per_cycle[fits] * cycles, prices.dynamic_pj[fits] + prices.pj_per_cycle[fits] * cycles
        best = np.min(d if objective == "latency" else d * e)
        found = kpu.simulate(CHIP, op, kpu.best_mapping(CHIP, op, objective=objective)).check()
        got = found.seconds if objective == "latency" else found.seconds * found.energy_pj
        assert best * (1 - 1e-12) <= got <= 1.1 * best


def test_pins_are_kept():
    fixed = {"dataflow": "weight_stationary", "l2_tile": (16, 32, 64), "double_l3": 0, "pass_order": "nk"}
    mapping = kpu.best_mapping(CHIP, OPS[0], fixed=fixed).describe()
    assert mapping["dataflow"] == "weight_stationary" and mapping["l2_tile"] == (16, 32, 64)
    assert mapping["buffering"][0] == "single" and mapping["pass_order"] == "nk"


def test_a_pinned_pass_order_pins_its_dataflow():
    assert pins_of({"pass_order": "kn"}) == {"pass_order": 2.0, "dataflow": 1.0}


@pytest.mark.parametrize(
    ("fixed", "word"),
    [
        ({"l3_m": float("nan")}, "l3_m"), ({"l3_m": "abc"}, "l3_m"), ({"l3_m": 0}, "l3_m"), ({"double_l3": 2}, "double_l3"),
        ({"double_l3": None}, "double_l3"), ({"l3_m": [1, 2]}, "l3_m"), (["dataflow"], "fixed"), ({"dataflw": 1}, "dataflow"),
        ({"dataflow": "weight_stationary", "pass_order": "mn"}, "pass_order"), ({"l2_tile": (1, 2)}, "l2_tile"),
    ],
)  # fmt: skip
def test_wrong_pins_are_named(fixed, word):
    with pytest.raises(kpu.KPUError, match=word):
        kpu.best_mapping(CHIP, OPS[0], fixed=fixed)


def test_what_does_not_fit_says_why():
    tiny = CHIP.replace({"on_chip_memory.l1.buffer_capacity_kb": 2**-10})
    with pytest.raises(kpu.InfeasibleError, match="L1 stream buffer overflows by .* byte"):
        kpu.best_mapping(tiny, kpu.Gemm(64, 64, 64, dtype="fp32"))


def test_the_choices_of_a_network_are_better_together():
    """EDP is a product of sums: the network's mappings are no worse than each operation's own best."""
    net = kpu.networks.mlp(batch=32)
    together = kpu.simulate(CHIP, net, kpu.best_mapping(CHIP, net)).check()
    own = [kpu.best_mapping(CHIP, net.row(i)) for i in range(net.rows)]
    apart = kpu.simulate(CHIP, net, jax.tree.map(lambda *v: np.stack(v), *own)).check()
    assert together.edp <= apart.edp * (1 + 1e-12)
    for objective, name in (("latency", "seconds"), ("energy", "energy_pj")):
        best = getattr(kpu.simulate(CHIP, net, kpu.best_mapping(CHIP, net, objective=objective)), name)
        assert best <= min(getattr(together, name), getattr(apart, name)) * (1 + 1e-12)


def test_networks_padded_alike_share_one_compilation():
    """5 to 8 rows, any chip, any sizes: after the first nothing is compiled."""
    nets = [kpu.networks.mlp(batch=b, sizes=sizes) for b, sizes in ((3, range(20, 170, 25)), (7, range(30, 270, 30)))]
    kpu.simulate(CHIP, nets[0], kpu.best_mapping(CHIP, nets[0]))
    assert nets[0].rows != nets[1].rows
    with compilations() as names:
        for chip in (kpu.presets.minimal(), kpu.presets.embodied_ai()):
            kpu.simulate(chip, nets[1], kpu.best_mapping(chip, nets[1]))
    assert names == []


def test_duplicates_are_not_timed_twice():
    chips = jax.tree.map(lambda v: np.asarray(v)[None], CHIP)
    ops = jax.tree.map(lambda v: np.asarray(v)[None], OPS[0].plain())
    found = search(chips, ops, STRATEGIES, ("latency", "energy"), finalists=8)
    timed = np.isfinite(found.seconds[0, 0])
    assert len(np.unique(found.strategy[0, 0][timed])) == timed.sum() >= 1


@pytest.mark.parametrize("arguments", [({}, OPS[0]), ("edge_ai", OPS[0]), (CHIP, None), (CHIP, [OPS[0]]), (CHIP, np.ones(3))], ids=repr)
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(kpu.KPUError):
        kpu.best_mapping(*arguments)
