"""jit with compiler options for large scalar programs, which XLA's CPU fusion would blow up tenfold."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

# Without fusion the scalar formulas of the screening compile faster and run as fast in batches;
# without LLVM's optimisation they compile fastest, for what runs once.
BATCH = {"xla_disable_hlo_passes": "fusion", "xla_llvm_disable_expensive_passes": True}
ONCE = {"xla_disable_hlo_passes": "fusion", "xla_backend_optimization_level": 0}
# The walk through a schedule is array code: it compiles as fast with the default options, and runs several times as fast.


@contextlib.contextmanager
def plain_promotion() -> Iterator[None]:
    """JAX's own rules for mixed types and ranks, whatever stricter ones the caller has set."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def jit_for(options: dict[str, Any], **jit_arguments: Any) -> Callable[[Callable], Any]:
    """Like `jax.jit`, with XLA `options` where the default device is a CPU (other back ends take none).

    Traced under `plain_promotion`.
    """

    def decorate(function: Callable) -> Callable:
        @functools.cache
        def compiled() -> Callable:
            chosen = options if jax.default_backend() == "cpu" else None
            return jax.jit(function, compiler_options=chosen, **jit_arguments)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with plain_promotion():
                return compiled()(*args, **kwargs)

        call.lower = lambda *args, **kwargs: compiled().lower(*args, **kwargs)  # type: ignore[attr-defined]
        return call

    return decorate
