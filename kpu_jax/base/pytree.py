"""Frozen records that are JAX pytrees; validation happens in constructors, never on unflatten."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, nearest

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass whose fields are all pytree children.

    Unflattening bypasses `__init__`, so tracers, `None` and sentinels pass through JAX transformations
    without meeting the checks that a user's constructor call does.
    """
    frozen = dataclasses.dataclass(frozen=True, repr=False, eq=False, init="__init__" not in cls.__dict__)(cls)
    names = tuple(f.name for f in dataclasses.fields(frozen))  # type: ignore[arg-type]
    keys = tuple(jax.tree_util.GetAttrKey(n) for n in names)

    def flatten_with_keys(obj: T):
        return tuple((k, getattr(obj, n)) for k, n in zip(keys, names, strict=True)), None

    def flatten(obj: T):
        return tuple(getattr(obj, n) for n in names), None

    def unflatten(_: None, children: Any) -> T:
        return build(frozen, **dict(zip(names, children, strict=True)))

    frozen.__eq__ = _equal  # type: ignore[method-assign, assignment]
    frozen.__hash__ = _hash  # type: ignore[method-assign, assignment]
    jax.tree_util.register_pytree_with_keys(frozen, flatten_with_keys, unflatten, flatten)
    return frozen


def _equal(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return NotImplemented
    pairs = zip(jax.tree_util.tree_leaves(a), jax.tree_util.tree_leaves(b), strict=True)
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


def _hash(a: Any) -> int:
    return hash((type(a), *(np.asarray(x).tobytes() for x in jax.tree_util.tree_leaves(a))))


def build(cls: type[T], **fields: Any) -> T:
    """An instance of a `record` class with these fields, unchecked."""
    obj = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(obj, name, value)
    return obj


def is_traced(*trees: Any) -> bool:
    """True if any leaf is a JAX tracer, that is, if we are inside jit, vmap or grad."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves(trees))


def as_leaf(value: Any) -> Any:
    """A leaf as the host keeps it: NumPy float64, unless it is traced or already a jax array."""
    return value if isinstance(value, jax.Array) else np.float64(value)


def leaf_paths(tree: Any) -> Iterator[tuple[str, Any]]:
    """(dotted path, leaf) of every leaf, in order."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield ".".join(k.name if isinstance(k, jax.tree_util.GetAttrKey) else str(k) for k in path), leaf


def get_path(tree: Any, path: str) -> Any:
    """The node at a dotted path; an unknown one is a `KPUError` with the nearest names."""
    node = tree
    for name in path.split("."):
        if not dataclasses.is_dataclass(node) or name not in {f.name for f in dataclasses.fields(node)}:
            raise KPUError(f"no field {path!r}: {nearest(path, [p for p, _ in leaf_paths(tree)])}")
        node = getattr(node, name)
    return node


def replace_path(tree: T, path: str, value: Any) -> T:
    """A copy of `tree` with the leaf at the dotted `path` replaced, unchecked."""
    get_path(tree, path)
    head, _, rest = path.partition(".")
    child = replace_path(getattr(tree, head), rest, value) if rest else value
    fields = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree)}  # type: ignore[arg-type]
    return build(type(tree), **{**fields, head: child})
