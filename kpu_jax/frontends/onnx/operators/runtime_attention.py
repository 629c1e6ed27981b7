"""Attention in the forms of ONNX Runtime's optimiser and exporter (domain com.microsoft)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.attention import attend, both, default_scale, join_heads, near_keys, rotated, split_heads
from kpu_jax.frontends.onnx.operators.quantised import MATMUL, product_sums
from kpu_jax.frontends.onnx.run import Run, operator


def _joined(past: Any, x: Any) -> Any:
    """Keys or values [batch, heads, time, d] behind those of the past."""
    return x if past is None or not past.shape[2] else jnp.concatenate([past, x], 2)


def _padding(mask: Any, batch: int, new: int, total: int) -> Any:
    """`mask` in any of its forms as True where seen, for [batch, heads, new, total]."""
    if mask is None:
        return None
    m, shape = jnp.asarray(mask), np.shape(mask)
    if shape == (batch,):  # keys of each sequence
        return np.arange(total) < m[:, None, None, None]
    if shape == (2 * batch,):  # ends, then starts
        at = np.arange(total)
        return (at < m[:batch, None, None, None]) & (at >= m[batch:, None, None, None])
    if shape == (batch, total):
        return (m != 0)[:, None, None, :]
    if shape == (batch, new, total):
        return (m != 0)[:, None]
    raise NotImplementedError(f"a mask of shape {shape}")


def _packed(node: Node, joined: Any, mask: Any, past: Any, bias: Any) -> Any:
    """Attention of queries, keys and values that lie side by side in `joined` [batch, time, q + k + v]."""
    heads = node.get("num_heads")
    sizes = node.get("qkv_hidden_sizes") or [joined.shape[-1] // 3] * 3
    q, k, v = (split_heads(p, heads) for p in jnp.split(joined, [sizes[0], sizes[0] + sizes[1]], -1))
    if past is not None:
        k, v = _joined(past[0], k), _joined(past[1], v)
    new, total = q.shape[2], k.shape[2]
    causal = bool(node.get("unidirectional", 0))
    seen = both(near_keys(new, total, total - new, causal=causal), _padding(mask, q.shape[0], new, total))
    y = attend(q, k, v, default_scale(node, q), seen=seen, bias=bias).y
    return join_heads(y), jnp.stack([k, v])


@operator("com.microsoft::Attention")
def _attention(
    run: Run, node: Node, x: Any, w: Any, b: Any = None, mask: Any = None, past: Any = None, bias: Any = None, *rest: Any
) -> Any:
    if node.get("do_rotary", 0) or node.get("past_present_share_buffer", 0):
        raise NotImplementedError("do_rotary or past_present_share_buffer")
    joined = jnp.matmul(x, w)
    return _packed(node, joined if b is None else joined + b, mask, past, bias)


@operator("com.microsoft::QAttention")
def _quantised_attention(
    run: Run, node: Node, x: Any, w: Any, b: Any, x_scale: Any, w_scale: Any, mask: Any = None, x_zero: Any = None, w_zero: Any = None,
    past: Any = None,
) -> Any:  # fmt: skip
    sums = product_sums(x, x_zero, w, w_zero, MATMUL)
    return _packed(node, sums.astype(x_scale.dtype) * (x_scale * w_scale) + b, mask, past, None)


@operator("com.microsoft::MultiHeadAttention")
def _multi_head(run: Run, node: Node, q: Any, k: Any = None, v: Any = None, *rest: Any) -> Any:
    """q [batch, time, heads * d], k and v alike or [batch, heads, time, d]; or packed [batch, time, heads, 3 (2), d]."""
    b, mask, bias, past_k, past_v = (*rest, *[None] * 5)[:5]
    heads = node.get("num_heads")
    if k is None:
        q, k, v = (q[:, :, :, i].reshape(*q.shape[:2], -1) for i in range(3))
    elif v is None:
        k, v = (k[:, :, :, i].reshape(*k.shape[:2], -1) for i in range(2))
    if b is not None:
        at = [q.shape[-1], q.shape[-1] + (k.shape[-1] if k.ndim == 3 else k.shape[1] * k.shape[3])]
        b_q, b_k, b_v = np.split(b, at) if isinstance(b, np.ndarray) else jnp.split(b, at)
        q, k, v = q + b_q, (k + b_k if k.ndim == 3 else k), (v + b_v if v.ndim == 3 else v)
    q, k, v = (split_heads(x, heads) if x.ndim == 3 else x for x in (q, k, v))
    k, v = _joined(past_k, k), _joined(past_v, v)
    new, total = q.shape[2], k.shape[2]
    causal = bool(node.get("unidirectional", 0))
    seen = both(near_keys(new, total, total - new, causal=causal), _padding(mask, q.shape[0], new, total))
    return join_heads(attend(q, k, v, default_scale(node, q), seen=seen, bias=bias).y), k, v


@operator("com.microsoft::GroupQueryAttention", "com.microsoft::SparseAttention")
def _group_query(run: Run, node: Node, q: Any, k: Any, v: Any, past_k: Any = None, past_v: Any = None, *rest: Any) -> Any:
    """Causal; SparseAttention's blocks count as seen, which is the work at most."""
    sparse = "Sparse" in node.operator
    cos, sin, places, bias, sink = (*(rest[4:6] if sparse else rest[2:7]), *[None] * 5)[:5]
    if sink is not None or node.get("smooth_softmax", 0):
        raise NotImplementedError("a smooth softmax")
    heads, key_heads = node.get("num_heads"), node.get("kv_num_heads")
    if k is None:
        d = q.shape[-1] // (heads + 2 * key_heads)
        q, k, v = jnp.split(q, [heads * d, (heads + key_heads) * d], -1)
    q, k, v = split_heads(q, heads), split_heads(k, key_heads), split_heads(v, key_heads)
    before = 0 if past_k is None else past_k.shape[2]
    if node.get("do_rotary", 0):
        at = before + np.arange(q.shape[2]) if places is None else places[:, None]
        q, k = (rotated(x, jnp.take(cos, at, 0), jnp.take(sin, at, 0), node.get("rotary_interleaved", 0)) for x in (q, k))
    k, v = _joined(past_k, k), _joined(past_v, v)
    seen = near_keys(q.shape[2], k.shape[2], k.shape[2] - q.shape[2], causal=True, left=node.get("local_window_size", 0) - 1)
    y = attend(q, k, v, default_scale(node, q), seen=seen, bias=bias, cap=node.get("softcap", 0.0)).y
    return join_heads(y), k, v
