"""`kpu.load_onnx`: an ONNX file as a workload, by way of the JAX function that it is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

import kpu_jax.frontends.onnx.operators  # noqa: F401  (registers them)
from kpu_jax.base.errors import KPUError, check_choice, check_number, nearest, shown
from kpu_jax.base.files import file_path
from kpu_jax.frontends.onnx.model import Input, Model, read_model
from kpu_jax.frontends.onnx.run import OPERATORS, POLICIES, Run, Text, is_text
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
    `inputs` gives values that decide on shapes or branches ({"sr": 16000}), also of inner values, such as the length that
    a speech model computes; the work of computing them counts. Work on weights and shapes alone is done while the file is
    read and costs nothing. `If` takes the branch of a known test; of an unknown one
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
    model = onnx_function(path, dims=dims, shapes=shapes, inputs=inputs, unsupported=unsupported, while_trips=while_trips)
    name = os.path.basename(os.fspath(path))
    traced = trace_with_sources(
        model.with_all_work,
        lambda scope: f"{name}: {scope}",
        dtype=dtype,
        while_trips=None,
        branch_weights=branch_weights,
        unsupported="host",
    )
    try:
        with jax.enable_x64(True):
            return traced(model.inputs)
    except KPUError as error:
        raise error if name in str(error) else KPUError(f"{os.fspath(path)}: {error}") from None


@dataclasses.dataclass(frozen=True, eq=False)
class OnnxFunction:
    """An ONNX model as a JAX function from {input: array} to {output: array}; `kpu.onnx_function` makes it.

    ONNX counts in int64, so it computes under `jax.enable_x64(True)`, and so do `sim.execute` and whatever else honours
    `needs_x64`. Under a jit, grad or vmap of your own, open that context around them.
    """

    inputs: dict[str, jax.ShapeDtypeStruct]
    outputs: tuple[str, ...]
    _run: Run
    _fixed: Mapping[str, Any]
    needs_x64: ClassVar[bool] = True

    def __call__(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs for arrays of the shapes of `inputs`; text among them is left out. Raises `KPUError` naming file and node."""
        graph, run = self._run.model.graph, self._run
        lacking = [name for name in self.inputs if name not in arrays]
        if lacking or len(arrays) > len(self.inputs):
            raise KPUError(f"{run.model.file}: takes {{{', '.join(map(repr, self.inputs))}}}, got {shown(sorted(arrays))}")
        with jax.enable_x64(True):
            values = run.graph(graph, [self._fixed[i.name] if i.name in self._fixed else arrays[i.name] for i in graph.inputs])
        return {name: v for name, v in zip(graph.outputs, values, strict=True) if v is not None and not is_text(v)}

    def with_all_work(self, arrays: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the outputs, what the model computes in place of inner values that `inputs` gave)."""
        self._run.replaced.clear()
        outputs = self(arrays)
        return outputs, dict(self._run.replaced)


def onnx_function(
    path: str | os.PathLike[str],
    *,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    inputs: Mapping[str, Any] | None = None,
    unsupported: str = "error",
    while_trips: float | Mapping[str, float] | None = None,
) -> OnnxFunction:
    """An ONNX file (extra `onnx`) as a JAX function: `model({"x": array})` gives {output: array}.

    `model.inputs` are the arrays that it takes, `sim.execute(model)(arrays)` runs it on the machine. Arguments, and
    what they mean, as for `load_onnx`; what the policies leave to the host has a shape but cannot be run. Raises as it does.
    """
    check_choice("unsupported", unsupported, POLICIES)
    model = read_model(file_path(path), OPERATORS)
    declared, shapes = {i.name: i for i in model.graph.inputs}, shapes or {}
    given = {name: _given(model, name, value) for name, value in (inputs or {}).items()}
    named = [*declared, *(name for node in model.graph.nodes for name in node.outputs if name)]
    for field, table in (("inputs", given), ("shapes", shapes)):
        for name in table:
            if name not in named:
                raise KPUError(f"{model.file}: {field} names {shown(name)}, which the model does not have: {nearest(name, named)}")
    bound = _dimensions(model, dims or {})
    taken = {i.name: _argument(model, i, bound, shapes, unsupported) for i in model.graph.inputs if i.name not in given}
    fixed: dict[str, Any] = {name: value for name, value in taken.items() if isinstance(value, Text)}
    fixed |= {name: v if declared[name].dtype is None else _cast(model, declared[name], v) for name, v in given.items() if name in declared}
    model = dataclasses.replace(
        model,
        sizes={k: (d, tuple(bound.get(n, n) for n in s)) for k, (d, s) in model.sizes.items()},  # type: ignore[arg-type]
        given={name: tuple(np.shape(v)) for name, v in {**taken, **fixed}.items() if not isinstance(v, list)},
    )
    run = Run(model, unsupported, while_trips, shapes, {name: v for name, v in given.items() if name not in declared})
    arguments = {name: value for name, value in taken.items() if not isinstance(value, Text)}
    return OnnxFunction(arguments, model.graph.outputs, run, fixed)


def _given(model: Model, name: str, value: Any) -> Any:
    """A value that the user gave: an array, or for a sequence a list of them."""
    try:
        sequence = isinstance(value, (list, tuple)) and any(i.name == name and i.dtype is None for i in model.graph.inputs)
        return [np.asarray(v) for v in value] if sequence else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise KPUError(f"{model.file}: inputs[{name!r}] = {shown(value)} is no array: {str(error).splitlines()[0]}") from None


def _cast(model: Model, entry: Input, value: np.ndarray) -> np.ndarray:
    """A given input in the declared type."""
    if value.dtype.kind in "OSU" and np.dtype(entry.dtype).kind != "O":
        raise KPUError(f"{model.file}: inputs[{entry.name!r}] must be numbers ({entry.dtype}), got {shown(value)}")
    return value.astype(entry.dtype)


def _dimensions(model: Model, dims: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of named dimensions, checked."""
    names = {n for i in model.graph.inputs for n in i.shape or () if isinstance(n, str)}
    names |= {n for _, s in model.sizes.values() for n in s if isinstance(n, str)}
    for name in dims:
        if name not in names:
            raise KPUError(f"{model.file}: dims names {shown(name)}, which the model does not have: {nearest(name, names)}")
    return {name: int(check_number(f"dims[{name!r}]", size, "elements", low=1, integer=True)) for name, size in dims.items()}


