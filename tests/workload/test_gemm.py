"""Gemm and the op record: leaves, checks, pytree behaviour."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import get_path, replace_path
from kpu_jax.workload import ACTIVATIONS, FIELDS, MAC_FORMATS, Gemm, Op


def test_leaves_of_a_gemm():
    op = Gemm(128, 768, 64, batch=12, dtype="bf16", b_dtype="fp8", bias=True, activation="gelu", count=3)
    want = {"kind": 0, "m": 128, "n": 768, "k": 64, "batch": 12, "count": 3, "a_bits": 16, "b_bits": 8, "c_bits": 16}
    want |= {"acc_bits": 32, "mac_format": MAC_FORMATS.index("bf16"), "has_bias": 1}
    want |= {"activation": ACTIVATIONS.index("gelu"), "density_a": 1, "density_b": 1, "zero_gating": 1}
    want |= {"loc_a": 1, "loc_b": 1, "loc_c": 1, "reserved_l3_bytes": 0, "images": 1, "channels": 1, "pad_top": 0}
    assert {name: getattr(op, name) for name in want} == want
    assert all(type(leaf) is np.float64 for leaf in jax.tree_util.tree_leaves(op))
    assert op.macs == 12 * 128 * 768 * 64 and type(op.macs) is np.float64


def test_the_largest_counts_are_exact():
    assert Gemm(4096, 4096, 4096).macs == 68_719_476_736
    assert Gemm(2**31 - 1, 1, 1).m == 2**31 - 1
    assert Gemm(2**26, 2**27, 1).macs == 2**53


@pytest.mark.parametrize(
    ("data_on", "codes"),
    [
        ("external", (1, 1, 1)),
        ("host", (0, 0, 0)),
        ("l3", (2, 2, 2)),
        ({"A": "l3"}, (2, 1, 1)),
        ({"B": "host", "C": "l3"}, (1, 0, 2)),
    ],
)
def test_data_locations(data_on, codes):
    op = Gemm(1, 1, 1, data_on=data_on)
    assert (op.loc_a, op.loc_b, op.loc_c) == codes


@pytest.mark.parametrize(
    ("kw", "match"),
    [
        ({"m": 0}, r"Gemm.m must be an integer at least 1.*\[elements\], got 0"),
        ({"n": -3}, r"Gemm.n must be .* got -3"),
        ({"k": 1.5}, r"Gemm.k must be .* got the fraction 1.5"),
        ({"m": float("nan")}, r"Gemm.m must be .* got nan"),
        ({"m": float("inf")}, r"Gemm.m must be .* got inf"),
        ({"m": True}, r"Gemm.m must be .* got True"),
        ({"m": "128"}, r"Gemm.m must be .* got '128'"),
        ({"m": None}, r"Gemm.m must be .* got None"),
        ({"m": 2**31}, r"Gemm.m must be .* at most 2147483647 .* got 2147483648"),
        ({"m": 10**400}, r"Gemm.m must be .* got an integer of about 401 digits"),
        ({"m": np.array("4")}, r"Gemm.m must be .* got array\('4'"),
        ({"m": np.array(True)}, r"Gemm.m must be .* got array\(True\)"),
        ({"m": np.datetime64("2020")}, r"Gemm.m must be .* got np.datetime64"),
        ({"m": 1 + 2j}, r"Gemm.m must be .* got \(1\+2j\)"),
        ({"m": jnp.array(0)}, r"Gemm.m must be .* got 0"),
        ({"m": jnp.array(float("nan"))}, r"Gemm.m must be .* got nan"),
        ({"m": jnp.array(2.5)}, r"Gemm.m must be .* got the fraction 2.5"),
        ({"m": jnp.array(True)}, r"Gemm.m must be .* got Array\(True"),
        ({"m": jnp.arange(1, 4)}, r"Gemm.m must be .* got an array of shape \(3,\)"),
        ({"density_b": jnp.array(2.0)}, r"Gemm.density_b .* got 2"),
        ({"bias": jnp.array(2)}, r"Gemm.bias must be true or false"),
        ({"dtype": ["int8"]}, r"Gemm.dtype = \['int8'\] is not a number format"),
        ({"dtype": {"a": 1}}, r"Gemm.dtype = .* is not a number format"),
        ({"activation": "RELU"}, r"did you mean 'relu'\?"),
        ({"m": np.arange(1, 4)}, r"Gemm.m must be .* got an array of shape \(3,\)"),
        ({"batch": 0}, r"Gemm.batch must be"),
        ({"count": 0}, r"Gemm.count must be .* \[operations\]"),
        ({"m": 2**20, "n": 2**20, "k": 2**14}, r"exceeds 2\^53 = 9007199254740992"),
        ({"m": 2**30, "batch": 2**30}, r"split the operation"),
        ({"dtype": "int9"}, r"Gemm.dtype = 'int9' .* did you mean"),
        ({"c_dtype": np.float64}, r"Gemm.c_dtype = 'float64'"),
        ({"acc_dtype": "fp33"}, r"Gemm.acc_dtype = 'fp33' .* did you mean 'fp32'"),
        ({"activation": "gelo"}, r"Gemm.activation = 'gelo' is unknown: did you mean 'gelu'"),
        ({"activation": 1}, r"Gemm.activation = 1 is unknown"),
        ({"data_on": "L3"}, r"Gemm.data_on = 'L3' is unknown: .*external, host, l3"),
        ({"data_on": {"D": "l3"}}, r"Gemm.data_on key = 'D'"),
        ({"data_on": {"A": "hots"}}, r"Gemm.data_on\['A'\] = 'hots' is unknown: did you mean 'host'"),
        ({"density_a": 0}, r"Gemm.density_a must be a number greater than 0 and at most 1"),
        ({"density_b": 1.1}, r"Gemm.density_b .* got 1.1"),
        ({"zero_gating": -0.5}, r"Gemm.zero_gating .* got -0.5"),
        ({"bias": 1}, r"Gemm.bias must be true or false, got 1"),
        ({"reserved_l3_bytes": -1}, r"Gemm.reserved_l3_bytes must be .* \[bytes\]"),
    ],
)
def test_errors_name_field_value_and_remedy(kw, match):
    with pytest.raises(KPUError, match=match):
        Gemm(**{"m": 8, "n": 8, "k": 8, **kw})


def test_flatten_rebuilds_the_class_without_checks():
    op = Gemm(8, 16, 32)
    flat, tree = jax.tree_util.tree_flatten(op)
    assert len(flat) == len(FIELDS) and tree.unflatten(flat) == op
    assert isinstance(tree.unflatten([object()] * len(flat)), Gemm)
    assert "leaves" in repr(tree.unflatten([object()] * len(flat)))
    paths = [p[0].name for p, _ in jax.tree_util.tree_leaves_with_path(op)]
    assert tuple(paths) == FIELDS
    assert get_path(op, "m") == 8 and replace_path(op, "m", np.float64(9)).m == 9


def test_plain_ops_share_a_type_and_are_equal_by_value():
    a, b = Gemm(8, 16, 32).plain(), Gemm(8, 16, 32).plain()
    assert type(a) is Op and a == b and hash(a) == hash(b) and a.plain() is a
    assert a != Gemm(8, 16, 33).plain()


def test_plain_ops_compile_once():
    traces = []

    @jax.jit
    def macs(op):
        traces.append(1)
        return op.macs

    assert [float(macs(Gemm(m, 2, 3).plain())) for m in (4, 5, np.int64(6), 7.0)] == [24, 30, 36, 42]
    assert len(traces) == 1


def test_constructor_inside_jit_and_vmap():
    sizes = jnp.arange(1, 5)
    ops = jax.vmap(lambda m: Gemm(m, 2, 3).plain())(sizes)
    assert type(ops) is Op and ops.m.shape == ops.kind.shape == (4,)
    assert jnp.issubdtype(ops.m.dtype, jnp.floating)
    np.testing.assert_array_equal(jax.vmap(lambda op: op.macs)(ops), 6.0 * np.arange(1, 5))
    big = jax.jit(lambda m: Gemm(m, m, m).macs)(4096)  # an int32 product would be 0
    assert float(big) == 4096.0**3


def test_concrete_jax_scalars_are_numbers():
    op = Gemm(jnp.array(8), 16, 32, density_a=jnp.float32(0.5), bias=jnp.array(True))
    assert op == Gemm(8, 16, 32, density_a=0.5, bias=True)
    assert all(type(leaf) is np.float64 for leaf in jax.tree_util.tree_leaves(op))


def test_macs_are_differentiable():
    assert float(jax.grad(lambda m: Gemm(m, 20, 30).macs)(10.0)) == 600


def test_repr_is_short():
    assert repr(Gemm(128, 768, 768)) == "Gemm m=128 n=768 k=768 int8"
    assert repr(Gemm(2, 3, 4, batch=5, count=6, activation="relu", dtype="fp16")) == (
        "Gemm m=2 n=3 k=4 batch=5 count=6 relu fp16"
    )
    words = Gemm(2, 3, 4, a_dtype="int4", bias=True, density_b=0.25, data_on={"A": "l3"}, acc_dtype="int16")
    assert repr(words) == (
        "Gemm m=2 n=3 k=4 int8 bias A,B,C of 4,8,8 bits accumulated in 16 bits density_b=0.25 A,B,C on l3,external,external"
    )
    assert repr(Gemm(1, 1, 1).plain()).startswith("Op gemm")
    assert "(4,)" in repr(jax.vmap(lambda m: Gemm(m, 2, 3))(jnp.arange(1, 5)))
