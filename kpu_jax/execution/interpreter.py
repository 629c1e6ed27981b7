"""Run a JAX function equation by equation, its matrix products and convolutions by another hand.

Everything else is bound as JAX would bind it. Calls, loops and branches that hold products are run from within, so
the whole goes under jit, vmap and grad; those that hold none are bound whole, with their own derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from kpu_jax.execution.products import CONVOLUTION, DOT, RAGGED, convolution, dot, ragged
from kpu_jax.frontends.jaxpr import body_of, scan_counts
from kpu_jax.frontends.primitives import CALLS

Product = Callable[[jax.Array, jax.Array, Any], jax.Array | None]
"""(A [batch, m, k], B [batch, k, n], dtype of C) -> C [batch, m, n], or None: JAX is to compute it."""


_PRODUCTS: dict[str, Callable[..., Any]] = {DOT: dot, RAGGED: ragged, CONVOLUTION: convolution}


def on_machine(fn: Callable[..., Any], product: Product) -> Callable[..., Any]:
    """`fn` with every `dot_general`, `ragged_dot` and `conv_general_dilated` computed by `product`, at any depth of calls and loops.

    The function takes arrays in any pytree; keyword arguments too. Its derivatives are those of the equations: a function
    with a derivative of its own (`jax.custom_vjp`) that holds products is differentiated through them.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args, **kwargs)
        leaves = jax.tree.leaves((args, kwargs))
        results = _run(closed.jaxpr, closed.consts, leaves, product)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return run


def _run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], product: Product) -> list[Any]:
    """The results of `jaxpr`."""
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        outputs = _step(eqn, [read(v) for v in eqn.invars], product)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _step(eqn: Any, args: list[Any], product: Product) -> Sequence[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name in _PRODUCTS:
        result = _PRODUCTS[name](*args, params, eqn.outvars[0].aval, product)
        return _bound(eqn, args) if result is None else [result]
    if not _has_products(eqn):
        return _bound(eqn, args)
    if name in CALLS:
        inner, given = body_of(eqn, args)
        return _run(inner.jaxpr, inner.consts, given, product)
    if name == "scan":
        return _scan(params, args, product)
    if name == "while":
        return _while(params, args, product)
    if name == "cond":
        branches = [_closed(b, product) for b in params["branches"]]
        return jax.lax.switch(args[0], branches, *args[1:])
    return _bound(eqn, args)


def _bound(eqn: Any, args: list[Any]) -> Sequence[Any]:
    """What JAX makes of the equation."""
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # before and since JAX 0.10
    results = eqn.primitive.bind(*functions, *args, **params)
    return results if eqn.primitive.multiple_results else [results]


def _has_products(eqn: Any) -> bool:
    return any(
        inner.primitive.name in _PRODUCTS or _has_products(inner)
        for body in core.jaxprs_in_params(eqn.params)
        for inner in body.eqns
    )


def _closed(body: Any, product: Product) -> Callable[..., tuple[Any, ...]]:
    """A loop's or branch's body as a function of its arguments."""
    return lambda *args: tuple(_run(body.jaxpr, body.consts, args, product))


def _scan(params: Any, args: list[Any], product: Product) -> Sequence[Any]:
    fixed, carries = scan_counts(params)
    constants, start, slices = args[:fixed], args[fixed : fixed + carries], args[fixed + carries :]
    body = _closed(params["jaxpr"], product)

    def step(carry: Any, now: Any) -> Any:
        results = body(*constants, *carry, *now)
        return results[:carries], results[carries:]

    end, outs = jax.lax.scan(
        step, tuple(start), tuple(slices), length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    return [*end, *outs]


def _while(params: Any, args: list[Any], product: Product) -> Sequence[Any]:
    test, body = params["cond_nconsts"], params["body_nconsts"]
    for_test, for_body, start = args[:test], args[test : test + body], args[test + body :]
    goes_on, step = _closed(params["cond_jaxpr"], product), _closed(params["body_jaxpr"], product)
    return jax.lax.while_loop(lambda c: goes_on(*for_test, *c)[0], lambda c: step(*for_body, *c), tuple(start))
