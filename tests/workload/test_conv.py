"""Convolutions: geometry against XLA's shape inference, counted pixels, checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.workload import Conv, Gemm, VectorOp, im2col_bytes, unique_input_bytes


def _random_case(seed):
    rng = np.random.default_rng(seed)
    kernel, dilation, stride = (tuple(int(x) for x in rng.integers(1, 1 + top, 2)) for top in (5, 3, 4))
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads = tuple(tuple(int(x) for x in rng.integers(0, min(s, 4), 2)) for s in spans)
    size = tuple(int(s + rng.integers(0, 12)) for s in spans)
    groups = int(rng.integers(1, 4))
    channels = tuple(int(groups * c) for c in rng.integers(1, 5, 2))
    padding = [pads, "same", "valid"][seed % 3]
    kw = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return (int(rng.integers(1, 4)), *size, *channels), kw


def _xla_shape(args, kw):
    images, h, w, c_in, c_out = args
    padding = kw["padding"] if isinstance(kw["padding"], tuple) else kw["padding"].upper()
    out = jax.eval_shape(
        lambda x, y: jax.lax.conv_general_dilated(
            x, y, kw["stride"], padding, rhs_dilation=kw["dilation"], feature_group_count=kw["groups"]
        ),
        jax.ShapeDtypeStruct((images, c_in, h, w), jnp.float32),
        jax.ShapeDtypeStruct((c_out, c_in // kw["groups"], *kw["kernel"]), jnp.float32),
    )
    return out.shape


@pytest.mark.parametrize("seed", range(60))
def test_shapes_agree_with_xla(seed):
    args, kw = _random_case(seed)
    op = Conv(*args, **kw)
    images, c_out, h, w = _xla_shape(args, kw)
    groups = kw["groups"]
    assert (op.images, op.out_h, op.out_w) == (images, h, w)
    assert (op.m, op.n, op.batch) == (images * h * w, c_out // groups, groups)
    assert op.k == kw["kernel"][0] * kw["kernel"][1] * args[3] // groups
    if kw["padding"] == "same":
        low, _ = jax.lax.padtype_to_pads(
            args[1:2], [kw["dilation"][0] * (kw["kernel"][0] - 1) + 1], kw["stride"][:1], "SAME"
        )[0]
        assert op.pad_top == low
    traced = jax.jit(lambda size: Conv(args[0], size, *args[2:], **kw).plain())(args[1])
    jax.tree_util.tree_map(np.testing.assert_array_equal, traced, op.plain())


def _touched_by_counting(op):
    seen = set()
    for p in range(int(op.out_h)):
        for r in range(int(op.kernel_h)):
            y = p * op.stride_h + r * op.dilation_h - op.pad_top
            for q in range(int(op.out_w)):
                for s in range(int(op.kernel_w)):
                    x = q * op.stride_w + s * op.dilation_w - op.pad_left
                    if 0 <= y < op.in_h and 0 <= x < op.in_w:
                        seen.add((y, x))
    return len(seen)


@pytest.mark.parametrize("seed", range(40))
def test_unique_pixels_are_those_that_windows_touch(seed):
    args, kw = _random_case(seed + 1000)
    op = Conv(*args, **kw, dtype="int16")
    assert unique_input_bytes(op) == args[0] * args[3] * _touched_by_counting(op) * 2
    assert im2col_bytes(op) == op.batch * op.m * op.k * 2
    assert im2col_bytes(op.plain()) >= unique_input_bytes(op.plain())


def test_input_bytes_of_known_layers():
    projection = Conv(1, 56, 56, 256, 512, stride=2)
    assert unique_input_bytes(projection) == im2col_bytes(projection) == 28 * 28 * 256
    stem = Conv(1, 224, 224, 3, 64, 7, stride=2, padding=3)
    assert unique_input_bytes(stem) == 224 * 224 * 3 and im2col_bytes(stem) == 112 * 112 * 147
    gemm = Gemm(4, 5, 6, batch=2, dtype="fp16")
    assert unique_input_bytes(gemm) == im2col_bytes(gemm) == 2 * 24 * 2
    assert unique_input_bytes(VectorOp(100, function="add")) == 200
    assert unique_input_bytes(Conv(1, 8, 8, 4, 4, density_a=0.5)) < unique_input_bytes(Conv(1, 8, 8, 4, 4))
    with pytest.raises(KPUError, match="one concrete op"):
        jax.jit(lambda op: unique_input_bytes(op))(gemm)
    stacked = jax.tree_util.tree_map(lambda x: np.stack([x, x]), gemm.plain())
    with pytest.raises(KPUError, match="one concrete op"):
        unique_input_bytes(stacked)
    assert im2col_bytes(stacked).shape == (2,)


def test_forms_of_padding_and_kernel():
    same = [Conv(1, 9, 9, 2, 4, 3, padding=p).plain() for p in (1, (1, 1), ((1, 1), (1, 1)), "same", "SAME", [1, 1])]
    assert all(op == same[0] for op in same)
    assert Conv(1, 9, 9, 2, 4, 3).plain() == Conv(1, 9, 9, 2, 4, (3, 3), padding="valid").plain()
    odd = Conv(1, 8, 8, 2, 4, 3, stride=2, padding="same")
    assert (odd.pad_top, odd.out_h) == (0, 4)


def test_depthwise_is_a_batch_of_one_column():
    op = Conv(2, 14, 14, 96, 96, 3, padding=1, groups=96, activation="relu", bias=True)
    assert (op.m, op.n, op.k, op.batch, op.channels) == (2 * 14 * 14, 1, 9, 96, 1)
    assert op.macs == 2 * 14 * 14 * 9 * 96
    assert repr(op) == "Conv 14x14 window 3x3/1 m=392 n=1 k=9 batch=96 relu int8 bias"


@pytest.mark.parametrize(
    ("kw", "match"),
    [
        ({"images": 0}, r"Conv.images must be"),
        ({"in_h": float("nan")}, r"Conv.in_h must be .* \[pixels\], got nan"),
        ({"in_w": -1}, r"Conv.in_w must be"),
        ({"in_channels": 3, "groups": 2}, r"Conv.in_channels = 3 \[channels\] must be a multiple of groups = 2"),
        ({"out_channels": 7, "groups": 2}, r"Conv.out_channels = 7 .* multiple of groups = 2"),
        ({"kernel": 0}, r"Conv.kernel\[0\] must be"),
        ({"kernel": (3, 3, 3)}, r"Conv.kernel = \(3, 3, 3\) must be one number or a pair"),
        ({"stride": (1, 0)}, r"Conv.stride\[1\] must be"),
        ({"dilation": 1.5}, r"Conv.dilation\[0\] must be .* fraction"),
        ({"padding": 3}, r"Conv.padding\[0\] = 3 \[pixels\] must be smaller than the dilated window \(3 pixels\)"),
        ({"padding": ((0, 0), (0, 5)), "dilation": 2}, r"Conv.padding\[1\] = 5 .* \(5 pixels\)"),
        ({"padding": -1}, r"Conv.padding\[0\] must be an integer at least 0 \[pixels\], got -1"),
        ({"padding": "sane"}, r"Conv.padding = 'sane' is unknown: did you mean 'same'"),
        ({"padding": (1, 1, 1, 1)}, r"Conv.padding = \(1, 1, 1, 1\) must be one number or a pair"),
        ({"kernel": 9, "in_h": 8}, r"Conv.in_h: the dilated window spans 9 pixels but the padded input only 8"),
        ({"images": 2**30, "in_h": 8}, r"Conv m = images x out_h x out_w must be"),
        ({"images": 2**16, "in_channels": 2**18, "out_channels": 2**20}, r"Conv: .* exceeds 2\^53"),
        ({"in_h": jnp.array(-1)}, r"Conv.in_h must be .*got -1"),
        ({"kernel": jnp.array(0)}, r"Conv.kernel\[0\] must be"),
        ({"padding": jnp.array(3)}, r"Conv.padding\[0\] = 3 \[pixels\] must be smaller"),
        ({"activation": "rleu"}, r"Conv.activation = 'rleu' is unknown: did you mean 'relu'"),
        ({"dtype": "fp9"}, r"Conv.dtype = 'fp9'"),
    ],
)
def test_errors(kw, match):
    base = {"images": 1, "in_h": 16, "in_w": 16, "in_channels": 4, "out_channels": 8, "kernel": 3}
    with pytest.raises(KPUError, match=match):
        Conv(**{**base, **kw})
