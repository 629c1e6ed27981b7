"""What `kpu.trace` reads off a function: counts, loops, branches, fusion, places, host work, and its refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_models import shape

import kpu_jax as kpu
from kpu_jax.base.errors import KPUError
from kpu_jax.workload.footprint import operand_bytes

F32 = jnp.float32
SQUARE = shape(8, 8)


def reads(net):
    return {n: [net.names[p] for p in row if p >= 0] for n, row in zip(net.names, net.predecessors, strict=True)}


# -- counts, against sums over ones: every multiply-accumulate of data adds one


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_products_of_any_dimension_numbers(data):
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    kinds = [data.draw(st.sampled_from("blrc")) for _ in sizes]  # batch, left, right, contracted
    left = [i for i, k in enumerate(kinds) if k in "blc"]
    right = [i for i, k in enumerate(kinds) if k in "brc"]
    left, right = data.draw(st.permutations(left)), data.draw(st.permutations(right))
    numbers = tuple(
        (tuple(left.index(i) for i, k in enumerate(kinds) if k == x), tuple(right.index(i) for i, k in enumerate(kinds) if k == x))
        for x in "cb"
    )
    a, b = np.ones([sizes[i] for i in left], np.float32), np.ones([sizes[i] for i in right], np.float32)
    dot = functools.partial(jax.lax.dot_general, dimension_numbers=numbers)
    net = kpu.trace(dot)(a, b)
    assert net.macs.tolist() == [int(np.sum(dot(a, b)))]
    assert net.row(0).m * net.row(0).n * net.row(0).batch == np.size(dot(a, b))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_convolutions_of_any_geometry(data):
    def pick(low, high):
        return data.draw(st.integers(low, high))

    rank = pick(1, 3)
    features, batches = data.draw(st.sampled_from([(1, 1), (2, 1), (1, 3)]))
    groups = features * batches
    x = np.ones([pick(1, 2) * batches, pick(1, 2) * features, *(pick(3, 6) for _ in range(rank))], np.float32)
    w = np.ones([pick(1, 2) * groups, x.shape[1] // features, *(pick(1, 3) for _ in range(rank))], np.float32)
    options = {
        "window_strides": [pick(1, 3) for _ in range(rank)],
        "padding": [(pick(-1, 4), pick(0, 4)) for _ in range(rank)],
        "lhs_dilation": [pick(1, 3) for _ in range(rank)],
        "rhs_dilation": [pick(1, 2) for _ in range(rank)],
        "feature_group_count": features,
        "batch_group_count": batches,
    }
    convolve = functools.partial(jax.lax.conv_general_dilated, **options)
    out = jax.eval_shape(convolve, x, w)
    if 0 in out.shape:
        with pytest.raises(KPUError, match="conv_general_dilated at .*dimension of zero"):
            kpu.trace(convolve)(x, w)
        return
    net = kpu.trace(convolve)(x, w)
    assert net.macs.sum() == out.size * np.prod(w.shape[1:])  # an output sums over its group's channels and the window
    assert (net.macs - net.zero_macs).sum() == int(np.sum(convolve(x, w)))
    op = net.row(0)
    assert op.m * op.n * op.batch == out.size


def test_a_transposed_convolution():
    net = kpu.trace(lambda x, w: jax.lax.conv_transpose(x, w, (2, 2), "SAME"))(shape(1, 7, 7, 4), shape(4, 4, 4, 8))
    assert net.macs.sum() == 14 * 14 * 16 * 4 * 8
    inside = sum(0 <= 2 * i + r - 1 < 14 for i in range(7) for r in range(4)) ** 2  # pixel i meets tap r at output 2i + r - 1
    assert (net.macs - net.zero_macs).sum() == inside * 32


OPERANDS = {  # (input, weights, options, bytes of the input that the windows need, counted by hand)
    "transposed": ((1, 4, 7, 7), (8, 4, 4, 4), dict(window_strides=(1, 1), padding=((2, 2), (2, 2)), lhs_dilation=(2, 2)), 4 * 4 * 49),
    "transposed, cropped": (
        (1, 4, 7, 7), (8, 4, 2, 2), dict(window_strides=(1, 1), padding=((-1, 0), (0, -2)), lhs_dilation=(2, 2)), 4 * 4 * 36,
    ),
    "three axes": ((2, 3, 4, 5, 6), (8, 3, 2, 3, 3), dict(window_strides=(1, 1, 1), padding="VALID"), 4 * 2 * 3 * 4 * 5 * 6),
    "three axes, padded": ((1, 3, 4, 5, 6), (8, 3, 3, 3, 3), dict(window_strides=(1, 1, 1), padding="SAME"), 4 * 3 * 4 * 5 * 6),
    "three axes, transposed": (
        (1, 3, 2, 3, 4), (8, 3, 2, 2, 2), dict(window_strides=(1,) * 3, padding=((1, 1),) * 3, lhs_dilation=(2,) * 3), 4 * 3 * 24,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERANDS)
def test_operands_of_convolutions_have_the_bytes_of_their_data(name):
    x, w, options, size = OPERANDS[name]
    net = kpu.trace(lambda x, w: jax.lax.conv_general_dilated(x, w, **options))(shape(*x), shape(*w))
    op = net.row(0)
    assert [float(b) for b in operand_bytes(op)][:2] == pytest.approx([size, 4 * np.prod(w)])
    whole = kpu.Mapping(l3_tile=(op.m, op.n, op.k), l2_tile=(op.m, op.n, op.k))
    chip = kpu.presets.datacenter()
    assert float(kpu.simulate(chip, op, whole, timing="bound").traffic["dram"]["A"]) == pytest.approx(size)
    switching = float(op.zero_gating) * net.macs.sum()
    assert switching == pytest.approx((net.macs - net.zero_macs).sum() if "transposed" in name else net.macs.sum())


def test_experts_in_groups():
    net = kpu.trace(jax.lax.ragged_dot)(shape(64, 32), shape(4, 32, 16), shape(4, dtype=jnp.int32))
    assert net.macs.sum() == 64 * 32 * 16


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_vmap_multiplies(batch, rows, inner):
    one = kpu.trace(jnp.dot)(shape(rows, 5), shape(5, inner)).macs.sum()
    many = kpu.trace(jax.vmap(jnp.dot, (0, None)))(shape(batch, rows, 5), shape(5, inner)).macs.sum()
    assert many == batch * one


# -- loops and branches


def test_nested_scans_multiply():
    def inner(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=5)[0]

    def outer(x, w):
        return jax.lax.scan(lambda c, wi: (inner(c, wi), jnp.sum(c)), x, w)

    net = kpu.trace(outer)(SQUARE, shape(7, 8, 8))
    at = net.names.index("dot")
    assert net.repeats[at] == 35 and net.macs.sum() == 35 * 512 and net.origins[at].loops == ("scan0", "scan1")
    (carry,) = [t for t in net.origins[at].reads if t.carried]
    assert carry.producers == (at,) and net.row(net.row_of[at]).count == 35


def test_a_scan_of_length_zero_and_of_reverse():
    assert kpu.trace(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=0)[0] @ x)(SQUARE).macs.sum() == 512
    assert kpu.trace(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=3, reverse=True)[0])(SQUARE).macs.sum() == 1536


@pytest.mark.parametrize("count", [2, 7, 8])
def test_an_associative_scan(count):
    """JAX halves the array, and at some sizes multiplies empty ones."""

    def products(n):
        return n // 2 + products(n // 2) + (n - 1) // 2 if n > 1 else 0

    net = kpu.trace(lambda x: jax.lax.associative_scan(jnp.matmul, x))(shape(count, 8, 8))
    assert net.macs.sum() == products(count) * 512


def test_the_products_of_a_linear_solve():
    """Conjugate gradients: A x and two scalar products before the first iteration and in each."""
    net = kpu.trace(lambda a, b: jax.scipy.sparse.linalg.cg(lambda v: a @ v, b)[0], while_trips=10)(SQUARE, shape(8))
    assert net.macs.sum() == 11 * (64 + 8 + 8) and not net.host_work


def loop(limit, x):
    return jax.lax.while_loop(lambda c: c[0] < limit, lambda c: (c[0] + 2, c[1] @ c[1]), (0, x))[1]


def test_a_loop_that_counts_to_a_known_number_needs_no_help():
    assert kpu.trace(functools.partial(loop, 7))(SQUARE).macs.sum() == 4 * 512


def test_a_loop_of_unknown_length():
    with pytest.raises(KPUError, match=r"the loop 'while0' at .*test_trace.py:\d+ \(loop\) .*while_trips=\{'while0': 100\}"):
        kpu.trace(loop)(7, SQUARE)
    assert kpu.trace(loop, while_trips=9)(7, SQUARE).macs.sum() == 9 * 512
    assert kpu.trace(loop, while_trips={"while0": 3})(7, SQUARE).macs.sum() == 3 * 512
    line = loop.__code__.co_firstlineno + 1
    assert kpu.trace(loop, while_trips={f"test_trace.py:{line}": 2})(7, SQUARE).macs.sum() == 2 * 512
    with pytest.raises(KPUError, match="while_trips or branch_weights name 'whil0', which .* did you mean 'while0'"):
        kpu.trace(lambda n, x: loop(7, x), while_trips={"whil0": 2})(7, SQUARE)
    with pytest.raises(KPUError, match=r"while_trips of 'while0' must be a number at least 0 .*got 'many'"):
        kpu.trace(loop, while_trips="many")(7, SQUARE)


def branch(p, x):
    return jax.lax.cond(p, lambda v: v @ v, lambda v: jnp.exp(v), x)


def test_branches_worst_or_weighted():
    worst = kpu.trace(branch)(np.True_, SQUARE)
    assert worst.macs.sum() == 512 and "exp" not in worst.names
    weighted = kpu.trace(branch, branch_weights=(0.75, 0.25))(np.True_, SQUARE)
    times = dict(zip(weighted.names, weighted.repeats, strict=True))
    assert (times["exp"], times["dot"], weighted.macs.sum()) == (0.75, 0.25, 128)
    never = kpu.trace(branch, branch_weights={"cond0": (1, 0)})(np.True_, SQUARE)
    assert "exp" in never.names and "dot" not in never.names
    with pytest.raises(KPUError, match=r"branch_weights of 'cond0' = \(1,\) must hold 2 numbers"):
        kpu.trace(branch, branch_weights=(1,))(np.True_, SQUARE)
    with pytest.raises(KPUError, match=r"branch_weights of 'cond0' = \(0.5, 0.6\) add up to 1.1"):
        kpu.trace(branch, branch_weights=(0.5, 0.6))(np.True_, SQUARE)
    deep = kpu.trace(lambda p, x: branch(p, x) @ x)(np.True_, SQUARE)
    assert reads(deep)["dot_1"] == ["dot"]


@jax.custom_vjp
def own(x, w):
    return x @ w


own.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, g: (g @ r[1].T, r[0].T @ g))


def test_custom_derivatives_and_rematerialisation():
    def loss(w, x):
        return jnp.sum(jax.nn.relu(own(jnp.sin(x @ w), w)))

    assert kpu.trace(loss)(SQUARE, SQUARE).macs.sum() == 2 * 512
    assert kpu.trace(jax.value_and_grad(loss))(SQUARE, SQUARE).macs.sum() == 5 * 512
    again = kpu.trace(jax.value_and_grad(jax.checkpoint(loss)))(SQUARE, SQUARE)
    assert again.macs.sum() == 7 * 512  # both forward products once more


# -- fusion, arrays, places


def test_softmax_and_norms_are_one_operation_each():
    def block(x, w):
        with jax.named_scope("mixer"):
            y = jax.nn.softmax(x @ w)
        mean = y.mean(-1, keepdims=True)
        y = (y - mean) * jax.lax.rsqrt(jnp.mean((y - mean) ** 2, -1, keepdims=True) + 1e-6)
        return jax.nn.relu(y @ w) * 2

    net = kpu.trace(block)(shape(4, 16), shape(16, 16))
    assert net.names == ("mixer/dot", "softmax", "dot", "fused_max")  # the norm joins the softmax: rows stay where they are
    norm = dict(net)[net.names[1]]
    assert norm.m == 64 and norm.m * norm.a_bits == 64 * 32 == norm.m * norm.c_bits  # read once, written once
    assert reads(net)["dot"] == [net.names[1]]
    first = net.origins[0]
    assert first.scope == "mixer" and "test_trace.py" in first.source and first.source.endswith(".block)")
    assert [(t.shape, t.name, t.bytes) for t in first.reads] == [((4, 16), "args[0]", 256.0), ((16, 16), "args[1]", 1024.0)]
    assert [t.result for o in net.origins for t in o.writes] == [False, False, False, True]


def test_costs_come_from_the_table():
    op = kpu.trace(lambda x, y: jnp.exp(x) * y / jnp.sqrt(y))(shape(10, 10), shape(10, 10)).row(0)
    assert (op.m, op.vector_simple, op.vector_exp, op.vector_div, op.vector_sqrt) == (100, 1, 1, 1, 1)
    assert op.a_bits == 64 and op.c_bits == 32
    half = kpu.trace(lambda x: jnp.sum(x, -1), dtype="fp8")(shape(10, 10)).row(0)
    assert (half.m, half.vector_simple, half.a_bits) == (100, 1, 8) and half.c_bits == pytest.approx(0.8)


def test_batch_statistics_need_two_passes():
    net = kpu.trace(lambda x: (x - x.mean(0)) * 2)(shape(64, 16))
    assert len(net) == 2 and reads(net)[net.names[1]] == [net.names[0]]
    assert sum(t.bytes for o in net.origins for t in o.reads if t.name == "args[0]") == 2 * 64 * 16 * 4


def test_no_group_waits_for_itself():
    """exp feeds a product and what reads the product: one group of both would be a cycle."""

    def both(x, w):
        y = jnp.exp(x)
        return y + y @ w

    net = kpu.trace(both)(SQUARE, SQUARE)
    assert (np.asarray(net.predecessors) < np.arange(len(net))[:, None]).all() and net.names == ("exp", "dot", "add")


def test_views_are_free():
    net = kpu.trace(lambda x, w: (x.T.reshape(4, 16)[:, :8] @ w)[::-1])(SQUARE, SQUARE)
    assert net.names == ("dot",)


def test_embedding_reads_what_it_gathers():
    net = kpu.trace(lambda table, i: table[i])(shape(50000, 64), shape(3, 5, dtype=jnp.int32))
    table = next(t for o in net.origins for t in o.reads if t.shape == (50000, 64))
    assert table.bytes == 15 * 64 * 4
    slope = kpu.trace(jax.grad(lambda table, i: jnp.sum(table[i] ** 2)))(shape(500, 64), shape(15, dtype=jnp.int32))
    assert any("scatter-add" in o.primitives for o in slope.origins)
    cache = kpu.trace(lambda c, x: jax.lax.dynamic_update_slice(c, x, (0, 3)))(shape(64, 100), shape(64, 1))
    assert sum(t.bytes for o in cache.origins for t in o.writes) == 64 * 4


def test_dead_code_costs_nothing():
    assert len(kpu.trace(lambda x: (x @ x, jnp.sort(x))[0])(SQUARE)) == 1


def test_an_integer_model():
    net = kpu.trace(lambda a, b: jax.lax.dot(a, b, preferred_element_type=jnp.int32))(
        shape(4, 4, dtype=jnp.int8), shape(4, 4, dtype=jnp.int8)
    )
    op = net.row(0)
    assert (op.a_bits, op.b_bits, op.c_bits, op.acc_bits) == (8, 8, 32, 32)
    assert kpu.trace(jnp.dot)(shape(4, 4, dtype=jnp.int4), shape(4, 4, dtype=jnp.int4)).row(0).a_bits == 4


# -- host work


def test_host_work_is_listed_with_its_bytes():
    net = kpu.trace(lambda x: jnp.sort(x @ x) @ x)(SQUARE)
    (work,) = net.host_work
    assert (work.function, work.reason, work.bytes_to_host, work.bytes_from_host) == ("sort", "sorting", 256, 256)
    assert "test_trace.py" in work.origin.source and work.readers == (1,) and work.origin.reads[0].producers == (0,)
    assert reads(net)["dot_1"] == ["dot"]
    scanned = kpu.trace(lambda x: jax.lax.scan(lambda c, _: (jnp.linalg.cholesky(c @ c), None), x, None, length=4)[0])(SQUARE)
    assert {w.function: w.repeats for w in scanned.host_work} == {"cholesky": 4}
    wide = kpu.trace(lambda x: jnp.abs(x @ x) @ jnp.ones((8, 8)))(shape(8, 8, dtype=jnp.complex64))
    assert [w.reason for w in wide.host_work][0] == "complex64 is no number format of the KPU" and wide.macs.sum() == 512


def test_double_precision_is_the_hosts():
    with jax.enable_x64(True), pytest.raises(KPUError, match=r"nothing to do: all its work is the host's \(dot\w*\)"):
        kpu.trace(jnp.dot)(np.ones((2, 2)), np.ones((2, 2)))
    with jax.enable_x64(True):
        assert kpu.trace(jnp.dot, dtype="fp16")(np.ones((2, 2)), np.ones((2, 2))).row(0).a_bits == 16


# -- refusals


def printing(x):
    jax.debug.print("{}", x)
    return x @ x


@pytest.mark.parametrize(
    ("fn", "args", "match"),
    [
        (3, (), "trace takes a function, got int 3"),
        (printing, (SQUARE,), r"debug_\w+ at .*test_trace.py:\d+ \(printing\) cannot be traced: it acts on something beside"),
        (lambda x: jnp.ones(x), (3,), "cannot be traced: .*Python branches may not depend on traced values"),
        (lambda x: x @ jnp.ones((3, 3)), (SQUARE,), r"<lambda> cannot be traced: TypeError at .*test_trace.py:\d+ "),
        (lambda x: x @ x.T, (shape(0, 4),), r"argument args\[0\] has the shape \(0, 4\): a dimension of zero"),
        (lambda x: x[:, :0] @ x[:0], (SQUARE,), r"dot_general at .*test_trace.py:\d+ .*dimension of zero"),
        (lambda x: x[:0] @ x, (SQUARE,), r"dot_general at .*test_trace.py:\d+ .* a result of shape \(0, 8\), with a dimension of zero"),
        (lambda x: x, (SQUARE,), "gives the chip nothing to do: it computes nothing"),
        (jnp.sort, (SQUARE,), r"nothing to do: all its work is the host's \(sort\)"),
        (lambda x: jnp.sum(x), (SQUARE, SQUARE), "cannot be traced: TypeError"),
    ],
)
def test_errors(fn, args, match):
    with pytest.raises(KPUError, match=match):
        kpu.trace(fn)(*args)


def test_an_error_leaves_the_function_usable():
    with pytest.raises(KPUError):
        kpu.trace(printing)(SQUARE)
    net = kpu.trace(printing, unsupported="host")(SQUARE)
    assert net.macs.sum() == 512
    with pytest.raises(KPUError, match="unsupported = 'ignore' is unknown"):
        kpu.trace(printing, unsupported="ignore")
    with pytest.raises(KPUError, match="dtype = 'int7'"):
        kpu.trace(printing, dtype="int7")


def test_the_function_is_never_run():
    def explode(x):
        assert isinstance(x, jax.core.Tracer)
        return x @ x

    assert kpu.trace(explode)(np.ones((4, 4), np.float32)).macs.sum() == 64
