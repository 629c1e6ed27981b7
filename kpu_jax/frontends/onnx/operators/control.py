"""If, Loop and Scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.errors import check_number
from kpu_jax.frontends.onnx.model import Graph, Node
from kpu_jax.frontends.onnx.run import Run, floats, known, operator

_MOST_UNROLLED = 1000


def has_bodies(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the operator runs bodies, which read the values around them."""
    fn.has_bodies = True  # type: ignore[attr-defined]
    return fn


def _array(value: Any) -> Any:
    return jnp.asarray(floats(value))


@operator("If")
@has_bodies
def _if(run: Run, node: Node, test: Any, *, values: Mapping[str, Any]) -> Any:
    """The branch of a known test; of another test both, which must give arrays of the same shapes."""
    branches = node.get("then_branch"), node.get("else_branch")
    if known(test):
        return tuple(run.graph(branches[0] if bool(np.ravel(test)[0]) else branches[1], [], values))

    def body(graph: Graph) -> Callable[[], tuple[Any, ...]]:
        return lambda: tuple(_array(v) for v in run.graph(graph, [], values))

    shapes = [jax.eval_shape(body(g)) for g in branches]
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(*shapes, strict=True)):
        given = [[s.shape for s in side] for side in shapes]
        reason = f"the branches give arrays of the shapes {given[0]} and {given[1]}, so that what follows has unknown shapes"
        raise run.fail(node, f"{reason}; give the value that decides with inputs=")
    return jax.lax.cond(jnp.ravel(jnp.asarray(test))[0], body(branches[0]), body(branches[1]))


@operator("Loop")
@has_bodies
def _loop(run: Run, node: Node, most: Any, test: Any, *carried: Any, values: Mapping[str, Any]) -> Any:
    """A scan of the known number of iterations; bodies whose arrays change shape are unrolled."""
    body: Graph = node.get("body")
    if test is not None and known(test) and not bool(np.ravel(test)[0]):
        most = np.int64(0)
    trips = _trips(run, node, most, test, body)
    count = len(carried)
    if trips:
        try:
            start = [_array(v) for v in carried]

            def step(state: list[Any], i: Any) -> tuple[list[Any], list[Any]]:
                out = [_array(v) for v in run.graph(body, [i, np.bool_(True), *state], values)]
                return out[1 : count + 1], out[count + 1 :]

            after, _ = jax.eval_shape(step, start, jnp.zeros((), jnp.int64))
            if all(a.shape == b.shape and a.dtype == b.dtype for a, b in zip(start, after, strict=True)):
                state, stacked = jax.lax.scan(step, start, jnp.arange(trips))
                return (*state, *stacked)
        except Exception:  # a body that needs its counter known; what is wrong otherwise shows when it is unrolled
            pass
    return _unrolled(run, node, body, trips, list(carried), values, test is not None)


def _trips(run: Run, node: Node, most: Any, test: Any, body: Graph) -> int:
    given = run.trips.get(node.name) if isinstance(run.trips, Mapping) else run.trips
    if given is not None:
        return int(check_number(f"while_trips of {node.name!r}", given, "iterations", high=2.0**31, integer=True))
    steady = body.outputs[0] in {body.inputs[1].name, *body.constants} or _passes_on(body)
    if most is not None and known(most) and (steady or test is None):
        return int(np.ravel(most)[0])
    raise run.fail(node, f"it runs as often as its data say: give the number of iterations, while_trips={{{node.name!r}: 100}}")


def _passes_on(body: Graph) -> bool:
    """Whether a body's condition stays as it was."""
    made = {o: n for n in body.nodes for o in n.outputs}
    name = body.outputs[0]
    while name in made and made[name].operator in ("Identity", "Cast"):
        name = made[name].inputs[0]
    return name == body.inputs[1].name or name in body.constants or (name in made and made[name].operator == "Constant")


def _unrolled(run: Run, node: Node, body: Graph, trips: int, state: list[Any], values: Mapping[str, Any], tested: bool) -> tuple[Any, ...]:
    if trips > _MOST_UNROLLED:
        raise run.fail(node, f"its arrays change their shape in {trips} iterations; only {_MOST_UNROLLED} can be unrolled")
    rows: list[list[Any]] = [[] for _ in body.outputs[len(state) + 1 :]]
    for i in range(trips):
        test, *out = run.graph(body, [np.int64(i), np.bool_(True), *state], values)
        state = out[: len(state)]
        for row, value in zip(rows, out[len(state) :], strict=True):
            row.append(value)
        if tested and known(test) and not bool(np.ravel(test)[0]):
            break
    stacked = [(np if known(*row) else jnp).stack(row) if row else np.zeros(0, np.float32) for row in rows]
    return (*state, *stacked)


@operator("Scan")
@has_bodies
def _scan(run: Run, node: Node, *inputs: Any, values: Mapping[str, Any]) -> Any:
    body: Graph = node.get("body")
    scanned = node.get("num_scan_inputs")
    if run.opset < 9:
        return _batched_scan(run, node, inputs, values)
    count = len(inputs) - scanned
    axes = node.get("scan_input_axes", [0] * scanned)
    back = node.get("scan_input_directions", [0] * scanned)
    outs = len(body.outputs) - count
    out_axes, out_back = node.get("scan_output_axes", [0] * outs), node.get("scan_output_directions", [0] * outs)
    xs = [jnp.moveaxis(_array(x), a, 0) for x, a in zip(inputs[count:], axes, strict=True)]
    xs = [jnp.flip(x, 0) if turned else x for x, turned in zip(xs, back, strict=True)]

    def step(state: list[Any], items: list[Any]) -> tuple[list[Any], list[Any]]:
        out = [_array(v) for v in run.graph(body, [*state, *items], values)]
        return out[:count], out[count:]

    state, ys = jax.lax.scan(step, [_array(v) for v in inputs[:count]], xs)
    ys = [jnp.flip(y, 0) if turned else y for y, turned in zip(ys, out_back, strict=True)]
    return (*state, *(jnp.moveaxis(y, 0, a) for y, a in zip(ys, out_axes, strict=True)))


def _batched_scan(run: Run, node: Node, inputs: tuple[Any, ...], values: Mapping[str, Any]) -> Any:
    """The scan of opset 8, over axis 1 of every entry of a batch; its first input, the lengths, must be left out."""
    if inputs[0] is not None or any(node.get("directions", [])):
        raise NotImplementedError("sequences of several lengths, or backward")
    body: Graph = node.get("body")
    scanned = node.get("num_scan_inputs")
    count = len(inputs) - 1 - scanned

    def one(state: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        def step(state: list[Any], items: list[Any]) -> tuple[list[Any], list[Any]]:
            out = [_array(v) for v in run.graph(body, [*state, *items], values)]
            return out[:count], out[count:]

        return jax.lax.scan(step, state, xs)

    state, ys = jax.vmap(one)([_array(v) for v in inputs[1 : 1 + count]], [_array(v) for v in inputs[1 + count :]])
    return (*state, *ys)
