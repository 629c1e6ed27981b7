"""Arguments of a function, arrays apart from what only Python reads: activations, names, switches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from kpu_jax.base.errors import KPUError, shown
from kpu_jax.frontends.jaxpr import is_array


@dataclasses.dataclass(frozen=True)
class Others:
    """The arguments without their arrays; equal and hashable, so that a compiled function serves all equal ones."""

    tree: Any
    leaves: tuple[Any, ...]  # `_ARRAY` where an array goes

    def with_arrays(self, fn: Callable[..., Any]) -> Callable[[Sequence[Any]], Any]:
        """`fn` of its arrays alone."""

        def call(arrays: Sequence[Any]) -> Any:
            each = iter(arrays)
            args, kwargs = jax.tree.unflatten(self.tree, [next(each) if leaf is _ARRAY else leaf for leaf in self.leaves])
            return fn(*args, **kwargs)

        return call


_ARRAY = object()


def split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Others]:
    """(the arrays in order, everything else). Raises `KPUError` for a leaf that is neither an array nor hashable."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    others = tuple(_ARRAY if is_array(leaf) else leaf for leaf in leaves)
    for leaf in others:
        try:
            hash(leaf)
        except TypeError:
            remedy = "bind it with functools.partial"
            raise KPUError(f"an argument holds {shown(leaf)}, which is neither an array nor hashable: {remedy}") from None
    return [leaf for leaf in leaves if is_array(leaf)], Others(tree, others)
