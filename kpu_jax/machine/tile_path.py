"""Whole products in the order of a schedule, bit for bit what the stepped grid gives, and fast.

One chain of multiply-adds is a loop over k of rank-1 updates of all of C at once: every element's sum is formed in its
own order, and the elements are independent.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from kpu_jax.machine.arithmetic import Arithmetic
from kpu_jax.machine.order import Bounds, Order

CACHED = 1 << 20  # elements of C that are updated k by k before the next ones


def chain(how: Arithmetic, acc: jax.Array, columns: jax.Array, rows: jax.Array, length: Any) -> jax.Array:
    """`acc` [m, n] after `length` multiply-adds per element, by columns of A [k, m] and rows of B [k, n], k ascending."""

    if columns.shape[0] == 1:  # the one product does not depend on k: XLA would take it out of the loop, and round it there
        once = how.multiply_add(acc, columns[0][:, None], rows[0][None, :], by_hand=True)
        return jnp.where(jnp.asarray(length) > 0, once, acc)

    def add(k: Any, acc: jax.Array) -> jax.Array:
        return how.multiply_add(acc, columns[k][:, None], rows[k][None, :])

    return jax.lax.fori_loop(0, length, add, acc)


def summed(how: Arithmetic, order: Order, a: jax.Array, b: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Accumulators [m, n] of A [m, k] times B [k, n], plus a bias [n] or none, in `order`; all in the PE's type. Traceable."""
    zero = how.zeros((a.shape[0], b.shape[1]))

    def take(state: tuple[jax.Array, jax.Array], step: tuple[Order, jax.Array, jax.Array]) -> tuple[Any, None]:
        (part, total), (at, columns, rows) = state, step
        part = jnp.where(at.opens, jnp.where(at.carries_on, total, zero), part)
        start = jnp.where(at.in_place, part, zero)
        left = chain(how, start, columns, rows, at.length)
        alone = at.in_place | (at.opens & ~at.carries_on)  # nothing in L1 that the leaving sums are added to
        part = jnp.where(alone, left, how.add(part, left))
        part = part if bias is None else jnp.where(at.biased, how.add(part, bias[None]), part)
        total = jnp.where(at.closes, jnp.where(at.adds, how.add(total, part), part), total)
        return (part, total), None

    steps = order._replace(in_place=jnp.broadcast_to(order.in_place, order.length.shape))
    (_, total), _ = jax.lax.scan(take, (zero, zero), (steps, a.T[order.k], b[order.k]))
    return total


def sums(
    how: Arithmetic, bounds: tuple[Bounds, ...], orders: tuple[Order, ...], a: jax.Array, b: jax.Array, bias: jax.Array | None
) -> jax.Array:
    """Accumulators [batch, m, n] of A [batch, m, k] times B [batch, k, n], plus bias [n] or none, each rectangle of C in its order.

    `bounds` (static) and `orders` are those of `order.regions_of`; operands in the PE's type. Traceable.
    """

    def part(order: Order, a: jax.Array, b: jax.Array, bias: jax.Array | None) -> jax.Array:
        """One rectangle, in strips of rows that stay in cache."""
        rows, high = a.shape[0], max(CACHED // b.shape[1], 1)
        if rows <= high:
            return summed(how, order, a, b, bias)
        strips = jnp.pad(a, ((0, -rows % high), (0, 0))).reshape(-1, high, a.shape[1])
        return jax.lax.map(lambda strip: summed(how, order, strip, b, bias), strips).reshape(-1, b.shape[1])[:rows]

    def one(a: jax.Array, b: jax.Array) -> jax.Array:
        strips: dict[tuple[int, int], list[jax.Array]] = {}
        for ((top, bottom), (left, right)), order in zip(bounds, orders, strict=True):
            own = None if bias is None else bias[left:right]
            strips.setdefault((top, bottom), []).append(part(order, a[top:bottom], b[:, left:right], own))
        return jnp.concatenate([jnp.concatenate(strip, axis=1) for strip in strips.values()])

    return jax.vmap(one)(a, b)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def product(how: Arithmetic, bounds: tuple[Bounds, ...], orders: tuple[Order, ...], a: Any, b: Any, bias: Any) -> jax.Array:
    """`sums` of operands held as float32, as float32, differentiable: its derivatives are those of A B + bias in the reals."""
    return sums(how, bounds, orders, *jax.tree.map(how.widen, (a, b, bias))).astype(jnp.float32)


@product.defjvp
def _product_jvp(how: Arithmetic, bounds: tuple[Bounds, ...], primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    orders, a, b, bias = primals
    _, da, db, dbias = tangents
    exact = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    slope = exact(da, b) + exact(a, db)
    return product(how, bounds, orders, a, b, bias), slope if bias is None else slope + dbias[None, None]
