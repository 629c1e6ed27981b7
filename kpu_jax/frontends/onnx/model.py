"""An ONNX file as plain nodes and constants: read, checked, sorted."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, shown, word
from kpu_jax.frontends.onnx.shapes import Declared, Size, declared, inferred, stated, without_weights

_DEEPEST = 8  # bodies within bodies of ONNX's operators


@dataclasses.dataclass(eq=False)
class Node:
    """One node; `attributes` hold Python numbers, text, NumPy arrays, lists of these, and graphs."""

    operator: str  # "domain::Type" outside the standard domain
    name: str
    inputs: tuple[str, ...]  # "" where left out
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute, or the default."""
        return self.attributes.get(attribute, default)


@dataclasses.dataclass(eq=False)
class Input:
    """A graph's input: its NumPy dtype, and sizes: numbers, names of dimensions, or None."""

    name: str
    dtype: Any
    shape: tuple[Size, ...] | None


@dataclasses.dataclass(eq=False)
class Graph:
    """A graph or the body of an If, Loop or Scan."""

    name: str
    nodes: list[Node]
    constants: dict[str, np.ndarray]
    inputs: list[Input]
    outputs: tuple[str, ...]


@dataclasses.dataclass(eq=False)
class Model:
    """A whole file."""

    file: str
    graph: Graph
    opsets: Mapping[str, int]
    sizes: Mapping[str, Declared]  # of inner values, as the file states them
    skeleton: Any  # the protocol buffer without large weights, for shape inference
    given: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)  # shapes of inputs

    def size_of(self, name: str) -> Declared | None:
        """(dtype, shape) of a value, as the file states it or ONNX infers it."""
        stated = self.sizes.get(name)
        if stated is not None and all(isinstance(n, int) for n in stated[1]):
            return stated
        return self._inferred.get(name, stated)

    @functools.cached_property
    def _inferred(self) -> dict[str, Declared]:
        return inferred(self.skeleton, self.given)


def read_model(path: Path, operators: Collection[str]) -> Model:
    """The graph of an ONNX file, external weights included; operators beyond these by the bodies that ONNX gives them.

    Raises `KPUError` naming the file for one that cannot be read, is corrupt or truncated, lacks external weights,
    has values that nobody writes or two nodes write, or nodes that wait for each other.
    """
    onnx = _onnx()
    try:
        proto = onnx.load_model(str(path), load_external_data=False)
    except OSError as error:
        raise KPUError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:
        raise KPUError(f"{path}: corrupt or truncated, no ONNX model: {_line(error)}") from None
    if not proto.graph.node and not proto.graph.output:
        raise KPUError(f"{path}: corrupt or truncated, no ONNX model: the graph is empty")
    _load_weights(onnx, proto, path)
    try:
        proto = _inlined(onnx, proto, operators)
        opsets = {("" if o.domain == "ai.onnx" else o.domain): int(o.version) for o in proto.opset_import} or {"": 1}
        graph = _graph(onnx, proto.graph, str(path), frozenset())
        sizes = stated(onnx, proto.graph)
    except KPUError:
        raise
    except Exception as error:
        raise KPUError(f"{path}: corrupt or truncated: {_line(error)}") from None
    return Model(str(path), graph, opsets, sizes, without_weights(onnx, proto))


def _onnx() -> Any:
    try:
        import onnx
        import onnx.external_data_helper
    except ImportError:
        raise KPUError("onnx is not installed: pip install 'kpu_jax[onnx]'") from None
    return onnx


def _inlined(onnx: Any, proto: Any, operators: Collection[str]) -> Any:
    """The model with its functions, and with standard ones that are not among `operators`, replaced by their bodies."""
    from onnx import inliner

    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    versions = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}
    for _ in range(_DEEPEST):
        found = sorted({key for node in _nodes(proto.graph) if (key := _body_of(onnx, node, versions, operators))})
        if not found:
            break
        try:
            proto = inliner.inline_selected_functions(proto, found, inline_schema_functions=True)
        except Exception:  # they stay, as operators that are not known
            break
    return proto


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of all bodies in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


