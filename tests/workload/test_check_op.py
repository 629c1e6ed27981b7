"""`check_op`: leaves that no constructor saw."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import build
from kpu_jax.workload import NETWORK_NAMES, Conv, Gemm, Op, VectorOp, check_op, network
from kpu_jax.workload.op import leaves

GEMM = Gemm(8, 16, 32, batch=2)


def with_leaf(op, **fields):
    return build(type(op), **{**leaves(op), **fields})


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_networks_pass(name):
    ops = network(name).ops
    check_op(ops)
    check_op(network(name).padded(40))


def test_what_constructors_make_passes():
    ops = [Gemm(2**31 - 1, 1, 1), Conv(1, 9, 9, 4, 8, 3, padding=1, groups=2), VectorOp(2**53, outputs_per_element=1 / 49)]
    for op in (*ops, *(op.plain() for op in ops), jax.tree.map(jnp.asarray, GEMM), with_leaf(GEMM, m=8)):
        check_op(op)
    check_op(jax.tree.map(lambda *x: np.stack(x), *(op.plain() for op in ops)))
    jax.jit(lambda op: check_op(op) or op)(with_leaf(GEMM, m=-1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"m": np.float64(0)}, r"Gemm\.m must be an integer at least 1 .*\[elements\], got 0"),
        ({"m": np.float64(np.nan)}, r"Gemm\.m .*got nan"),
        ({"n": jnp.array(2.5)}, r"Gemm\.n .*fraction 2\.5"),
        ({"k": jnp.array(1e30)}, r"Gemm\.k .*at most 2147483647"),
        ({"m": np.float64(2**31)}, r"Gemm\.m must be at most 2147483647 \[elements\], got 2147483648"),
        ({"batch": np.float64(-1)}, r"Gemm\.batch .*\[products\], got -1"),
        ({"count": np.float64(-1)}, r"Gemm\.count .*\[operations\], got -1"),
        ({"a_bits": np.float64(0)}, r"Gemm\.a_bits must be a number greater than 0 \[bit\], got 0"),
        ({"b_bits": np.float64(0)}, r"Gemm\.b_bits must be greater than 0 \[bit\]"),
        ({"density_b": np.float64(0)}, r"Gemm\.density_b .*greater than 0"),
        ({"kind": np.float64(3)}, r"Gemm\.kind .*code of gemm, conv, vector\], got 3"),
        ({"mac_format": np.float64(0.5)}, r"Gemm\.mac_format .*fraction"),
        ({"loc_c": np.float64(3)}, r"Gemm\.loc_c .*code of host, external, l3\], got 3"),
        ({"pad_top": np.float64(-1)}, r"Gemm\.pad_top .*\[pixels\], got -1"),
        ({"vector_exp": np.float64(np.inf)}, r"Gemm\.vector_exp .*got inf"),
        ({"m": np.array([1.0, 2.0, -3.0])}, r"Gemm\.m .*got -3 \(element 2 of the stack\)"),
        ({"m": np.ones(2), "n": np.ones(3)}, r"Gemm: leaves must have one shape, got .*m \(2,\), n \(3,\)"),
        ({"m": np.float64(2**30), "n": np.float64(2**30)}, r"Gemm: batch x m x n x k = 2 x .*exceeds 2\^53 = 9007199254740992"),
        ({"m": "8"}, r"Gemm\.m must hold numbers, got str '8'"),
        ({"m": True}, r"Gemm\.m must hold numbers, got bool"),
        ({"m": 10**400}, r"Gemm\.m must hold numbers"),
    ],
)
def test_errors_name_path_value_and_unit(fields, message):
    with pytest.raises(KPUError, match=message):
        check_op(with_leaf(GEMM, **fields))


def test_a_table_and_a_replaced_op_are_named_op():
    table = network("mlp").ops
    with pytest.raises(KPUError, match=r"op\.m .*\(element 0 of the stack\)"):
        check_op(jax.tree.map(lambda x: 0 * x, table.__class__(**{**leaves(table), "kind": 0 * table.kind})))
    with pytest.raises(KPUError, match=r"op\.k .*got -1"):
        check_op(dataclasses.replace(GEMM.plain(), k=np.float64(-1)))


@pytest.mark.parametrize("wrong", [None, {}, "gemm", 5, [GEMM], network("mlp")], ids=lambda v: type(v).__name__)
def test_other_objects(wrong):
    with pytest.raises(KPUError, match=r"the operation must be an Op, got .*build a Gemm"):
        check_op(wrong)
    assert isinstance(GEMM, Op)
