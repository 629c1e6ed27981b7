"""Operators of ONNX Runtime's own domain, and of ai.onnx.ml, against ONNX Runtime on random numbers."""

import jax
import numpy as np
import pytest

import kpu_jax as kpu

onnx = pytest.importorskip("onnx", reason="extra onnx")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from onnx import helper, numpy_helper  # noqa: E402

MICROSOFT, ML = "com.microsoft", "ai.onnx.ml"
RNG = np.random.default_rng(3)


def f(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def u8(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def i8(*shape):
    return RNG.integers(-60, 61, shape).astype(np.int8)  # ONNX Runtime sums pairs of u8 s8 in int16 on some processors


def s(value):
    return np.float32(value)


def z(value, dtype=np.uint8):
    return dtype(value)


X, W3 = f(2, 5, 8), f(8, 24)
BATCH = f(2, 5, 8), f(2, 6, 8), f(2, 6, 8)
QS, QZ = [s(0.05), z(120)], [s(0.1), z(118)]

# name: (operator, domain, inputs (None: left out), attributes, outputs, inputs that stay constants by position)
CASES = {
    "attention": ("Attention", MICROSOFT, [X, W3, f(24)], {"num_heads": 2}, 1),
    "attention, one direction": ("Attention", MICROSOFT, [X, W3, f(24)], {"num_heads": 2, "unidirectional": 1}, 1),
    "attention, mask": ("Attention", MICROSOFT, [X, W3, f(24), np.array([[1, 1, 1, 0, 0], [1] * 5], np.int32)], {"num_heads": 2}, 1),
    "attention, lengths": ("Attention", MICROSOFT, [X, W3, f(24), np.array([3, 5], np.int32)], {"num_heads": 2}, 1),
    "attention, past": (
        "Attention", MICROSOFT, [X, W3, f(24), None, f(2, 2, 2, 3, 4)], {"num_heads": 2, "unidirectional": 1}, 2,
    ),
    "quantised attention": (
        "QAttention", MICROSOFT, [u8(2, 5, 8), i8(8, 24), f(24), s(0.02), s(0.01), None, z(128), z(0, np.int8)], {"num_heads": 2}, 1,
    ),
    "heads": ("MultiHeadAttention", MICROSOFT, [*BATCH], {"num_heads": 2}, 1),
    "heads, bias": ("MultiHeadAttention", MICROSOFT, [*BATCH, f(24)], {"num_heads": 2}, 1),
    "heads, addend": ("MultiHeadAttention", MICROSOFT, [*BATCH, None, None, f(1, 2, 5, 6)], {"num_heads": 2}, 1),
    "heads, padding": (
        "MultiHeadAttention", MICROSOFT, [*BATCH, None, np.array([[1] * 6, [1, 1, 1, 0, 0, 0]], np.int32)], {"num_heads": 2}, 1,
    ),
    "heads, past": (
        "MultiHeadAttention", MICROSOFT,
        [f(2, 1, 8), f(2, 1, 8), f(2, 1, 8), None, None, None, f(2, 2, 3, 4), f(2, 2, 3, 4)], {"num_heads": 2}, 3,
    ),
    "groups": (
        "GroupQueryAttention", MICROSOFT,
        [f(1, 3, 32), f(1, 3, 16), f(1, 3, 16), f(1, 2, 4, 8), f(1, 2, 4, 8), np.array([6], np.int32), np.int32(7)],
        {"num_heads": 4, "kv_num_heads": 2}, 3,
    ),
    "groups, window": (
        "GroupQueryAttention", MICROSOFT,
        [f(1, 6, 32), f(1, 6, 16), f(1, 6, 16), None, None, np.array([5], np.int32), np.int32(6)],
        {"num_heads": 4, "kv_num_heads": 2, "local_window_size": 2}, 1,
    ),
    "groups, rotary": (
        "GroupQueryAttention", MICROSOFT,
        [f(1, 3, 64), f(1, 3, 32), f(1, 3, 32), None, None, np.array([2], np.int32), np.int32(3), f(8, 8), f(8, 8)],
        {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1}, 1,
    ),
    "embedding": (
        "EmbedLayerNormalization", MICROSOFT,
        [np.array([[1, 2, 3]], np.int32), np.array([[0, 1, 1]], np.int32), f(9, 8), f(6, 8), f(2, 8), f(8), f(8),
         np.ones((1, 3), np.int32)],
        {"epsilon": 1e-6}, 2,
    ),
    "skip": ("SkipLayerNormalization", MICROSOFT, [X, f(2, 5, 8), f(8), f(8), f(8)], {}, 1),
    "skip, root mean square": ("SkipSimplifiedLayerNormalization", MICROSOFT, [X, f(2, 5, 8), f(8)], {}, 1),
    "bits": ("MatMulNBits", MICROSOFT, [f(2, 40), u8(6, 2, 16), f(12)], {"K": 40, "N": 6, "bits": 4, "block_size": 32}, 1),
    "bits, zeros": ("MatMulNBits", MICROSOFT, [f(2, 64), u8(6, 2, 16), f(12), u8(6)], {"K": 64, "N": 6, "bits": 4, "block_size": 32}, 1),
    "bits, nf4": ("MatMulBnb4", MICROSOFT, [f(2, 32), u8(96), f(12)], {"K": 32, "N": 6, "block_size": 16, "quant_type": 1}, 1),
    "bits, fp4": ("MatMulBnb4", MICROSOFT, [f(2, 32), u8(96), f(12)], {"K": 32, "N": 6, "block_size": 16, "quant_type": 0}, 1),
    "bits, rows": (
        "GatherBlockQuantized", MICROSOFT, [u8(10, 16), np.array([[1, 9]], np.int64), f(10, 2), u8(10, 1)],
        {"bits": 4, "block_size": 16, "gather_axis": 0, "quantize_axis": 1}, 1,
    ),
    "experts": ("MoE", MICROSOFT, [f(6, 8), f(6, 4), f(4, 16, 8), f(4, 16), f(4, 8, 16), f(4, 8)], {"k": 2, "activation_type": "gelu"}, 1),
    "fused product": ("FusedMatMul", MICROSOFT, [f(2, 4, 3), f(2, 5, 4)], {"transA": 1, "transB": 1, "alpha": 0.5}, 1),
    "fused gemm": ("FusedGemm", MICROSOFT, [f(3, 4), f(4, 5), f(5)], {"activation": "LeakyRelu", "activation_alpha": 0.2}, 1),
    "fused convolution": ("FusedConv", MICROSOFT, [f(1, 2, 6, 6), f(3, 2, 3, 3), f(3), f(1, 3, 4, 4)], {"activation": "Relu"}, 1),
    "gelu": ("BiasGelu", MICROSOFT, [X, f(8)], {}, 1),
    "fast gelu": ("FastGelu", MICROSOFT, [X, f(8)], {}, 1),
    "quick gelu": ("QuickGelu", MICROSOFT, [X], {"alpha": 1.5}, 1),
    "quantised sum": ("QLinearAdd", MICROSOFT, [u8(2, 3), *QS, u8(2, 3), *QZ, s(0.2), z(100)], {}, 1),
    "quantised product": ("QLinearMul", MICROSOFT, [u8(2, 3), *QS, u8(2, 3), *QZ, s(0.2), z(100)], {}, 1),
    "quantised gemm": ("QGemm", MICROSOFT, [u8(3, 4), *QS, i8(4, 5), s(0.02), z(0, np.int8), np.zeros(5, np.int32), *QZ], {}, 1),
    "quantised softmax": ("QLinearSoftmax", MICROSOFT, [u8(2, 9), *QS, s(1 / 256), z(0)], {"axis": -1, "opset": 13}, 1),
    "quantised choice": ("QLinearWhere", MICROSOFT, [np.array([True, False, True]), u8(3), *QS, u8(3), *QZ, s(0.2), z(100)], {}, 1),
    "quantised sigmoid": ("QLinearSigmoid", MICROSOFT, [u8(2, 3), *QS, s(1 / 256), z(0)], {}, 1),
    "quantised mean": ("QLinearGlobalAveragePool", MICROSOFT, [u8(1, 3, 4, 4), *QS, *QZ], {}, 1),
    "quantised pool": (
        "QLinearAveragePool", MICROSOFT, [u8(1, 3, 6, 6), *QS, *QZ], {"kernel_shape": [2, 2], "strides": [2, 2]}, 1,
    ),
    "quantised join": ("QLinearConcat", MICROSOFT, [*QZ, u8(2, 3), *QS, u8(2, 2), *QZ], {"axis": 1}, 1),
    "bytes last": (
        "QLinearConv", MICROSOFT,
        [u8(1, 5, 5, 4), *QS, i8(6, 4, 3, 3), s(0.02), z(0, np.int8), s(0.9), z(118)], {"channels_last": 1, "pads": [1, 1, 1, 1]}, 1,
    ),
    "pool of bytes": ("NhwcMaxPool", MICROSOFT, [u8(1, 6, 6, 3)], {"kernel_shape": [3, 3], "strides": [2, 2]}, 1),
    "dynamic": ("DynamicQuantizeMatMul", MICROSOFT, [f(3, 8), i8(8, 4), s(0.02), z(0, np.int8), f(4)], {}, 1),
    "to float": ("MatMulIntegerToFloat", MICROSOFT, [u8(3, 8), i8(8, 4), s(0.03), s(0.02), z(128), z(0, np.int8)], {}, 1),
    "grid": ("GridSample", MICROSOFT, [f(1, 2, 5, 5), f(1, 3, 3, 2)], {"mode": "bilinear", "padding_mode": "border"}, 1),
    "crop": (
        "CropAndResize", MICROSOFT,
        [f(2, 3, 8, 8), np.array([[0.1, 0.1, 0.9, 0.8], [0, 0, 1.2, 1]], np.float32), np.array([0, 1], np.int32),
         np.array([4, 5], np.int32)],
        {"mode": "bilinear"}, 1,
    ),
    "distances": ("CDist", MICROSOFT, [f(3, 4), f(5, 4)], {"metric": "euclidean"}, 1),
    "inverse": ("Inverse", MICROSOFT, [f(3, 3) + 3 * np.eye(3, dtype=np.float32)], {}, 1),
    "one axis more": ("ExpandDims", MICROSOFT, [f(3, 4), np.int32(1)], {}, 1),
    "lower half": ("Trilu", MICROSOFT, [f(4, 4), np.int64(0)], {"upper": 0}, 1),
    "rotation": (
        "RotaryEmbedding", MICROSOFT, [f(1, 2, 3, 16), np.array([[0, 1, 2]], np.int64), f(8, 8), f(8, 8)], {}, 1,
    ),
    "masked pool": ("MaxpoolWithMask", MICROSOFT, [f(1, 1, 4, 4), np.ones((1, 1, 4, 4), np.int32)], {"kernel_shape": [2, 2]}, 1),
    "linear classes": (
        "LinearClassifier", ML, [f(3, 4)],
        {"coefficients": f(12).tolist(), "intercepts": f(3).tolist(), "classlabels_ints": [3, 5, 9], "post_transform": "SOFTMAX"}, 2,
    ),
    "two classes": (
        "LinearClassifier", ML, [f(3, 4)],
        {"coefficients": f(8).tolist(), "intercepts": f(2).tolist(), "classlabels_ints": [0, 1], "post_transform": "LOGISTIC"}, 2,
    ),
    "linear values": ("LinearRegressor", ML, [f(3, 4)], {"coefficients": f(8).tolist(), "intercepts": f(2).tolist(), "targets": 2}, 1),
    "support vectors": (
        "SVMRegressor", ML, [f(3, 4)],
        {"coefficients": f(5).tolist(), "support_vectors": f(20).tolist(), "n_supports": 5, "kernel_type": "RBF",
         "kernel_params": [0.4, 0.0, 3.0], "rho": [0.3]}, 1,
    ),
    "scaler": ("Scaler", ML, [f(3, 2)], {"offset": [0.1, 0.2], "scale": [2.0, 3.0]}, 1),
    "norm": ("Normalizer", ML, [f(3, 4)], {"norm": "L2"}, 1),
    "feature": ("ArrayFeatureExtractor", ML, [f(3, 4), np.array([2, 0], np.int64)], {}, 1),
    "categories": ("OneHotEncoder", ML, [np.array([1, 3], np.int64)], {"cats_int64s": [1, 2, 3]}, 1),
    "labels": (
        "LabelEncoder", ML, [np.array([1, 7, 3], np.int64)], {"keys_int64s": [1, 3], "values_floats": [0.5, 2.5], "default_float": -1.0}, 1,
    ),
    "imputer": ("Imputer", ML, [np.array([[1, np.nan]], np.float32)],
                {"imputed_value_floats": [9.0, 8.0], "replaced_value_float": float("nan")}, 1),
    "binary": ("Binarizer", ML, [f(3, 4)], {"threshold": 0.2}, 1),
}  # fmt: skip
CONSTANT = {"MatMulNBits": (1, 2, 3), "MatMulBnb4": (1, 2), "GatherBlockQuantized": (0, 2, 3), "ExpandDims": (1,), "Trilu": (1,),
            "CropAndResize": (3,), "DynamicQuantizeMatMul": (1, 2, 3, 4), "QAttention": (1, 2, 3, 4, 6, 7), "GroupQueryAttention": (5, 6),
            "QLinearConv": (1, 2, 3, 4, 5, 6, 7), "QGemm": (1, 2, 3, 4, 5, 6, 7, 8)}  # fmt: skip


def model(tmp_path, name):
    kind, domain, values, attributes, outputs = CASES[name]
    names = ["" if v is None else f"x{i}" for i, v in enumerate(values)]
    given = {n: np.asarray(v) for n, v in zip(names, values, strict=True) if n}
    fixed = {f"x{i}" for i in CONSTANT.get(kind, ())}
    node = helper.make_node(kind, names, [f"y{i}" for i in range(outputs)], name="node", domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in given.items() if n not in fixed],
        [onnx.ValueInfoProto(name=f"y{i}") for i in range(outputs)],
        [numpy_helper.from_array(v, n) for n, v in given.items() if n in fixed],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1 if domain == MICROSOFT else 3)]
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    return tmp_path / "m.onnx", {n: v for n, v in given.items() if n not in fixed}


OFTEN = ("heads, padding", "groups, window", "quantised attention", "bits, zeros")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in OFTEN else pytest.mark.long) for n in CASES])
def test_operators_give_what_onnx_runtime_gives(name, tmp_path):
    path, arrays = model(tmp_path, name)
    runtime.set_default_logger_severity(4)
    want = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, arrays)
    fn = kpu.onnx_function(path)
    with jax.enable_x64(True):
        outputs = jax.jit(fn)(arrays)
    for key, expected in zip(fn.outputs, want, strict=True):
        found = np.asarray(outputs[key])
        assert found.shape == expected.shape and found.dtype == expected.dtype
        step = 1 if expected.dtype.kind in "iu" and CASES[name][0].startswith("QLinear") else 0  # sums in another order round otherwise
        near = max(step, 2e-5 * max(1, np.abs(expected).max()))
        np.testing.assert_allclose(np.float64(found), np.float64(expected), rtol=2e-4, atol=near)
