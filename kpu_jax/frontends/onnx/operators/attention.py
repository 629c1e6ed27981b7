"""Attention in the forms of ONNX (opset 23) and ONNX Runtime: two products around a softmax."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.run import Run, operator


def attend(q: Any, k: Any, v: Any, scale: float, mask: Any = None, past: int | None = None, cap: float = 0.0) -> Any:
    """q [batch, heads, new, d], k and v [batch, key heads, all, d]; queries share key heads in groups.

    `past`: query i sees keys up to past + i; None: all. `mask`: True where seen, or a number to add.
    """
    batch, heads, new, d = q.shape
    groups = heads // k.shape[1]
    q = q.reshape(batch, k.shape[1], groups, new, d)
    scores = jnp.einsum("bhgqd,bhkd->bhgqk", q, k) * np.asarray(scale, q.dtype)
    scores = jnp.tanh(scores / cap) * np.asarray(cap, q.dtype) if cap else scores
    total = k.shape[2]
    if past is not None:
        scores = jnp.where(np.tril(np.ones((new, total), bool), past), scores, jnp.finfo(q.dtype).min)
    if mask is not None:
        spread = jnp.broadcast_to(mask, (batch, heads, new, total)).reshape(scores.shape)
        scores = jnp.where(spread, scores, jnp.finfo(q.dtype).min) if spread.dtype == bool else scores + spread
    return jnp.einsum("bhgqk,bhkd->bhgqd", jax.nn.softmax(scores, -1), v).reshape(batch, heads, new, v.shape[-1])


def split_heads(x: Any, heads: int) -> Any:
    """[batch, time, heads * d] as [batch, heads, time, d]."""
    return jnp.swapaxes(x.reshape(*x.shape[:2], heads, -1), 1, 2)


def join_heads(x: Any) -> Any:
    """The inverse of `split_heads`."""
    return jnp.swapaxes(x, 1, 2).reshape(x.shape[0], x.shape[2], -1)


def past_of(node: Node, q: Any, k: Any) -> int | None:
    """Keys before the first query where ONNX Runtime's attention looks back only; None where it sees all."""
    return k.shape[2] - q.shape[2] if node.get("unidirectional", 0) else None


@operator("Attention")
def _attention(
    run: Run, node: Node, q: Any, k: Any, v: Any, mask: Any = None, past_k: Any = None, past_v: Any = None, lengths: Any = None
) -> Any:
    if node.get("left_window_size", -1) >= 0 or node.get("right_window_size", -1) >= 0:
        raise NotImplementedError("windows")
    if lengths is not None and node.get("is_causal", 0):
        raise NotImplementedError("a causal mask after keys of several lengths")
    flat = q.ndim == 3
    if flat:
        q = split_heads(q, node.get("q_num_heads"))
        k, v = (split_heads(x, node.get("kv_num_heads")) for x in (k, v))
    past = (0 if past_k is None else past_k.shape[2]) if node.get("is_causal", 0) else None
    k, v = (x if before is None else jnp.concatenate([before, x], 2) for x, before in ((k, past_k), (v, past_v)))
    if lengths is not None:
        here: Any = np.arange(k.shape[2]) < jnp.asarray(lengths)[:, None, None, None]
        if mask is not None:
            mask = jnp.asarray(mask)
            mask = jnp.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, k.shape[2] - mask.shape[-1])])
            here = mask & here if mask.dtype == bool else jnp.where(here, mask, jnp.finfo(q.dtype).min)
        mask = here
    scale = node.get("scale") or 1 / math.sqrt(q.shape[-1])
    y = attend(q, k, v, scale, mask, past, node.get("softcap", 0.0))
    return join_heads(y) if flat else y, k, v


