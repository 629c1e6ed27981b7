"""LSTM, GRU and RNN: one product with the whole input, then a scan over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
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


@operator("LSTM", "GRU", "RNN")
def _recurrent(
    run: Run, node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None, c: Any = None, peepholes: Any = None
) -> Any:
    """X [time, batch, in], W [direction, gates * hidden, in], R [direction, gates * hidden, hidden]."""
    if node.get("layout", 0):
        x, h, c = jnp.swapaxes(x, 0, 1), *(None if v is None else jnp.swapaxes(v, 0, 1) for v in (h, c))
    directions, hidden, batch, time = w.shape[0], r.shape[-1], x.shape[1], x.shape[0]
    names = node.get("activations") or list(_DEFAULTS[node.operator]) * directions
    alphas, betas = list(node.get("activation_alpha") or []), list(node.get("activation_beta") or [])
    acts = [_activation(run, node, name, alphas, betas) for name in names]
    per_direction = len(names) // directions
    outs, last_h, last_c = [], [], []
    for d in range(directions):
        backward = node.get("direction", "forward") == "reverse" or d == 1
        h_start, c_start = (jnp.zeros((batch, hidden), x.dtype) if v is None else v[d] for v in (h, c))
        y, (h_end, c_end) = _direction(
            node, x, w[d], r[d], None if b is None else b[d], lengths, (h_start, c_start), None if peepholes is None else peepholes[d],
            acts[d * per_direction : (d + 1) * per_direction], backward,
        )  # fmt: skip
        outs.append(y)
        last_h.append(h_end)
        last_c.append(c_end)
    y, h_last, c_last = jnp.stack(outs, 1), jnp.stack(last_h), jnp.stack(last_c)  # y [time, direction, batch, hidden]
    assert y.shape == (time, directions, batch, hidden)
    if node.get("layout", 0):
        y, h_last, c_last = jnp.transpose(y, (2, 0, 1, 3)), jnp.swapaxes(h_last, 0, 1), jnp.swapaxes(c_last, 0, 1)
    return (y, h_last, c_last) if node.operator == "LSTM" else (y, h_last)


def _activation(run: Run, node: Node, name: str, alphas: list[float], betas: list[float]) -> Callable[..., Any]:
    found = {k.lower(): v for k, v in ACTIVATIONS.items()}.get(name.lower())
    if found is None:
        raise run.fail(node, f"the activation {name!r} is unknown: valid: {', '.join(ACTIVATIONS)}")
    takes = {"hardsigmoid": 2, "affine": 2, "scaledtanh": 2, "leakyrelu": 1, "thresholdedrelu": 1, "elu": 1}.get(name.lower(), 0)
    numbers = [values.pop(0) for values in (alphas, betas)[:takes] if values]
    return lambda x: found(x, *numbers)


def _direction(
    node: Node, x: Any, w: Any, r: Any, b: Any, lengths: Any, start: tuple[Any, Any], peepholes: Any, acts: list[Any], backward: bool
) -> tuple[Any, tuple[Any, Any]]:
    gates, hidden, kind = _GATES[node.operator], r.shape[-1], node.operator
    bias = np.zeros(2 * gates * hidden, w.dtype) if b is None else b
    late = kind == "GRU" and node.get("linear_before_reset", 0)
    into = bias[: gates * hidden] + (0 if kind == "GRU" else bias[gates * hidden :])
    inner = bias[gates * hidden :]
    clip = node.get("clip")

    def limited(v: Any) -> Any:
        return v if not clip else jnp.clip(v, -clip, clip)

    given = jnp.matmul(x, w.T) + into  # all times at once

    def step(carry: tuple[Any, Any], item: tuple[Any, Any]) -> tuple[tuple[Any, Any], Any]:
        (h, c), (wx, t) = carry, item
        if kind == "GRU":
            new, cell = _gru(wx, h, r, inner, acts, late, limited), c
        elif kind == "LSTM":
            new, cell = _lstm(wx + jnp.matmul(h, r.T), c, peepholes, acts, limited, node.get("input_forget", 0))
        else:
            new, cell = acts[0](limited(wx + jnp.matmul(h, r.T))), c
        if lengths is None:
            return (new, cell), new
        alive = (t < lengths)[:, None]
        return (jnp.where(alive, new, h), jnp.where(alive, cell, c)), jnp.where(alive, new, 0)

    times = jnp.arange(x.shape[0])
    end, y = jax.lax.scan(step, start, (given, times), reverse=backward)
    return y, end


def _lstm(z: Any, c: Any, peepholes: Any, acts: list[Any], limited: Any, coupled: int) -> tuple[Any, Any]:
    """Gates in the order input, output, forget, cell (ONNX); peepholes input, output, forget."""
    f, g, h = acts
    i, o, forget, cell = jnp.split(z, 4, -1)
    p_i, p_o, p_f = (0, 0, 0) if peepholes is None else (v * c for v in np.split(peepholes, 3))
    i = f(limited(i + p_i))
    forget = 1 - i if coupled else f(limited(forget + p_f))
    new = forget * c + i * g(limited(cell))
    if peepholes is not None:
        p_o = np.split(peepholes, 3)[1] * new
    return f(limited(o + p_o)) * h(new), new


def _gru(wx: Any, h: Any, r: Any, inner: Any, acts: list[Any], late: int, limited: Any) -> Any:
    """Gates in the order update, reset, hidden."""
    f, g = acts
    hidden = h.shape[-1]
    z_x, r_x, h_x = jnp.split(wx, 3, -1)
    if late:
        z_h, r_h, h_h = jnp.split(jnp.matmul(h, r.T) + inner, 3, -1)
        z, reset = f(limited(z_x + z_h)), f(limited(r_x + r_h))
        new = g(limited(h_x + reset * h_h))
    else:
        z_h, r_h = jnp.split(jnp.matmul(h, r[: 2 * hidden].T) + inner[: 2 * hidden], 2, -1)
        z, reset = f(limited(z_x + z_h)), f(limited(r_x + r_h))
        new = g(limited(h_x + jnp.matmul(reset * h, r[2 * hidden :].T) + inner[2 * hidden :]))
    return (1 - z) * new + z * h
