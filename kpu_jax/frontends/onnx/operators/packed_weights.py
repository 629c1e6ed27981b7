"""Weights of a few bits with a scale per block (ONNX Runtime), and layers that choose among experts.

The blocks are unpacked while the file is read: their products are those of floats, whose bytes are counted.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.elementwise import library
from kpu_jax.frontends.onnx.run import Run, operator


def unpacked(q: Any, bits: int) -> Any:
    """Bytes of 8 / bits numbers each, the first in the lowest bits, [..., bytes] as [..., numbers]; uint8."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (q[..., None] >> shifts) & np.uint8(2**bits - 1)
    return library(q).reshape(parts, (*np.shape(q)[:-1], -1))


def _unblocked(q: Any, scale: Any, zero: Any, bits: int, size: int, rows: int, cols: int) -> Any:
    """Weights [rows, cols] of numbers [rows, blocks, packed], a scale and a zero point per block."""
    blocks = -(-cols // size)
    numbers = unpacked(q.reshape(rows, blocks, -1), bits)[..., :size]
    if zero is None:
        shift: Any = np.full((rows, blocks, 1), 2 ** (bits - 1), scale.dtype)
    elif zero.dtype == np.uint8:
        shift = unpacked(zero.reshape(rows, -1), bits)[:, :blocks, None].astype(scale.dtype)
    else:
        shift = zero.reshape(rows, blocks, 1)
    values = (numbers.astype(scale.dtype) - shift) * scale.reshape(rows, blocks, 1)
    return values.reshape(rows, -1)[:, :cols]


@operator("com.microsoft::MatMulNBits")
def _matmul_n_bits(run: Run, node: Node, x: Any, q: Any, scale: Any, zero: Any = None, order: Any = None, bias: Any = None) -> Any:
    if order is not None:
        raise NotImplementedError("reordered groups (g_idx)")
    w = _unblocked(q, scale, zero, node.get("bits", 4), node.get("block_size"), node.get("N"), node.get("K"))
    y = jnp.matmul(x, w.T.astype(x.dtype))
    return y if bias is None else y + bias


_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_FP4 = (0.0, 5.208333333e-03, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25)


@operator("com.microsoft::MatMulBnb4")
def _matmul_bnb4(run: Run, node: Node, x: Any, q: Any, scale: Any) -> Any:
    """Codes of bitsandbytes' fp4 (quant_type 0) or nf4, high half of a byte first, each block of the flat weights with a scale."""
    levels = np.asarray(_NF4 if node.get("quant_type", 1) else (*_FP4, *(-v for v in _FP4)), scale.dtype)
    rows, cols, size = node.get("N"), node.get("K"), node.get("block_size")
    codes = unpacked(q.reshape(-1), 4).reshape(-1, 2)[:, ::-1].reshape(-1)[: rows * cols]
    w = library(q).take(levels, codes) * library(scale).repeat(scale, size)[: rows * cols]
    return jnp.matmul(x, w.reshape(rows, cols).T.astype(x.dtype))


@operator("com.microsoft::GatherBlockQuantized")
def _gather_quantised(run: Run, node: Node, q: Any, at: Any, scale: Any, zero: Any = None) -> Any:
    """Rows of a table that is stored in blocks along its last axis."""
    bits, size, axis = node.get("bits", 4), node.get("block_size", 128), node.get("gather_axis", 0)
    if node.get("quantize_axis", 1) % np.ndim(q) != np.ndim(q) - 1:
        raise NotImplementedError("blocks along another axis than the last")
    packed = q.dtype == np.uint8 and bits < 8
    numbers = unpacked(q, bits) if packed else q
    spread = library(scale).repeat(scale, size, -1)[..., : numbers.shape[-1]]
    if zero is None:
        shift: Any = np.asarray(2 ** (bits - 1) if packed or q.dtype == np.uint8 else 0, scale.dtype)
    else:
        zeros = unpacked(zero, bits)[..., : scale.shape[-1]] if packed else zero
        shift = library(zeros).repeat(zeros, size, -1)[..., : numbers.shape[-1]].astype(scale.dtype)
    return jnp.take((numbers.astype(scale.dtype) - shift) * spread, at, axis)


@operator("com.microsoft::MoE", "com.microsoft::QMoE")
def _experts(run: Run, node: Node, x: Any, chances: Any, *rest: Any) -> Any:
    """The k likeliest experts of each row: their weights are multiplied by groups of rows, `ragged_dot`."""
    quantised = node.operator.endswith("QMoE")
    if quantised:
        first, first_scale, first_bias, second, second_scale, second_bias = (*rest, *[None] * 6)[:6]
        if node.get("block_size", 0) or any(v is not None for v in rest[6:]):
            raise NotImplementedError("a third product, or scales per block")
        bits = node.get("expert_weight_bits", 4)
        first, second = _expert_weights(first, first_scale, bits), _expert_weights(second, second_scale, bits)
    else:
        first, first_bias, second, second_bias, third, third_bias = (*rest, *[None] * 6)[:6]
        if third is not None:
            raise NotImplementedError("a third product")
    kind, chosen = node.get("activation_type", "relu"), node.get("k", 1)
    if kind not in ("relu", "gelu", "silu", "identity"):
        raise NotImplementedError(f"activation_type {kind!r}")
    act = {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu, "identity": lambda v: v}[kind]
    rows, experts = jnp.asarray(x).reshape(-1, x.shape[-1]), chances.shape[-1]
    shares, who = jax.lax.top_k(jax.nn.softmax(jnp.asarray(chances).reshape(-1, experts), -1), chosen)
    shares = shares / jnp.sum(shares, -1, keepdims=True) if node.get("normalize_routing_weights", 0) else shares
    flat = who.reshape(-1)
    order = jnp.argsort(flat)
    sizes = jnp.sum(jax.nn.one_hot(flat, experts, dtype=jnp.int32), 0)
    picked = jnp.take(jnp.repeat(rows, chosen, 0), order, 0)

    def layer(v: Any, w: Any, b: Any) -> Any:
        y = jax.lax.ragged_dot(v, jnp.swapaxes(jnp.asarray(w), 1, 2), sizes)  # w [expert, out, in]
        return y if b is None else y + jnp.take(b, jnp.take(flat, order), 0)

    y = layer(act(layer(picked, first, first_bias)), second, second_bias)
    y = jnp.zeros_like(y).at[order].set(y).reshape(rows.shape[0], chosen, -1)
    return jnp.sum(y * shares[..., None].astype(y.dtype), 1).reshape(x.shape).astype(x.dtype)


def _expert_weights(q: Any, scale: Any, bits: int) -> Any:
    """[expert, out, in] of unsigned numbers about the middle of their range, a scale per output."""
    numbers = unpacked(q, bits) if bits < 8 else q
    return (numbers.astype(scale.dtype) - np.asarray(2 ** (bits - 1), scale.dtype)) * scale[..., None]
