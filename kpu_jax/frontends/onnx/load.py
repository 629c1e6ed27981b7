"""`kpu.load_onnx`: an ONNX file as a workload, by way of the JAX function that it is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import kpu_jax.frontends.onnx.operators  # noqa: F401  (registers them)
from kpu_jax.base.errors import KPUError, check_choice, check_number, nearest, shown
from kpu_jax.base.files import file_path
from kpu_jax.frontends.onnx.model import Input, Model, read_model
from kpu_jax.frontends.onnx.run import OPERATORS, POLICIES, Run, known
from kpu_jax.frontends.trace import trace_with_sources
from kpu_jax.workload import Workload


def load_onnx(
    path: str | os.PathLike[str],
    *,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    inputs: Mapping[str, Any] | None = None,
    dtype: Any = None,
    unsupported: str = "error",
    while_trips: float | Mapping[str, float] | None = None,
    branch_weights: Any = None,
) -> Workload:
    """The workload of an ONNX file (extra `onnx`).

    `dims` binds dimensions by name ({"batch": 1}); `shapes` gives whole shapes by input, for dimensions without a name;
    `inputs` gives values of inputs that decide on shapes or branches ({"sr": 16000}). Work on weights and shapes
    alone is done while the file is read and costs nothing. `If` takes the branch of a known test; of an unknown one
    `branch_weights` or the dearest counts, as in `trace`. A `Loop` of unknown length needs `while_trips`, for all or by
    the node's name. Quantised operands, and `DequantizeLinear` before a product, multiply as integers. `dtype` takes
    the place of all floating-point formats.

    An operator that is not known: `unsupported` "error" names node and type; "host" lists it as work of the host, its
    shapes as the file or `shapes` states them; "skip" leaves its work out. Detections that are sorted and chosen
    (NonMaxSuppression) are the host's, at their largest number.

    Every operation's scope is its node's name and its source the file and node. Raises `KPUError` naming file and
    node for corrupt or truncated files, missing external weights, cycles, dimensions that are not bound or zero,
    and nodes that cannot be run.
    """
    fn, arguments = onnx_function(path, dims=dims, shapes=shapes, inputs=inputs, unsupported=unsupported, while_trips=while_trips)
    name = os.path.basename(os.fspath(path))
    with jax.enable_x64(True):
        return trace_with_sources(
            fn, lambda scope: f"{name}: {scope}", dtype=dtype, while_trips=None, branch_weights=branch_weights, unsupported="host"
        )(arguments)


def onnx_function(
    path: str | os.PathLike[str],
    *,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    inputs: Mapping[str, Any] | None = None,
    unsupported: str = "error",
    while_trips: float | Mapping[str, float] | None = None,
) -> tuple[Callable[[dict[str, Any]], list[Any]], dict[str, jax.ShapeDtypeStruct]]:
    """(the model as a JAX function from {input: array} to its outputs, the arrays that it takes).

    Arguments as `load_onnx`. Call the function, or trace it, under `jax.enable_x64(True)`: ONNX counts in int64.
    """
    check_choice("unsupported", unsupported, POLICIES)
    model = read_model(file_path(path), OPERATORS)
    given = {name: np.asarray(v) for name, v in (inputs or {}).items()}
    declared = {i.name: i for i in model.graph.inputs}
    inner = {name for node in model.graph.nodes for name in node.outputs}
    for field, table, names in (("inputs", given, declared.keys()), ("shapes", shapes or {}, declared.keys() | inner)):
        for name in table:
            if name not in names:
                raise KPUError(f"{model.file}: {field} names {shown(name)}, which the model does not take: {nearest(name, declared)}")
    bound = _dimensions(model, dims or {})
    arguments = {i.name: _argument(model, i, bound, shapes or {}) for i in model.graph.inputs if i.name not in given}
    model = dataclasses.replace(model, sizes={k: (d, tuple(bound.get(n, n) for n in s)) for k, (d, s) in model.sizes.items()})  # type: ignore[arg-type]
    fixed = {name: v.astype(declared[name].dtype) if declared[name].dtype is not None else v for name, v in given.items()}
    run = Run(model, unsupported, while_trips, shapes or {})

    def onnx_model(arrays: dict[str, Any]) -> list[Any]:
        values = [fixed[i.name] if i.name in fixed else arrays[i.name] for i in model.graph.inputs]
        return [v for v in run.graph(model.graph, values) if v is not None and not known(v)]

    return onnx_model, arguments


def _dimensions(model: Model, dims: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of named dimensions, checked."""
    names = {n for i in model.graph.inputs for n in i.shape or () if isinstance(n, str)}
    names |= {n for _, s in model.sizes.values() for n in s if isinstance(n, str)}
    for name in dims:
        if name not in names:
            raise KPUError(f"{model.file}: dims names {shown(name)}, which the model does not have: {nearest(name, names)}")
    return {name: int(check_number(f"dims[{name!r}]", size, "elements", low=1, integer=True)) for name, size in dims.items()}


def _argument(model: Model, entry: Input, bound: Mapping[str, int], shapes: Mapping[str, Any]) -> jax.ShapeDtypeStruct:
    if entry.dtype is None:
        raise KPUError(f"{model.file}: the input {entry.name!r} is no tensor of a known type; give its value with inputs=")
    if entry.dtype == object:
        raise KPUError(f"{model.file}: the input {entry.name!r} is text, which the chip does not hold")
    if entry.name in shapes:
        given = [int(check_number(f"shapes[{entry.name!r}]", n, "elements", low=1, integer=True)) for n in shapes[entry.name]]
        fixed = entry.shape
        if fixed is not None and (
            len(fixed) != len(given) or any(isinstance(a, int) and a != b for a, b in zip(fixed, given, strict=True))
        ):
            raise KPUError(f"{model.file}: shapes[{entry.name!r}] = {tuple(given)} does not fit the declared {_text(fixed)}")
        return jax.ShapeDtypeStruct(tuple(given), entry.dtype)
    sizes = [bound.get(n) if isinstance(n, str) else n for n in entry.shape or ()]
    if entry.shape is None or None in sizes:
        free = [n for n, size in zip(entry.shape or (), sizes, strict=True) if size is None and n is not None]
        remedy = (
            f"dims={{{', '.join(f'{n!r}: 1' for n in free)}}}"
            if free and len(free) == sizes.count(None)
            else f"shapes={{{entry.name!r}: (...)}}"
        )
        raise KPUError(f"{model.file}: the input {entry.name!r} has the unknown shape {_text(entry.shape)}: bind it with {remedy}")
    return jax.ShapeDtypeStruct(tuple(sizes), entry.dtype)  # type: ignore[arg-type]


def _text(shape: Any) -> str:
    return "(?)" if shape is None else f"({', '.join('?' if n is None else str(n) for n in shape)})"
