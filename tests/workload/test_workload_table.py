"""The op table: merging, counts, predecessors, padding, pytree behaviour."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.workload import Conv, Gemm, Op, VectorOp, Workload

A, B, V = Gemm(8, 16, 32), Gemm(8, 32, 16), VectorOp(64, function="relu")


def _net():
    return Workload.from_ops([("a", A), ("v", V), ("b", B, ["v"]), ("c", A, ["b", "a"]), ("d", A, ())])


def test_identical_layers_share_a_row():
    net = _net()
    assert (len(net), net.rows, net.names, net.row_of) == (5, 3, ("a", "v", "b", "c", "d"), (0, 1, 2, 0, 0))
    np.testing.assert_array_equal(net.ops.count, [3, 1, 1])
    assert net.macs.dtype == np.int64 and net.macs.tolist() == [4096, 0, 4096, 4096, 4096]
    np.testing.assert_array_equal(net.predecessors, [[-1, -1], [0, -1], [1, -1], [2, 0], [-1, -1]])
    assert all(leaf.shape == (3,) and leaf.dtype == np.float64 for leaf in jax.tree_util.tree_leaves(net.ops))
    assert net.compute_rows.tolist() == [True, False, True]


def test_kinds_of_equal_shape_stay_apart():
    net = Workload.from_ops([Gemm(49, 8, 4), Conv(1, 7, 7, 4, 8), Gemm(49, 8, 4, bias=True)])
    assert net.rows == 3 and net.names == ("op0", "op1", "op2")


def test_rows_and_iteration():
    net = _net()
    assert type(net.row(0)) is Op and net.row(0).count == 3 and net.row(-1).n == 32
    assert [(name, op.count, op.n) for name, op in net] == [
        ("a", 1, 16),
        ("v", 1, 1),
        ("b", 1, 32),
        ("c", 1, 16),
        ("d", 1, 16),
    ]
    assert Workload.from_ops(net).rows == net.rows
    with pytest.raises(KPUError, match="row 3 does not exist: the workload has 3 rows"):
        net.row(3)


def test_counted_ops_are_chains_of_instances():
    net = Workload.from_ops([("x", B), ("layer", Gemm(8, 8, 8, count=3)), ("y", B)])
    assert net.names == ("x", "layer[0]", "layer[1]", "layer[2]", "y")
    assert net.predecessors[:, 0].tolist() == [-1, 0, 1, 2, 3]
    assert net.ops.count.tolist() == [2, 3]


def test_padding_adds_empty_rows():
    net = _net()
    table = net.padded(8)
    assert type(table) is Op and all(leaf.shape == (8,) for leaf in jax.tree_util.tree_leaves(table))
    np.testing.assert_array_equal(table.count, [3, 1, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(table.m[3:] * table.n[3:] * table.k[3:], 1)
    assert (table.count * table.macs).sum() == net.macs.sum()
    assert net.padded(3) == net.ops
    for wrong, match in ((2, r"length = 2 \[rows\] is too small"), (0, "length must be"), (3.5, "fraction")):
        with pytest.raises(KPUError, match=match):
            net.padded(wrong)


def test_one_compile_for_networks_padded_alike():
    traces = []

    @jax.jit
    def total(table):
        traces.append(1)
        return jnp.sum(jax.vmap(lambda op: op.count * op.macs)(table))

    nets = [_net(), Workload.from_ops([A, B]), Workload.from_ops([V])]
    assert [float(total(n.padded(8))) for n in nets] == [float(n.macs.sum()) for n in nets]
    assert len(traces) == 1


def test_workload_is_a_pytree():
    net = _net()
    same = jax.tree_util.tree_map(lambda x: x, net)
    assert isinstance(same, Workload) and same == net and hash(same) == hash(net)
    out = jax.jit(lambda w: w)(net)
    assert out.names == net.names and out.macs.tolist() == net.macs.tolist()
    assert float(jax.jit(lambda w: w.row(2).n)(net)) == 32
    assert jax.jit(lambda w: w.padded(6).m)(net).shape == (6,)
    with pytest.raises(KPUError, match="host quantities"):
        jax.jit(lambda w: w.macs)(net)
    assert net != Workload.from_ops([A]) and net != 3
    keys = {str(p[0]) for p, _ in jax.tree_util.tree_leaves_with_path(net)}
    assert keys == {".ops", ".predecessors"}


def test_traced_ops_keep_their_rows():
    def build(m):
        net = Workload.from_ops([("a", Gemm(m, 2, 3)), ("b", Gemm(m, 2, 3))])
        assert net.rows == 2
        return net.ops

    assert jax.vmap(build)(jnp.arange(1, 4)).m.shape == (3, 2)


def test_fabric_work_reads_through_vector_ops():
    fabric = _net().gemm_work()
    assert fabric.names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(fabric.predecessors, [[-1, -1], [0, -1], [1, 0], [-1, -1]])
    with pytest.raises(KPUError, match="at least one operation"):
        Workload.from_ops([V]).gemm_work()


def test_concatenation_merges_rows():
    net = _net() + Workload.from_ops([("e", B), ("f", Gemm(1, 2, 3))])
    assert len(net) == 7 and net.rows == 4
    np.testing.assert_array_equal(net.ops.count, [3, 1, 2, 1])
    assert net.predecessors[5].tolist() == [-1, -1] and net.predecessors[6].tolist() == [5, -1]
    with pytest.raises(TypeError):
        _net() + 1


@pytest.mark.parametrize(
    ("items", "match"),
    [
        ([], "at least one operation, got none"),
        ([3], "item 0 of a workload must be an op"),
        ([("a", 3)], "item 0 of a workload must be an op"),
        ([("a", A, ["z"])], "predecessor 'z' of 'a' is not an earlier operation"),
        ([("conv1", A), ("b", B, ["conv2"])], "did you mean 'conv1'"),
        ([("a", A), ("b", B, [1])], "predecessor 1 of 'b' must be a position from 0 to 0"),
        ([("a", A), ("b", B, [True])], "predecessor True of 'b'"),
        ([("a", _net().ops)], "single operation"),
        ([("a", jax.tree_util.tree_map(lambda x: 0 * x, A))], "count of op 'a' .*got 0"),
        ([Gemm(1, 1, 1, count=2**30)], r"count of op 'op0' .*at most 1048576"),
        (np.array(3), r"from_ops takes a list of operations .*got array"),
        (None, r"from_ops takes a list of operations .*got None"),
        (A, r"from_ops takes a list of operations .*got Gemm"),
        ([("a", A), ("b", B, 5.0)], "predecessor 5.0 of 'b' must be a position"),
        ([("a", A), ("b", B, [None])], "predecessor None of 'b'"),
        ([("a", A), ("b", B, {"a": 1})], "predecessor {'a': 1} of 'b'"),
    ],
)
def test_errors(items, match):
    with pytest.raises(KPUError, match=match):
        Workload.from_ops(items)


def test_repr_is_an_aligned_table():
    lines = repr(_net()).splitlines()
    assert lines[0] == "Workload: 5 operations in 3 rows, 16,384 MACs"
    assert len(lines) == 5 and len({len(x) for x in lines[1:]}) == 1
    assert "Workload: 5 operations" in repr(jax.eval_shape(lambda: _net()))
