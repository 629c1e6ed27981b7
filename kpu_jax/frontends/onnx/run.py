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


@dataclasses.dataclass(eq=False)
class Text:
    """Text among the model's inputs, or made of it: the shape is known, the rest is the host's."""

    shape: tuple[int, ...]
    dtype: np.dtype = np.dtype(object)


def known(*values: Any) -> bool:
    """Whether all of these are NumPy arrays (or left out)."""
    return all(v is None or isinstance(v, (np.ndarray, np.generic, int, float)) for v in values)


def is_text(value: Any) -> bool:
    """Whether a value is text, which neither JAX nor the chip holds."""
    return isinstance(value, Text) or (isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "OSU")


_READ_TEXT = ("Shape", "Size", "Identity")  # operators that do not look at what an array holds
_NEVER_FOLDED = ("Random", "Bernoulli", "Multinomial")


@dataclasses.dataclass
class Run:
    """One reading of a model."""

    model: Model
    unsupported: str
    trips: Any
    shapes: Mapping[str, Sequence[int]]  # of values whose shapes the file does not state
    pinned: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)  # inner values that the user gave
    replaced: dict[str, Any] = dataclasses.field(default_factory=dict)  # what the model computes in their place
    reading: Sequence[Any] = ()  # the inputs of the node at hand

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return self.model.opsets.get("", 1)

    def fail(self, node: Node, reason: str) -> KPUError:
        """The error that names file, node and type."""
        return KPUError(f"{self.model.file}: {described(node)}: {reason}")

    def data(self, node: Node, what: str, value: Any) -> KPUError:
        """The error that `what` of a node, which it reads as `value`, is data where it had to be known."""
        name = next((shown(n) for n, v in zip(node.inputs, self.reading, strict=False) if v is value), "that value")
        return self.fail(node, f"{what} is computed from the model's inputs: its shapes are unknown; give {name} with inputs=")

    def graph(self, graph: Graph, inputs: Sequence[Any], outer: Mapping[str, Any] | None = None) -> list[Any]:
        """The outputs of a graph or body; `outer` are the values around a body."""
        values: dict[str, Any] = {**(outer or {}), **graph.constants}
        values.update(zip((i.name for i in graph.inputs), inputs, strict=False))
        for node in graph.nodes:
            outputs = self._node(node, values)
            values.update((name, out) for name, out in zip(node.outputs, outputs, strict=False) if name)
            for name in node.outputs:
                if name in self.pinned:
                    values[name] = self._pinned(node, name, values[name], outer is None)
        return [floats(values[name]) for name in graph.outputs]

    def _pinned(self, node: Node, name: str, computed: Any, outermost: bool) -> Any:
        """The value that the user gave for one that the model computes, which is kept aside so that its work counts."""
        given, computed = self.pinned[name], floats(computed)
        if np.size(given) == 1 and np.size(computed) == 1:
            given = given.reshape(np.shape(computed))
        if np.shape(given) != np.shape(computed):
            raise self.fail(node, f"inputs[{name!r}] has the shape {np.shape(given)}, the model computes {np.shape(computed)}")
        if outermost and not known(computed):
            self.replaced[name] = computed
        return given.astype(computed.dtype)

    def _node(self, node: Node, values: dict[str, Any]) -> Sequence[Any]:
        inputs = [values[name] if name else None for name in node.inputs]
        if not getattr(OPERATORS.get(node.operator), "takes_quantised", False):
            inputs = [floats(v) for v in inputs]
        fn = OPERATORS.get(node.operator)
        if fn is None:
            return self._unsupported(node, inputs)
        if any(isinstance(v, Text) for v in inputs) and node.operator not in _READ_TEXT:
            return self._unsupported(node, inputs, "text")
        self.reading = inputs
        try:
            with jax.named_scope(node.name):
                out = self._apply(fn, node, inputs, values)
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
            lacking = next(n for i, n in enumerate(node.outputs) if n and (i >= len(outputs) or outputs[i] is None))
            return self._unsupported(node, inputs, f"its output {lacking!r}")
        return outputs

    def _apply(self, fn: Callable[..., Any], node: Node, inputs: list[Any], values: dict[str, Any]) -> Any:
        """What an operator gives; of known values a known one."""
        if getattr(fn, "has_bodies", False):
            return fn(self, node, *inputs, values=values)
        if not known(*inputs) or node.operator.startswith(_NEVER_FOLDED):
            return fn(self, node, *inputs)
        with jax.ensure_compile_time_eval():
            out = fn(self, node, *inputs)
            return jax.tree.map(lambda v: np.asarray(v) if isinstance(v, jax.Array) and not isinstance(v, jax.core.Tracer) else v, out)

    def _unsupported(self, node: Node, inputs: list[Any], why: str = "") -> Sequence[Any]:
        """What the policy says of an operator that is not known."""
        if self.unsupported == "error":
            what = f"the operator is not supported{f' with {why}' if why else ''}"
            raise self.fail(node, f"{what}: pass unsupported='host' to list it as work of the host, or 'skip' to leave its work out")
        return self.on_host(node, inputs, [self._declared(node, name, inputs) for name in node.outputs if name])

    def on_host(self, node: Node, inputs: Sequence[Any], outputs: Sequence[jax.ShapeDtypeStruct | Text]) -> tuple[Any, ...]:
        """The outputs of a node that the host computes, left out with the policy `skip`."""
        from kpu_jax.frontends.onnx.host import host_operator

        arrays = [v for v in map(floats, inputs) if v is not None and not is_text(v) and not isinstance(v, list)]
        numbers = [o for o in outputs if not isinstance(o, Text)]
        with jax.named_scope(node.name):
            made = iter(host_operator(node.operator, arrays, numbers, skip=self.unsupported == "skip"))  # type: ignore[arg-type]
        each = iter([o if isinstance(o, Text) else next(made) for o in outputs])
        return tuple(next(each) if name else None for name in node.outputs)

    def _declared(self, node: Node, name: str, inputs: list[Any]) -> jax.ShapeDtypeStruct | Text:
        """(shape, dtype) that the file states for an output, dimensions by name bound; else those of the first input."""
        given = self.model.size_of(name)
        if name in self.shapes:
            shape, dtype = tuple(self.shapes[name]), np.dtype(np.float32) if given is None else given[0]
        elif given is not None and all(isinstance(n, int) for n in given[1]):
            dtype, shape = given[0], given[1]  # type: ignore[assignment]
        else:
            first = next((v for v in inputs if v is not None and not isinstance(v, list)), None)
            if sum(map(bool, node.outputs)) != 1 or first is None:
                reason = f"not supported, and the file does not state the shape of its output {shown(name)}: give it with shapes="
                raise self.fail(node, reason)
            shape, dtype = np.shape(floats(first)), floats(first).dtype if given is None else given[0]
        return Text(shape) if np.dtype(dtype).kind == "O" else jax.ShapeDtypeStruct(shape, dtype)


def floats(value: Any) -> Any:
    """A value with its quantisation multiplied out."""
    return value.value() if isinstance(value, Quantised) else value