def _argument(model: Model, entry: Input, bound: Mapping[str, int], shapes: Mapping[str, Any], unsupported: str) -> Any:
    if entry.dtype is None:
        raise KPUError(f"{model.file}: the input {entry.name!r} is no tensor of a known type; give its value with inputs=")
    if np.dtype(entry.dtype).kind == "O" and unsupported == "error":
        raise KPUError(
            f"{model.file}: the input {entry.name!r} is text, which the chip does not hold: pass unsupported='host' to list what reads "
            "it as work of the host, or 'skip' to leave that out"
        )
    if entry.name in shapes:
        given = [int(check_number(f"shapes[{entry.name!r}]", n, "elements", low=1, integer=True)) for n in shapes[entry.name]]
        fixed = entry.shape
        if fixed is not None and (
            len(fixed) != len(given) or any(isinstance(a, int) and a != b for a, b in zip(fixed, given, strict=True))
        ):
            raise KPUError(f"{model.file}: shapes[{entry.name!r}] = {tuple(given)} does not fit the declared {_text(fixed)}")
        return _value(tuple(given), entry.dtype)
    sizes = [bound.get(n) if isinstance(n, str) else n for n in entry.shape or ()]
    if entry.shape is None or None in sizes:
        free = [n for n, size in zip(entry.shape or (), sizes, strict=True) if size is None and n is not None]
        remedy = (
            f"dims={{{', '.join(f'{n!r}: 1' for n in free)}}}"
            if free and len(free) == sizes.count(None)
            else f"shapes={{{entry.name!r}: (...)}}"
        )
        raise KPUError(f"{model.file}: the input {entry.name!r} has the unknown shape {_text(entry.shape)}: bind it with {remedy}")
    return _value(tuple(sizes), entry.dtype)  # type: ignore[arg-type]


def _value(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct | Text:
    return Text(shape) if np.dtype(dtype).kind == "O" else jax.ShapeDtypeStruct(shape, dtype)


def _text(shape: Any) -> str:
    return "(?)" if shape is None else f"({', '.join('?' if n is None else str(n) for n in shape)})"
