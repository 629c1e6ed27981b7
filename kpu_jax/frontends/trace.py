"""`kpu.trace`: any JAX function as a workload."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from kpu_jax.base.errors import KPUError, check_choice, shown
from kpu_jax.frontends.fabric import fabric_work
from kpu_jax.frontends.flat import Step
from kpu_jax.frontends.formats import Formats
from kpu_jax.frontends.fusion import is_fabric, is_vector
from kpu_jax.frontends.graph import workload_of
from kpu_jax.frontends.jaxpr import Reader, unknown_keys, user_line
from kpu_jax.frontends.vector import vector_work
from kpu_jax.workload import Workload

POLICIES = ("error", "host")


def trace(
    fn: Callable[..., Any],
    *,
    dtype: Any = None,
    while_trips: float | Mapping[str, float] | None = None,
    branch_weights: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    unsupported: str = "error",
) -> Callable[..., Workload]:
    """`kpu.trace(fn)(*args, **kwargs)`: the `Workload` that computes `fn(*args, **kwargs)`.

    `fn` is read, never run: arguments may be arrays or `jax.ShapeDtypeStruct`s, in any pytree (equinox and flax.nnx
    modules too); leaves that are no arrays or numbers are handed on as they are. `fn` may be a gradient, a `vmap`, a
    whole optimiser step. Dead code is left out.

    - Matrix products and convolutions become fabric operations: MACs as of the dense product, those on padding and on
      the zeros of strides also apart (`Workload.zero_macs`).
    - Element-wise work is fused as `frontends.fusion` says; each operation's `origin` keeps scope, source line, fused
      primitives, and the arrays it reads and writes.
    - A `scan` is listed once, with `repeats`. So is a `while`: `while_trips` gives its iterations (for all, or per loop
      by name or by "file.py:line") unless it counts up to a known number.
    - Of a `cond` the dearest branch is taken (by MACs, then vector work), or all of them by `branch_weights` (fractions
      in the order of the branches, index 0 first; for all, or per branch by name or line).
    - `dtype` takes the place of all floating-point formats ("int8": the quantised model).
    - What the chip cannot run (sorting, factorisations, float64, complex numbers, collectives) is in `host_work`.

    Raises `KPUError` naming the source line for side effects, unknown shapes, dimensions of zero, unknown trip counts,
    primitives that it does not know, and errors of `fn` itself. `unsupported="host"` lists the primitives refused or
    unknown as host work instead.
    """
    return trace_with_sources(fn, None, dtype=dtype, while_trips=while_trips, branch_weights=branch_weights, unsupported=unsupported)


def trace_with_sources(
    fn: Callable[..., Any], place: Callable[[str], str] | None, *, dtype: Any, while_trips: Any, branch_weights: Any, unsupported: str
) -> Callable[..., Workload]:
    """`trace` where `place(scope)` says where an operation comes from, in place of its line of Python."""
    if not callable(fn):
        raise KPUError(f"trace takes a function, got {type(fn).__name__} {shown(fn)}; call the result with its arguments")
    check_choice("unsupported", unsupported, POLICIES)
    formats = Formats(dtype)

    @functools.wraps(fn, assigned=("__name__", "__qualname__", "__doc__", "__module__"), updated=())
    def traced(*args: Any, **kwargs: Any) -> Workload:
        reader = Reader(
            trips=while_trips, weights=branch_weights, unsupported=unsupported, choose=lambda b: _dearest(b, formats), place=place
        )
        try:
            flat = reader.read(fn, args, kwargs)
        except KPUError:
            raise
        except Exception as error:
            raise KPUError(_cannot(fn, error)) from error
        unknown_keys(reader)
        return workload_of(flat, formats)

    return traced


def _dearest(branches: list[list[Step]], formats: Formats) -> int:
    """The branch of most MACs; among equals of most vector work; among those of most host work; then the first."""

    def price(steps: list[Step]) -> tuple[float, float, float]:
        works = [(fabric_work(s, formats), s.repeats) for s in steps if is_fabric(s)]
        macs = sum(float(w.op.macs) * n for w, n in works if not isinstance(w, str))
        vector = sum(sum(vector_work(s).total) * s.repeats for s in steps if is_vector(s, formats))
        host = sum(a.size * s.repeats for s in steps if not is_fabric(s) and not is_vector(s, formats) for a in s.writes)
        return macs, vector, host

    prices = [price(steps) for steps in branches]
    return prices.index(max(prices))


def _cannot(fn: Any, error: Exception) -> str:
    """One line for an exception that `fn` or JAX raised while the function was read."""
    name = getattr(fn, "__name__", type(fn).__name__)
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    at = user_line(error)
    where = f" at {at}" if at else ""
    remedy = ""
    if isinstance(error, jax.errors.JAXTypeError) or "concrete" in lines[0]:
        remedy = "; shapes and Python branches may not depend on traced values: bind such arguments with functools.partial"
    return f"{name} cannot be traced: {type(error).__name__}{where}: {lines[0][:300]}{remedy}"