def _body_of(onnx: Any, node: Any, versions: Mapping[str, int], operators: Collection[str]) -> tuple[str, str] | None:
    """(domain, type) of a node that is not known and has a body; None for others."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if (f"{domain}::" if domain else "") + node.op_type in operators or not onnx.defs.has(node.op_type, domain):
        return None
    schema = onnx.defs.get_schema(node.op_type, versions.get(domain, 1), domain)
    return (domain, node.op_type) if _has_body(schema) else None


def _has_body(schema: Any) -> bool:
    return bool(schema.has_function or schema.has_context_dependent_function)


def _line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:200]


def _load_weights(onnx: Any, proto: Any, path: Path) -> None:
    folder = path.parent
    helper = onnx.external_data_helper
    for tensor in helper._get_all_tensors(proto):  # the public loader stops at the first and names no tensor
        if not helper.uses_external_data(tensor):
            continue
        location = helper.ExternalDataInfo(tensor).location
        if not (folder / location).is_file():
            raise KPUError(f"{path}: the weights {tensor.name!r} are in {location!r}, which is not beside the file")
        try:
            helper.load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:
            raise KPUError(f"{path}: the weights {tensor.name!r} cannot be read from {location!r}: {_line(error)}") from None


def _graph(onnx: Any, proto: Any, file: str, outer: frozenset[str]) -> Graph:
    constants = {t.name: _tensor(onnx, t, file) for t in proto.initializer}
    for sparse in proto.sparse_initializer:
        constants[sparse.values.name] = _dense(onnx, sparse, file)
    inputs = [_input(onnx, v) for v in proto.input if v.name not in constants]
    known = outer | constants.keys() | {v.name for v in inputs}
    made: set[str] = set()
    for node in proto.node:
        for output in node.output:
            if output and (output in made or output in constants):
                raise KPUError(f"{file}: the value {output!r} is written twice, the second time by node {node.name!r} ({node.op_type})")
            made.add(output)
    nodes = []
    for position, node in enumerate(proto.node):
        name = node.name or f"{node.op_type}_{position}"
        missing = [i for i in node.input if i and i not in known and i not in made]
        if missing:
            raise KPUError(f"{file}: node {name!r} ({node.op_type}) reads {missing[0]!r}, which nothing writes")
        attributes = {a.name: _attribute(onnx, a, file, known | made) for a in node.attribute}
        domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}::"
        nodes.append(Node(f"{domain}{node.op_type}", name, tuple(node.input), tuple(node.output), attributes))
    outputs = tuple(v.name for v in proto.output)
    for output in outputs:
        if output not in known and output not in made:
            raise KPUError(f"{file}: the output {output!r} is written by no node")
    return Graph(proto.name, _sorted(nodes, known, file), constants, inputs, outputs)


def _sorted(nodes: list[Node], known: frozenset[str], file: str) -> list[Node]:
    """Nodes after those that they read (bodies included); `KPUError` for a cycle."""
    writer = {output: i for i, node in enumerate(nodes) for output in node.outputs if output}
    state = [0] * len(nodes)
    ordered: list[Node] = []
    for start in range(len(nodes)):
        stack = [(start, iter(_needs(nodes[start], writer)))]
        if state[start]:
            continue
        state[start] = 1
        while stack:
            at, needs = stack[-1]
            following = next((n for n in needs if state[n] != 2), None)
            if following is None:
                state[at] = 2
                ordered.append(nodes[at])
                stack.pop()
            elif state[following] == 1:
                names = [nodes[i].name for i, _ in stack]
                cycle = names[names.index(nodes[following].name) :]
                raise KPUError(f"{file}: the graph has a cycle: {' -> '.join([*cycle, nodes[following].name])}")
            else:
                state[following] = 1
                stack.append((following, iter(_needs(nodes[following], writer))))
    return ordered


def _needs(node: Node, writer: dict[str, int]) -> list[int]:
    names = [*node.inputs, *(n for a in node.attributes.values() for g in _bodies(a) for n in reads_outside(g))]
    return [writer[n] for n in names if n in writer]


def _bodies(attribute: Any) -> list[Graph]:
    if isinstance(attribute, Graph):
        return [attribute]
    return [g for g in attribute if isinstance(g, Graph)] if isinstance(attribute, list) else []


def reads_outside(graph: Graph) -> set[str]:
    """Names that a body reads of the graphs around it."""
    own = {*graph.constants, *(i.name for i in graph.inputs), *(o for n in graph.nodes for o in n.outputs)}
    read = {*graph.outputs}
    for node in graph.nodes:
        read.update(node.inputs)
        for attribute in node.attributes.values():
            for body in _bodies(attribute):
                read |= reads_outside(body)
    return {name for name in read if name and name not in own}


def _attribute(onnx: Any, attribute: Any, file: str, known: frozenset[str]) -> Any:
    kind = onnx.AttributeProto.AttributeType.Name(attribute.type)
    if kind == "GRAPH":
        return _graph(onnx, attribute.g, file, known)
    if kind == "GRAPHS":
        return [_graph(onnx, g, file, known) for g in attribute.graphs]
    if kind == "TENSOR":
        return _tensor(onnx, attribute.t, file)
    if kind == "SPARSE_TENSOR":
        return _dense(onnx, attribute.sparse_tensor, file)
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if kind in ("INTS", "FLOATS"):
        return list(value)
    return [v.decode("utf-8", "replace") for v in value] if kind == "STRINGS" else value


def _tensor(onnx: Any, tensor: Any, file: str) -> np.ndarray:
    try:
        return onnx.numpy_helper.to_array(tensor)
    except Exception as error:
        raise KPUError(f"{file}: the weights {tensor.name!r} are corrupt or truncated: {_line(error)}") from None


def _dense(onnx: Any, sparse: Any, file: str) -> np.ndarray:
    values, indices = _tensor(onnx, sparse.values, file), _tensor(onnx, sparse.indices, file)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    where = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dense.shape)
    dense.reshape(-1)[where] = values
    return dense


def _input(onnx: Any, value: Any) -> Input:
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.elem_type:
        return Input(value.name, None, None)
    size = declared(onnx, value)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return Input(value.name, dtype, None if size is None else size[1])


def described(node: Node) -> str:
    """How messages name a node."""
    return f"node {shown(node.name)} ({word(node.operator)})"
