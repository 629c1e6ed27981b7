"""Attention by a running state (opset 27): decay, correct, write and read, one token after another."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.attention import join_heads, split_heads
from kpu_jax.frontends.onnx.run import Run, operator


@operator("LinearAttention", "com.microsoft::LinearAttention")
def _linear_attention(run: Run, node: Node, q: Any, k: Any, v: Any, past: Any = None, decay: Any = None, beta: Any = None) -> Any:
    """q, k, v [batch, time, heads * d]; the state [batch, key heads, d of k, d of v] is float32."""
    heads, key_heads = node.get("q_num_heads"), node.get("kv_num_heads")
    dtype, wide = q.dtype, jnp.float32
    q, k, v = (split_heads(x, n).astype(wide) for x, n in ((q, heads), (k, key_heads), (v, key_heads)))
    batch, _, time, d = q.shape
    scale = node.get("scale") or 1 / math.sqrt(d)
    state = jnp.zeros((batch, key_heads, d, v.shape[-1]), wide) if past is None else past.astype(wide)
    rates = None if decay is None else jnp.exp(split_heads(decay, key_heads).astype(wide))
    steps = None if beta is None else split_heads(beta, beta.shape[-1]).astype(wide)

    def step(state: Any, now: Any) -> tuple[Any, Any]:
        q_now, k_now, v_now, rate, strength = now
        state = state if rate is None else state * rate[..., None]
        if strength is not None:
            v_now = strength * (v_now - jnp.einsum("bhdm,bhd->bhm", state, k_now))
        state = state + k_now[..., :, None] * v_now[..., None, :]
        queries = q_now.reshape(batch, key_heads, heads // key_heads, d)
        return state, jnp.einsum("bhgd,bhdm->bhgm", queries, state).reshape(batch, heads, -1) * np.float32(scale)

    over_time = [None if x is None else jnp.moveaxis(x, 2, 0) for x in (q, k, v, rates, steps)]
    state, y = jax.lax.scan(step, state, tuple(over_time))
    return join_heads(jnp.moveaxis(y, 0, 2)).astype(dtype), state.astype(dtype if past is None else past.dtype)


@operator("CausalConvWithState", "com.microsoft::CausalConvWithState")
def _causal_convolution(run: Run, node: Node, x: Any, w: Any, bias: Any = None, past: Any = None) -> Any:
    """x [batch, channel, time] behind the last taps of what came before."""
    taps = w.shape[2]
    before = jnp.zeros((*x.shape[:2], taps - 1), x.dtype) if past is None else past
    joined = jnp.concatenate([before, x], 2)
    y = jax.lax.conv_general_dilated(
        joined, jnp.asarray(w), [1], [(0, 0)], dimension_numbers=("NCH", "OIH", "NCH"), feature_group_count=x.shape[1]
    )
    y = y if bias is None else y + bias.reshape(-1, 1)
    y = y if node.get("activation", "none") == "none" else (y.astype(jnp.float32) * jax.nn.sigmoid(y.astype(jnp.float32))).astype(x.dtype)
    return y, joined[:, :, joined.shape[2] - (taps - 1) :]