@operator("com.microsoft::Attention")
def _packed_attention(
    run: Run, node: Node, x: Any, w: Any, b: Any = None, mask: Any = None, past: Any = None, bias: Any = None, *_: Any
) -> Any:
    heads = node.get("num_heads")
    sizes = node.get("qkv_hidden_sizes") or [w.shape[1] // 3] * 3
    joined = jnp.matmul(x, w)
    joined = joined if b is None else joined + b
    q, k, v = (split_heads(p, heads) for p in jnp.split(joined, [sizes[0], sizes[0] + sizes[1]], -1))
    if past is not None:
        k, v = jnp.concatenate([past[0], k], 2), jnp.concatenate([past[1], v], 2)
    if mask is not None and np.ndim(mask) == 2 and mask.shape == (x.shape[0], k.shape[2]):
        mask = (jnp.asarray(mask) != 0)[:, None, None, :]
    elif mask is not None:
        raise NotImplementedError("a mask of this form")
    scale = node.get("scale") or 1 / math.sqrt(q.shape[-1])
    y = attend(q, k, v, scale, mask if bias is None else bias, past_of(node, q, k))
    return join_heads(y), jnp.stack([k, v])


@operator("com.microsoft::MultiHeadAttention")
def _multi_head(run: Run, node: Node, q: Any, k: Any = None, v: Any = None, *rest: Any) -> Any:
    b, mask, bias, past_k, past_v = (*rest, *[None] * 5)[:5]
    heads = node.get("num_heads")
    if k is None or v is None:
        raise NotImplementedError("packed keys and values")
    if b is not None:
        at = [q.shape[-1], q.shape[-1] + (k.shape[-1] if k.ndim == 3 else k.shape[1] * k.shape[3])]
        b_q, b_k, b_v = np.split(b, at) if isinstance(b, np.ndarray) else jnp.split(b, at)
        q, k, v = q + b_q, (k + b_k if k.ndim == 3 else k), (v + b_v if v.ndim == 3 else v)
    q, k, v = (split_heads(x, heads) if x.ndim == 3 else x for x in (q, k, v))
    k, v = (x if past is None else jnp.concatenate([past, x], 2) for x, past in ((k, past_k), (v, past_v)))
    if mask is not None:
        mask = (jnp.asarray(mask) != 0)[:, None, None, :] if np.ndim(mask) == 2 else jnp.asarray(mask)
    y = attend(
        q, k, v, node.get("scale") or 1 / math.sqrt(q.shape[-1]), mask if bias is None else bias, bool(node.get("unidirectional", 0))
    )
    return join_heads(y), k, v


@operator("com.microsoft::GroupQueryAttention")
def _group_query(run: Run, node: Node, q: Any, k: Any, v: Any, past_k: Any = None, past_v: Any = None, *rest: Any) -> Any:
    heads, key_heads = node.get("num_heads"), node.get("kv_num_heads")
    if k is None:
        d = q.shape[-1] // (heads + 2 * key_heads)
        q, k, v = jnp.split(q, [heads * d, (heads + key_heads) * d], -1)
    q, k, v = split_heads(q, heads), split_heads(k, key_heads), split_heads(v, key_heads)
    if node.get("do_rotary", 0):
        cos, sin = rest[2], rest[3]
        at = (0 if past_k is None else past_k.shape[2]) + np.arange(q.shape[2])
        q, k = (_rotated(x, cos[at], sin[at], node.get("rotary_interleaved", 0)) for x in (q, k))
    k, v = (x if past is None or not past.shape[2] else jnp.concatenate([past, x], 2) for x, past in ((k, past_k), (v, past_v)))
    y = attend(q, k, v, node.get("scale") or 1 / math.sqrt(q.shape[-1]), None, k.shape[2] - q.shape[2], node.get("softcap", 0.0))
    return join_heads(y), k, v


def _rotated(x: Any, cos: Any, sin: Any, interleaved: int) -> Any:
    """Rotary position embedding of x [batch, heads, time, d]; cos and sin [time, d/2], the rest of d passes."""
    size = 2 * cos.shape[-1]
    turned, kept = x[..., :size], x[..., size:]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else jnp.split(turned, 2, -1)
    pair = a * cos - b * sin, a * sin + b * cos
    turned = jnp.stack(pair, -1).reshape(turned.shape) if interleaved else jnp.concatenate(pair, -1)
    return jnp.concatenate([turned, kept], -1)


@operator("RotaryEmbedding", "com.microsoft::RotaryEmbedding")
def _rotary(run: Run, node: Node, x: Any, *rest: Any) -> Any:
    cos, sin, at = (*rest, None)[:3] if node.operator == "RotaryEmbedding" else (rest[1], rest[2], rest[0])
    flat = x.ndim == 3
    x = split_heads(x, node.get("num_heads") or x.shape[-1] // (2 * cos.shape[-1])) if flat else x
    if at is not None:
        at = at if np.ndim(at) > 1 else at + np.arange(x.shape[2])[None]
        cos, sin = jnp.take(cos, at, 0)[:, None], jnp.take(sin, at, 0)[:, None]
    else:
        cos, sin = cos[:, None], sin[:, None]
    y = _rotated(x, cos, sin, node.get("interleaved", 0))
    return join_heads(y) if flat else y
