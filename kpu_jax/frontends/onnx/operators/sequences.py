"""Sequences of arrays (Python lists), optional values and random numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.elementwise import library
from kpu_jax.frontends.onnx.operators.layout import whole
from kpu_jax.frontends.onnx.run import Run, operator


@operator("SequenceConstruct", "SequenceEmpty")
def _construct(run: Run, node: Node, *inputs: Any) -> Any:
    return list(inputs)


@operator("SequenceAt")
def _at(run: Run, node: Node, sequence: list[Any], position: Any) -> Any:
    return sequence[whole(run, node, position, "the position")[0]]


@operator("SequenceLength")
def _length(run: Run, node: Node, sequence: list[Any]) -> Any:
    return np.int64(len(sequence))


@operator("SequenceInsert")
def _insert(run: Run, node: Node, sequence: list[Any], value: Any, position: Any = None) -> Any:
    at = len(sequence) if position is None else whole(run, node, position, "the position")[0]
    at = at + len(sequence) if at < 0 else at
    return [*sequence[:at], value, *sequence[at:]]


@operator("SequenceErase")
def _erase(run: Run, node: Node, sequence: list[Any], position: Any = None) -> Any:
    at = -1 if position is None else whole(run, node, position, "the position")[0]
    return [v for i, v in enumerate(sequence) if i != at % len(sequence)]


@operator("SplitToSequence")
def _split(run: Run, node: Node, x: Any, split: Any = None) -> Any:
    axis, size = node.get("axis", 0), None if split is None else whole(run, node, split, "the split")
    total = np.shape(x)[axis]
    if size is None:
        parts = [1] * total
    elif np.ndim(split) == 0:
        parts = [min(size[0], total - i) for i in range(0, total, size[0])]
    else:
        parts = size
    cut = library(x).split(x, np.cumsum(parts)[:-1].tolist(), axis)
    squeezed = split is None and not node.get("keepdims", 1)
    return [library(x).squeeze(v, axis) if squeezed else v for v in cut]


@operator("ConcatFromSequence")
def _concat(run: Run, node: Node, sequence: list[Any]) -> Any:
    join = library(*sequence).stack if node.get("new_axis", 0) else library(*sequence).concatenate
    return join(sequence, node.get("axis"))


@operator("OptionalHasElement")
def _has(run: Run, node: Node, x: Any = None) -> Any:
    return np.bool_(x is not None)


@operator("Optional", "OptionalGetElement")
def _element(run: Run, node: Node, x: Any = None) -> Any:
    return x


@operator("Multinomial")
def _multinomial(run: Run, node: Node, x: Any) -> Any:
    """Draws [row, sample] of classes by their unnormalised log probabilities; JAX's generator."""
    import onnx

    dtype, count = onnx.helper.tensor_dtype_to_np_dtype(node.get("dtype", 6)), node.get("sample_size", 1)
    key = jax.random.key(int(node.get("seed", 0.0)))
    return jax.random.categorical(key, jnp.asarray(x)[:, None], shape=(x.shape[0], count)).astype(dtype)


@operator("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli")
def _random(run: Run, node: Node, like: Any = None) -> Any:
    """Random numbers of JAX's generator: the same work, other numbers than another runtime's."""
    import onnx

    shape = node.get("shape") if like is None else np.shape(like)
    given = node.get("dtype")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(given) if given else np.dtype(np.float32) if like is None else like.dtype
    key = jax.random.key(int(node.get("seed", 0.0)))
    if node.operator == "Bernoulli":
        return jax.random.bernoulli(key, like).astype(dtype)
    if "Normal" in node.operator:
        return (node.get("mean", 0.0) + node.get("scale", 1.0) * jax.random.normal(key, shape, np.float32)).astype(dtype)
    return jax.random.uniform(key, shape, np.float32, node.get("low", 0.0), node.get("high", 1.0)).astype(dtype)
