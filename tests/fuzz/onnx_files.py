"""Small ONNX files of every shape that the reader knows: products, windows, constants, branches, loops, quantised weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
node = helper.make_node


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], **weights: Any) -> bytes:
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(*v) for v in inputs],
        [helper.make_tensor_value_info(*v) for v in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def models() -> list[bytes]:
    """Files that `kpu.load_onnx` reads as they are."""
    x, y, ones = [("x", F32, [2, 4])], [("y", F32, None)], np.ones((4, 3), np.float32)
    perceptron = [node("Gemm", ["x", "w", "b"], ["h"], name="fc", transB=0), node("Relu", ["h"], ["y"])]
    window = [
        node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Reshape", ["c", "shape"], ["r"]), node("Transpose", ["r"], ["t"], perm=[1, 0]), node("Softmax", ["t"], ["y"], axis=-1),
    ]  # fmt: skip
    shapes = [
        node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"], ["zero"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        node("Slice", ["x", "one", "two"], ["part"]), node("Pad", ["part", "pads"], ["wide"]), node("Add", ["x", "zero"], ["sum"]),
        node("Concat", ["sum", "wide"], ["y"], axis=0), node("Range", ["lo", "hi", "step"], ["counted"]),
    ]  # fmt: skip
    out = helper.make_tensor_value_info("z", F32, None)
    branch = [helper.make_graph([node("MatMul", ["x", "w"], ["z"], name=n)], n, [], [out]) for n in ("yes", "no")]
    choose = [node("If", ["test"], ["y"], name="choose", then_branch=branch[0], else_branch=branch[1])]
    infos = [("i", I64, []), ("go", TensorProto.BOOL, []), ("h", F32, [2, 4])], [("go2", TensorProto.BOOL, []), ("h2", F32, [2, 4])]
    sides = [[helper.make_tensor_value_info(*v) for v in side] for side in infos]
    body = helper.make_graph([node("Identity", ["go"], ["go2"]), node("MatMul", ["h", "q"], ["h2"])], "body", *sides)
    loop = [node("Loop", ["trips", "test", "x"], ["y"], name="loop", body=body)]
    scale = dict(s=np.float32(0.1), z=np.int8(0))
    quantised = [node("DequantizeLinear", ["w", "s", "z"], ["wd"]), node("MatMul", ["x", "wd"], ["y"], name="product")]
    index = dict(one=np.array([0, 1]), two=np.array([2, 3]), pads=np.array([0, 1, 0, 1]), lo=np.int64(0), hi=np.int64(9), step=np.int64(2))
    return [
        _model(perceptron, x, y, w=ones, b=np.ones(3, np.float32)),
        _model(window, [("x", F32, [1, 2, 6, 6])], y, w=np.ones((3, 2, 3, 3), np.float32), shape=np.array([3, -1])),
        _model(shapes, x, [*y, ("counted", I64, None)], **index),
        _model(choose, [*x, ("test", TensorProto.BOOL, [])], y, w=ones),
        _model(loop, x, y, q=np.ones((4, 4), np.float32), trips=np.int64(3), test=np.bool_(True)),
        _model(quantised, x, y, w=np.ones((4, 3), np.int8), **scale),
    ]


_SIZES = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 7, 2**31, 2**40, 2**62])
_TYPES = ["Gemm", "Conv", "MatMul", "Reshape", "Concat", "Range", "Tile", "Expand", "Gather", "Resize", "LSTM", "Split", "TopK", "Mystery"]


@st.composite
def rewritten(draw: Any, valid: list[bytes]) -> bytes:
    """One of the files with names, types, sizes, attributes or weights changed, still a file that ONNX parses."""
    model = ModelProto()
    model.ParseFromString(draw(st.sampled_from(valid)))
    graph = model.graph
    for _ in range(draw(st.integers(1, 3))):
        step, which = (
            draw(st.sampled_from(("type", "input", "output", "attribute", "weight", "value", "shape", "opset"))),
            draw(st.integers(0, 9)),
        )
        at = graph.node[which % len(graph.node)]
        weight = graph.initializer[which % len(graph.initializer)]
        names = [*(n.name for n in graph.initializer), *(v.name for v in graph.input), *(o for n in graph.node for o in n.output), ""]
        if step == "type":
            at.op_type = draw(st.sampled_from([*_TYPES, *(n.op_type for n in graph.node)]))
        elif step == "input":
            at.input[:] = draw(st.lists(st.sampled_from(names), max_size=5))
        elif step == "output":
            at.output.append(draw(st.sampled_from(names)))
        elif step == "attribute":
            name = draw(st.sampled_from([*(a.name for a in at.attribute), "axis", "perm", "pads", "group", "to", "kernel_shape"]))
            kept = [a for a in at.attribute if a.name != name]
            value = draw(st.one_of(_SIZES, st.lists(_SIZES, max_size=4), st.floats(width=32), st.text(max_size=4)))
            changed = helper.make_attribute(name, value, attr_type=AttributeProto.INTS if value == [] else None)
            del at.attribute[:]
            at.attribute.extend([*kept, changed])
        elif step == "weight":
            weight.dims[:] = draw(st.lists(_SIZES, max_size=4))
        elif step == "value":
            small = draw(st.lists(_SIZES, max_size=4))
            kind = draw(st.sampled_from([np.int64, np.float32, np.bool_, np.int8]))
            array = np.asarray(small, np.int64).astype(kind)
            weight.CopyFrom(numpy_helper.from_array(array if draw(st.booleans()) else array.reshape(-1)[:1].sum(dtype=kind), weight.name))
        elif step == "shape":
            declared = graph.input[which % len(graph.input)]
            sizes = draw(st.lists(_SIZES, max_size=4))
            declared.CopyFrom(helper.make_tensor_value_info(declared.name, draw(st.sampled_from([F32, I64, TensorProto.STRING])), sizes))
        else:
            model.opset_import[0].version = draw(st.sampled_from([-1, 0, 1, 6, 11, 13, 22, 10**6]))
    return model.SerializeToString()
