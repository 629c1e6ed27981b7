"""`Mapping`: checked construction, and `check_mapping` for leaves that no constructor saw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import replace_path
from kpu_jax.mapping.mapping import DATAFLOWS, Mapping, check_mapping
from kpu_jax.mapping.sampling import random_mappings
from kpu_jax.workload import Gemm

TILES = {"l3_tile": (64, 32, 16), "l2_tile": (8, 8, 8)}


def test_description_gives_the_mapping_back():
    for flow, passes in zip(DATAFLOWS, ("nm", "nk", "mk"), strict=True):
        mapping = Mapping(**TILES, dataflow=flow, pass_order=passes, l3_order="knm", partition=(1, 2, 1, 1))
        assert Mapping(**mapping.describe()) == mapping
        assert all(type(leaf) is np.float64 for leaf in jax.tree.leaves(mapping))
    assert Mapping(**{**TILES, "l3_tile": jnp.array([64, 32, 16])}) == Mapping(**{**TILES, "l3_tile": np.array([64, 32, 16])})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"l3_tile": (0, 1, 1)}, r"mapping\.l3_tile\.m must be an integer at least 1 .*2147483647 \[elements\], got 0"),
        ({"l3_tile": jnp.array([64, 64, -3])}, r"mapping\.l3_tile\.k .*got -3"),
        ({"l3_tile": (1, jnp.array(1.5), 1)}, r"mapping\.l3_tile\.n .*fraction 1\.5"),
        ({"l2_tile": (1, 1, 10**400)}, r"mapping\.l2_tile\.k .*401 digits"),
        ({"l2_tile": (1, 1)}, r"mapping\.l2_tile needs a tuple of 3 entries, got \(1, 1\)"),
        ({"l2_tile": {1, 2, 3}}, r"mapping\.l2_tile needs a tuple of 3 entries"),
        ({"l2_tile": {"m": 1, "n": 1, "k": 1}}, r"mapping\.l2_tile needs a tuple of 3 entries"),
        ({"l2_tile": "abc"}, r"mapping\.l2_tile needs a tuple"),
        ({"partition": (1, 1, 1, 0)}, r"mapping\.partition\.k .*\[compute tiles\], got 0"),
        ({"buffering": ("double", "twice", "single")}, r"mapping\.buffering\.l2 = 'twice' is unknown"),
        ({"dataflow": "os"}, r"mapping\.dataflow = 'os' is unknown: did you mean 'output_stationary'\?"),
        ({"dataflow": "WS"}, r"did you mean 'weight_stationary'\?"),
        ({"dataflow": "Input_Stationary"}, r"did you mean 'input_stationary'\?"),
        ({"l3_order": "MNK"}, r"mapping\.l3_order = 'MNK' is unknown: did you mean 'mnk'\?"),
        ({"pass_order": np.array([1, 2])}, r"mapping\.pass_order = array\(\[1, 2\]\) is unknown"),
        ({"pass_order": "kn"}, r"mapping\.pass_order = 'kn' does not fit output_stationary"),
    ],
)
def test_errors_name_field_value_and_remedy(fields, message):
    with pytest.raises(KPUError, match=message):
        Mapping(**{**TILES, **fields})


def test_sizes_may_be_tracers():
    assert jax.vmap(lambda m: Mapping(l3_tile=(m, 1, 1), l2_tile=(1, 1, 1)).l3_m)(jnp.arange(1, 4)).tolist() == [1, 2, 3]


def test_check_mapping_passes_single_and_stacked_ones():
    mapping = Mapping(**TILES)
    check_mapping(mapping)
    check_mapping(jax.tree.map(jnp.asarray, mapping))
    check_mapping(random_mappings(np.random.default_rng(0), Gemm(512, 512, 512), 16, 1000))
    jax.jit(lambda m: check_mapping(m) or m)(replace_path(mapping, "l3_m", np.float64(-1)))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("l3_m", np.float64(-3), r"mapping\.l3_m must be .*\[elements\], got -3"),
        ("l2_k", jnp.array(1.5), r"mapping\.l2_k .*fraction 1\.5"),
        ("l2_k", np.float64(2**31), r"mapping\.l2_k .*at most 2147483647 .*got 2147483648"),
        ("partition_n", np.float64("nan"), r"mapping\.partition_n .*\[compute tiles\], got nan"),
        ("dataflow", np.float64(3), r"mapping\.dataflow .*\[code of output_stationary, .*got 3"),
        ("pass_order", np.float64(-1), r"mapping\.pass_order .*got -1"),
        ("l3_order", np.array([0, 5, 6]), r"mapping\.l3_order .*got 6 \(element 2 of the stack\)"),
        ("double_l1", np.float64(0.5), r"mapping\.double_l1 .*code of single, double"),
        ("l3_n", "64", r"mapping\.l3_n must hold numbers, got str '64'"),
    ],
)
def test_check_mapping_finds_leaves_that_no_constructor_saw(path, value, message):
    with pytest.raises(KPUError, match=message):
        check_mapping(replace_path(Mapping(**TILES), path, value))


@pytest.mark.parametrize("wrong", [None, {}, (64, 64, 64), Gemm(1, 1, 1)], ids=lambda v: type(v).__name__)
def test_check_mapping_rejects_other_objects(wrong):
    with pytest.raises(KPUError, match=r"the mapping must be a Mapping, got .*kpu\.Mapping"):
        check_mapping(wrong)
