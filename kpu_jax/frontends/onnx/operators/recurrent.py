"""LSTM, GRU and RNN: one product with the whole input, then a scan over time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.quantised import MATMUL, dynamically_quantised, product_sums
from kpu_jax.frontends.onnx.run import Run, operator

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "Sigmoid": lambda x, *_: jax.nn.sigmoid(x),
    "Tanh": lambda x, *_: jnp.tanh(x),
    "Relu": lambda x, *_: jnp.maximum(x, 0),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: jnp.clip(alpha * x + beta, 0, 1),
    "LeakyRelu": lambda x, alpha=0.01, *_: jnp.where(x >= 0, x, alpha * x),
    "Affine": lambda x, alpha=1.0, beta=0.0: alpha * x + beta,
    "ScaledTanh": lambda x, alpha=1.0, beta=1.0: alpha * jnp.tanh(beta * x),
    "ThresholdedRelu": lambda x, alpha=1.0, *_: jnp.where(x > alpha, x, 0),
    "Elu": lambda x, alpha=1.0, *_: jnp.where(x >= 0, x, alpha * jnp.expm1(x)),
    "Softsign": lambda x, *_: x / (1 + jnp.abs(x)),
    "Softplus": lambda x, *_: jax.nn.softplus(x),
    "Clip": lambda x, low=-np.inf, high=np.inf: jnp.clip(x, low, high),
}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


Times = Callable[[Any], Any]


def _by(weights: Any) -> Times:
    return lambda v: jnp.matmul(v, weights.T)


@operator("LSTM", "GRU", "RNN")
def _recurrent(run: Run, node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, *states: Any) -> Any:
    """X [time, batch, in], W [direction, gates * hidden, in], R [direction, gates * hidden, hidden]."""
    into, within = ([_by(m[d]) for d in range(m.shape[0])] for m in (w, r))
    return _layers(run, node, node.operator, x, into, within, r.shape[-1], b, lengths, states, r)


@operator("com.microsoft::DynamicQuantizeLSTM")
def _quantised_lstm(run: Run, node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, *rest: Any) -> Any:
    """W [direction, in, gates * hidden] and R in bytes; the input and the state become bytes at every product."""
    w_scale, w_zero, r_scale, r_zero = rest[3:7]

    def product(m: Any, scale: Any, zero: Any) -> Times:
        def times(v: Any) -> Any:
            q, q_scale, q_zero = dynamically_quantised(v)
            return product_sums(q, q_zero, m, zero, MATMUL).astype(v.dtype) * (q_scale * scale)

        return times

    into = [product(w[d], np.ravel(w_scale[d]), np.ravel(w_zero[d])) for d in range(w.shape[0])]
    within = [product(r[d], np.ravel(r_scale[d]), np.ravel(r_zero[d])) for d in range(w.shape[0])]
    return _layers(run, node, "LSTM", x, into, within, r.shape[1], b, lengths, rest[:3], None)


def _layers(
    run: Run, node: Node, kind: str, x: Any, into: list[Times], within: list[Times], hidden: int, b: Any, lengths: Any, states: Any, r: Any
) -> Any:
    """All directions of one recurrent node; `into` and `within` multiply by the weights of the input and of the state."""
    h, c, peepholes = (*states, None, None, None)[:3]
    if node.get("layout", 0):
        x, h, c = jnp.swapaxes(x, 0, 1), *(None if v is None else jnp.swapaxes(v, 0, 1) for v in (h, c))
    directions, batch = len(into), x.shape[1]
    names = node.get("activations") or list(_DEFAULTS[kind]) * directions
    alphas, betas = list(node.get("activation_alpha") or []), list(node.get("activation_beta") or [])
    acts = [_activation(run, node, name, alphas, betas) for name in names]
    per_direction = len(names) // directions
    outs, last_h, last_c = [], [], []
    for d in range(directions):
        h_start, c_start = (jnp.zeros((batch, hidden), x.dtype) if v is None else v[d] for v in (h, c))
        cell = _Cell(
            kind,
            node,
            within[d],
            np.zeros(2 * _GATES[kind] * hidden, x.dtype) if b is None else b[d],
            None if peepholes is None else peepholes[d],
            acts[d * per_direction : (d + 1) * per_direction],
            None if r is None else r[d],
        )
        backward = node.get("direction", "forward") == "reverse" or d == 1
        y, (h_end, c_end) = cell.run(into[d](x), lengths, (h_start, c_start), backward)
        outs.append(y)
        last_h.append(h_end)
        last_c.append(c_end)
    y, h_last, c_last = jnp.stack(outs, 1), jnp.stack(last_h), jnp.stack(last_c)  # y [time, direction, batch, hidden]
    if node.get("layout", 0):
        y, h_last, c_last = jnp.transpose(y, (2, 0, 1, 3)), jnp.swapaxes(h_last, 0, 1), jnp.swapaxes(c_last, 0, 1)
    return (y, h_last, c_last) if kind == "LSTM" else (y, h_last)


def _activation(run: Run, node: Node, name: str, alphas: list[float], betas: list[float]) -> Callable[..., Any]:
    found = {k.lower(): v for k, v in ACTIVATIONS.items()}.get(name.lower())
    if found is None:
        raise run.fail(node, f"the activation {name!r} is unknown: valid: {', '.join(ACTIVATIONS)}")
    takes = {"hardsigmoid": 2, "affine": 2, "scaledtanh": 2, "leakyrelu": 1, "thresholdedrelu": 1, "elu": 1}.get(name.lower(), 0)
    numbers = [values.pop(0) for values in (alphas, betas)[:takes] if values]
    return lambda x: found(x, *numbers)


@dataclasses.dataclass(eq=False)
class _Cell:
    """One direction of one node: `bias` [2 * gates * hidden] for input and state, `r` [gates * hidden, hidden]."""

    kind: str
    node: Node
    within: Times
    bias: Any
    peepholes: Any
    acts: list[Any]
    r: Any

    def run(self, wx: Any, lengths: Any, start: tuple[Any, Any], backward: bool) -> tuple[Any, tuple[Any, Any]]:
        """(state at every time, the last state) from W X of all times at once."""
        half = self.bias.shape[-1] // 2
        given = wx + self.bias[:half] + (0 if self.kind == "GRU" else self.bias[half:])

        def step(carry: tuple[Any, Any], item: tuple[Any, Any]) -> tuple[tuple[Any, Any], Any]:
            (h, c), (z, t) = carry, item
            if self.kind == "GRU":
                new, cell = self._gru(z, h, self.bias[half:]), c
            elif self.kind == "LSTM":
                new, cell = self._lstm(z + self.within(h), c)
            else:
                new, cell = self.acts[0](self._limited(z + self.within(h))), c
            if lengths is None:
                return (new, cell), new
            alive = (t < lengths)[:, None]
            return (jnp.where(alive, new, h), jnp.where(alive, cell, c)), jnp.where(alive, new, 0)

        end, y = jax.lax.scan(step, start, (given, jnp.arange(given.shape[0])), reverse=backward)
        return y, end

    def _limited(self, v: Any) -> Any:
        clip = self.node.get("clip")
        return jnp.clip(v, -clip, clip) if clip else v

    def _lstm(self, z: Any, c: Any) -> tuple[Any, Any]:
        """Gates in the order input, output, forget, cell; peepholes in the order input, output, forget."""
        f, g, h = self.acts
        i, o, forget, cell = jnp.split(z, 4, -1)
        p_i, p_o, p_f = (0, 0, 0) if self.peepholes is None else jnp.split(jnp.asarray(self.peepholes), 3)
        i = f(self._limited(i + p_i * c))
        forget = 1 - i if self.node.get("input_forget", 0) else f(self._limited(forget + p_f * c))
        new = forget * c + i * g(self._limited(cell))
        return f(self._limited(o + p_o * new)) * h(new), new

    def _gru(self, wx: Any, h: Any, inner: Any) -> Any:
        """Gates in the order update, reset, hidden; the reset before or after the hidden gate's product."""
        f, g = self.acts
        hidden = h.shape[-1]
        z_x, r_x, h_x = jnp.split(wx, 3, -1)
        if self.node.get("linear_before_reset", 0):
            z_h, r_h, h_h = jnp.split(self.within(h) + inner, 3, -1)
            z, reset = f(self._limited(z_x + z_h)), f(self._limited(r_x + r_h))
            new = g(self._limited(h_x + reset * h_h))
        else:
            z_h, r_h = jnp.split(jnp.matmul(h, self.r[: 2 * hidden].T) + inner[: 2 * hidden], 2, -1)
            z, reset = f(self._limited(z_x + z_h)), f(self._limited(r_x + r_h))
            new = g(self._limited(h_x + jnp.matmul(reset * h, self.r[2 * hidden :].T) + inner[2 * hidden :]))
        return (1 - z) * new + z * h
