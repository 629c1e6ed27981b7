"""Attention (opset 23 and later) and rotary embedding: two products around a softmax."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.run import Run, known, operator


class Attended(NamedTuple):
    """The result [batch, heads, new, d] and the stages before it [batch, heads, new, all]."""

    y: Any
    scores: Any
    capped: Any
    biased: Any  # -inf where not seen
    shares: Any


def attend(
    q: Any, k: Any, v: Any, scale: float, *, seen: Any = None, bias: Any = None, cap: float = 0.0, precision: Any = None
) -> Attended:
    """q [batch, heads, new, d], k and v [batch, key heads, all, d]; queries share key heads in groups.

    `seen`: True where a query sees a key; `bias`: a number to add; both broadcast to [batch, heads, new, all]. A query that
    sees nothing gives zeros. `precision`: dtype of the softmax.
    """
    batch, heads, new, d = q.shape
    grouped, whole = (batch, k.shape[1], heads // k.shape[1], new, k.shape[2]), (batch, heads, new, k.shape[2])

    def spread(mask: Any) -> Any:
        return jnp.broadcast_to(mask, whole).reshape(grouped)

    scores = jnp.einsum("bhgqd,bhkd->bhgqk", q.reshape(*grouped[:4], d), k) * np.asarray(scale, q.dtype)
    capped = jnp.tanh(scores / np.asarray(cap, q.dtype)) * np.asarray(cap, q.dtype) if cap else scores
    biased = capped if bias is None else capped + spread(bias)
    biased = biased if seen is None else jnp.where(spread(seen), biased, -jnp.inf)
    logits = biased if precision is None else biased.astype(precision)
    if seen is None and bias is None:
        shares = jax.nn.softmax(logits, -1).astype(q.dtype)
    else:
        finite = jnp.maximum(logits, jnp.finfo(logits.dtype).min)
        shares = jax.nn.softmax(finite, -1).astype(q.dtype)
    if seen is not None and not (known(seen) and np.any(seen, -1).all()):
        shares = jnp.where(spread(jnp.any(seen, -1, keepdims=True)), shares, jnp.zeros((), q.dtype))
    y = jnp.einsum("bhgqk,bhkd->bhgqd", shares, v).reshape(batch, heads, new, v.shape[-1])
    return Attended(y, *(stage.reshape(whole) for stage in (scores, capped, biased, shares)))


def near_keys(new: int, total: int, before: Any, *, causal: bool, left: int = -1, right: int = -1) -> Any:
    """Which of `total` keys `new` queries see, [(batch, 1,) new, total]; None: all.

    `before`: keys ahead of the first query, a number or [batch]. `left` and `right`: how far a query sees, -1 without end.
    """
    if not causal and left < 0 and right < 0:
        return None
    ahead = before if np.ndim(before) == 0 else before[:, None, None, None]
    distance = np.arange(new)[:, None] + ahead - np.arange(total)
    seen: Any = np.ones((), bool)
    for wanted, condition in ((causal, distance >= 0), (left >= 0, distance <= left), (right >= 0, -distance <= right)):
        seen = seen & condition if wanted else seen
    return seen


def both(a: Any, b: Any) -> Any:
    """Two masks as one; None sees all."""
    return b if a is None else a if b is None else a & b


def split_heads(x: Any, heads: int) -> Any:
    """[batch, time, heads * d] as [batch, heads, time, d]."""
    return jnp.swapaxes(x.reshape(*x.shape[:2], heads, -1), 1, 2)


def join_heads(x: Any) -> Any:
    """The inverse of `split_heads`."""
    return jnp.swapaxes(x, 1, 2).reshape(x.shape[0], x.shape[2], -1)


def default_scale(node: Node, q: Any) -> float:
    """The scale of a node's scores: its own, or 1 / sqrt(d)."""
    return node.get("scale") or 1 / math.sqrt(q.shape[-1])


@operator("Attention")
def _attention(
    run: Run, node: Node, q: Any, k: Any, v: Any, mask: Any = None, past_k: Any = None, past_v: Any = None, lengths: Any = None
) -> Any:
    import onnx

    flat = q.ndim == 3
    if flat:
        q = split_heads(q, node.get("q_num_heads"))
        k, v = (split_heads(x, node.get("kv_num_heads")) for x in (k, v))
    before: Any = 0 if past_k is None else past_k.shape[2]
    k, v = (x if past is None else jnp.concatenate([past, x], 2) for x, past in ((k, past_k), (v, past_v)))
    new, total = q.shape[2], k.shape[2]
    if lengths is not None:
        before = lengths - new if past_k is None else before
    left, right = node.get("left_window_size", -1), node.get("right_window_size", -1)
    seen, bias = near_keys(new, total, before, causal=bool(node.get("is_causal", 0)), left=left, right=right), None
    if lengths is not None:
        seen = both(seen, np.arange(total) < jnp.asarray(lengths)[:, None, None, None])
    if mask is not None:
        given = jnp.asarray(mask)
        lacking = [(0, 0)] * (given.ndim - 1) + [(0, total - given.shape[-1])]
        hidden = jnp.zeros((), bool) if given.dtype == bool else np.asarray(-np.inf, given.dtype)
        given = jnp.pad(given, lacking, constant_values=hidden)
        seen = both(seen, given if given.dtype == bool else given > -jnp.inf)
        bias = None if given.dtype == bool else jnp.where(given > -jnp.inf, given, jnp.zeros((), given.dtype)).astype(q.dtype)
    precision = node.get("softmax_precision")
    done = attend(
        q, k, v, default_scale(node, q), seen=seen, bias=bias, cap=node.get("softcap", 0.0),
        precision=None if precision is None else onnx.helper.tensor_dtype_to_np_dtype(precision),
    )  # fmt: skip
    stage = (done.scores, done.capped, done.biased, done.shares)[node.get("qk_matmul_output_mode", 0)]
    return join_heads(done.y) if flat else done.y, k, v, stage


@operator("ai.onnx.preview::FlexAttention")
def _flex_attention(run: Run, node: Node, q: Any, k: Any, v: Any, *, values: Any) -> Any:
    """Attention whose scores and shares pass through graphs of the node's own."""
    heads, groups = q.shape[1], q.shape[1] // k.shape[1]
    k, v = (jnp.repeat(x, groups, 1) if groups > 1 else x for x in (k, v))
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) * np.asarray(default_scale(node, q), q.dtype)
    places = np.ogrid[: q.shape[0], :heads, : q.shape[2], : k.shape[2]]

    def modified(name: str, x: Any) -> Any:
        body = node.get(name)
        if body is None:
            return x
        indices = [np.ascontiguousarray(p).astype(np.int64) for p in places]
        return run.graph(body, [x, *indices][: len(body.inputs)], values)[0]

    shares = jax.nn.softmax(modified("score_mod", scores).astype(scores.dtype), -1)
    return jnp.einsum("bhqk,bhkd->bhqd", modified("prob_mod", shares), v)


_flex_attention.has_bodies = True  # type: ignore[attr-defined]


def rotated(x: Any, cos: Any, sin: Any, interleaved: int) -> Any:
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
    y = rotated(x, cos, sin, node.get("interleaved", 0))
    return join_heads(y) if flat else y
