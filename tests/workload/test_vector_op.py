"""Vector-engine operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.workload import VECTOR, VECTOR_FUNCTIONS, VectorOp


def test_leaves():
    op = VectorOp(1000, function="add", dtype="fp16")
    assert (op.kind, op.m, op.n, op.k, op.batch, op.macs) == (VECTOR, 1000, 1, 1, 1, 0)
    assert (op.a_bits, op.b_bits, op.c_bits, op.acc_bits, op.vector_simple) == (32, 0, 16, 16, 1)


def test_reductions_write_fractions():
    op = VectorOp(49 * 64, function="average", outputs_per_element=1 / 49, out_dtype="fp32")
    assert op.c_bits * op.m == pytest.approx(64 * 32, rel=1e-15) and op.a_bits == 8


@pytest.mark.parametrize("name", sorted(VECTOR_FUNCTIONS))
def test_costs_come_from_the_table(name):
    op = VectorOp(8, function=name)
    primitives = op.vector_simple + op.vector_exp + op.vector_div + op.vector_sqrt + (op.activation > 0)
    assert primitives == VECTOR_FUNCTIONS[name].ops >= 1
    assert op.a_bits == 8 * VECTOR_FUNCTIONS[name].inputs
    assert VectorOp(8, function=name, simple_per_element=0.5, inputs=1.25).vector_simple == 0.5


def test_composite_costs_exceed_their_parts():
    assert VECTOR_FUNCTIONS["softmax"].ops == 5 and VECTOR_FUNCTIONS["layernorm"].ops > VECTOR_FUNCTIONS["rmsnorm"].ops


@pytest.mark.parametrize(
    ("kw", "match"),
    [
        ({"elements": 0}, r"VectorOp.elements must be"),
        ({"elements": 2**54}, r"VectorOp.elements must be"),
        ({"function": "sofmax"}, r"VectorOp.function = 'sofmax' is unknown: did you mean 'softmax'"),
        ({"elements": jnp.array(0)}, r"VectorOp.elements must be .*got 0"),
        ({"inputs": 1e300}, r"VectorOp.inputs must be .*at most 2147483647"),
        ({"inputs": 0}, r"VectorOp.inputs must be a number greater than 0"),
        ({"outputs_per_element": float("nan")}, r"VectorOp.outputs_per_element .* got nan"),
        ({"simple_per_element": -1}, r"VectorOp.simple_per_element must be .* \[primitives/element\]"),
        ({"dtype": "fp31"}, r"VectorOp.dtype = 'fp31'"),
        ({"out_dtype": "x"}, r"VectorOp.out_dtype = 'x'"),
        ({"data_on": "disk"}, r"VectorOp.data_on = 'disk'"),
        ({"count": 1.5}, r"VectorOp.count .* fraction"),
    ],
)
def test_errors(kw, match):
    with pytest.raises(KPUError, match=match):
        VectorOp(**{"elements": 8, **kw})


def test_traced():
    ops = jax.vmap(lambda n: VectorOp(n, function="relu").plain())(jnp.arange(1, 4))
    np.testing.assert_array_equal(ops.macs, 0)
    assert repr(VectorOp(8, function="relu")) == "VectorOp m=8 relu int8"
