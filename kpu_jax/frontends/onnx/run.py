"""Runs the graph of an ONNX model with NumPy on what is known and JAX on what is not.

Shapes and weights are NumPy arrays: a node that reads nothing else is computed while the graph is read, as every ONNX
runtime does, and costs nothing. The rest goes through JAX, whose own shape inference is exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, shown
from kpu_jax.frontends.onnx.model import Graph, Model, Node, described

POLICIES = ("error", "host", "skip")
OPERATORS: dict[str, Callable[..., Any]] = {}
"""Operator -> function (run, node, *inputs) of one value, or a tuple of them; left-out inputs are None."""


def operator(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: this function is the operator of these names."""

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        OPERATORS.update(dict.fromkeys(names, fn))
        return fn

    return register


@dataclasses.dataclass(eq=False)
class Quantised:
    """(q - zero_point) * scale, not multiplied out: a product of two of them is one of integers."""

    q: Any
    scale: Any
    zero_point: Any  # None: 0
    axis: int
    value: Callable[[], Any]  # the floats


def known(*values: Any) -> bool:
    """Whether all of these are NumPy arrays (or left out)."""
    return all(v is None or isinstance(v, (np.ndarray, np.generic, int, float)) for v in values)


@dataclasses.dataclass
class Run:
    """One reading of a model."""

    model: Model
    unsupported: str
    trips: Any
    shapes: Mapping[str, Sequence[int]]  # of values whose shapes the file does not state

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return self.model.opsets.get("", 1)

    def fail(self, node: Node, reason: str) -> KPUError:
        """The error that names file, node and type."""
        return KPUError(f"{self.model.file}: {described(node)}: {reason}")

    def graph(self, graph: Graph, inputs: Sequence[Any], outer: Mapping[str, Any] | None = None) -> list[Any]:
        """The outputs of a graph or body; `outer` are the values around a body."""
        values: dict[str, Any] = {**(outer or {}), **graph.constants}
        values.update(zip((i.name for i in graph.inputs), inputs, strict=False))
        for node in graph.nodes:
            outputs = self._node(node, values)
            values.update((name, out) for name, out in zip(node.outputs, outputs, strict=False) if name)
        return [floats(values[name]) for name in graph.outputs]

    def _node(self, node: Node, values: dict[str, Any]) -> Sequence[Any]:
        inputs = [values[name] if name else None for name in node.inputs]
        if not getattr(OPERATORS.get(node.operator), "takes_quantised", False):
            inputs = [floats(v) for v in inputs]
        fn = OPERATORS.get(node.operator)
        if fn is None:
            return self._unsupported(node, inputs)
        try:
            with jax.named_scope(node.name):
                out = fn(self, node, *inputs, **({"values": values} if getattr(fn, "has_bodies", False) else {}))
        except KPUError:
            raise
        except NotImplementedError as error:
            return self._unsupported(node, inputs, str(error))
        except Exception as error:
            shapes = ", ".join("none" if v is None else str(np.shape(floats(v))) for v in inputs)
            lines = [line for line in str(error).splitlines() if line.strip()] or [""]
            raise self.fail(node, f"{type(error).__name__} on inputs of shapes {shapes}: {lines[0][:200]}") from error
        outputs = out if isinstance(out, tuple) else (out,)
        wanted = max((i + 1 for i, name in enumerate(node.outputs) if name), default=0)
        if len(outputs) < wanted or any(outputs[i] is None for i, name in enumerate(node.outputs) if name and i < len(outputs)):
            return self._unsupported(node, inputs, f"its output {node.outputs[wanted - 1]!r}")
        return outputs

    def _unsupported(self, node: Node, inputs: list[Any], why: str = "") -> Sequence[Any]:
        """What the policy says of an operator that is not known."""
        from kpu_jax.frontends.onnx.host import host_operator

        if self.unsupported == "error":
            what = f"the operator is not supported{f' with {why}' if why else ''}"
            raise self.fail(node, f"{what}: pass unsupported='host' to list it as work of the host, or 'skip' to leave its work out")
        declared = [self._declared(node, name, inputs) for name in node.outputs if name]
        with jax.named_scope(node.name):
            return host_operator(node.operator, [v for v in inputs if v is not None], declared, skip=self.unsupported == "skip")

    def _declared(self, node: Node, name: str, inputs: list[Any]) -> jax.ShapeDtypeStruct:
        """(shape, dtype) that the file states for an output, dimensions by name bound; else those of the first input."""
        if name in self.shapes:
            dtype = self.model.sizes[name][0] if name in self.model.sizes else np.dtype(np.float32)
            return jax.ShapeDtypeStruct(tuple(self.shapes[name]), dtype)
        given = self.model.sizes.get(name)
        if given is not None and all(isinstance(n, int) for n in given[1]):
            return jax.ShapeDtypeStruct(given[1], given[0])
        first = next((v for v in inputs if v is not None), None)
        if len(node.outputs) == 1 and first is not None:
            return jax.ShapeDtypeStruct(np.shape(first), given[0] if given is not None else first.dtype)
        raise self.fail(node, f"not supported, and the file does not state the shape of its output {shown(name)}: give it with shapes=")


def floats(value: Any) -> Any:
    """A value with its quantisation multiplied out."""
    return value.value() if isinstance(value, Quantised) else value
