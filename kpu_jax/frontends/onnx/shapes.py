"""Types and shapes of a model's inner values: those that the file states, and those that ONNX infers of given inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Size = int | str | None
Declared = tuple[Any, tuple[Size, ...]]
"""(NumPy dtype, sizes: numbers, names of dimensions, or None)."""

_LARGE = 1024  # elements; smaller weights may be shapes, which inference reads


def declared(onnx: Any, value: Any) -> Declared | None:
    """(dtype, sizes) of a tensor's declaration; None for sequences, optionals and values without a shape."""
    if not value.type.HasField("tensor_type"):
        return None
    tensor = value.type.tensor_type
    if not tensor.elem_type or not tensor.HasField("shape"):
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    sizes: list[Size] = []
    for d in tensor.shape.dim:
        named = d.dim_param if d.HasField("dim_param") and d.dim_param not in ("", "?") else None
        sizes.append(int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else named)
    return dtype, tuple(sizes)


def stated(onnx: Any, graph: Any) -> dict[str, Declared]:
    """What a graph states of its inner values and outputs."""
    each = {v.name: declared(onnx, v) for v in (*graph.value_info, *graph.output)}
    return {name: size for name, size in each.items() if size is not None}


def without_weights(onnx: Any, proto: Any) -> Any:
    """`proto` itself, its large weights made inputs of their shapes. What was read of it before is not touched."""
    kept = [t for t in proto.graph.initializer if math.prod(t.dims) <= _LARGE]
    for tensor in proto.graph.initializer:
        if math.prod(tensor.dims) > _LARGE and tensor.name not in {i.name for i in proto.graph.input}:
            proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return proto


def inferred(proto: Any, inputs: Mapping[str, tuple[int, ...]]) -> dict[str, Declared]:
    """What ONNX's own shape inference finds for inputs of these shapes; nothing where it fails."""
    import onnx

    for value in proto.graph.input:
        if value.name in inputs and value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
            for n in inputs[value.name]:
                value.type.tensor_type.shape.dim.add().dim_value = n
    for value in (*proto.graph.value_info, *proto.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    try:
        return stated(onnx, onnx.shape_inference.infer_shapes(proto, data_prop=True).graph)
    except Exception:  # of a file that was read, so that what it lacks is asked of the user
        return {}
