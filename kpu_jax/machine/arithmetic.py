"""What a PE computes: one multiply-add, in a wide accumulator.

Integers: the product is exact modulo 2^32, and the int32 accumulator wraps around, as NumPy's int32 does.
Floats, or an integer and a float: the fp32 accumulator takes product and sum fused, rounded once, to nearest even.
Operands are widened exactly, but for an int32 in a float PE, which is rounded to fp32.
Another accumulator format takes the result of each step: integers of n bits wrap around modulo 2^n, floats are
rounded from the fp32 sum. Subnormal numbers count as zero where the back end flushes them (XLA does on CPUs).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.errors import DtypeError
from kpu_jax.machine.formats import convert
from kpu_jax.workload.dtypes import NumberFormat, default_accumulator


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """How the PEs of one operation compute. Hashable, static under jit."""

    is_float: bool  # fp32 in the PE, else int32
    accumulator: NumberFormat

    @property
    def dtype(self) -> Any:
        """Type of the operand and accumulator registers."""
        return jnp.float32 if self.is_float else jnp.int32

    def widen(self, x: Any) -> jax.Array:
        """Operands as the registers hold them; exact but for int32 in a float PE."""
        return jnp.asarray(x).astype(self.dtype)

    def zeros(self, shape: tuple[int, ...]) -> jax.Array:
        """Empty accumulators. XLA may not see that they are zero.

        It would drop the addition, and contract the first product with the second instead of the second with its sum.
        """
        return jax.lax.optimization_barrier(jnp.zeros(shape, self.dtype))

    def multiply_add(self, acc: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        """acc + a b, as one PE does it."""
        return self._held(fused_multiply_add(a, b, acc) if self.is_float else acc + a * b)

    def add(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """The sum of two accumulators."""
        return self._held(x + y)

    def _held(self, x: jax.Array) -> jax.Array:
        """`x` as an accumulator of this format keeps it."""
        if self.accumulator.bits == 32:
            return x
        if self.is_float:
            return convert(x, self.accumulator).astype(jnp.float32)
        shift = 32 - self.accumulator.bits
        return (x << shift) >> shift


def arithmetic(a: NumberFormat, b: NumberFormat, accumulator: NumberFormat | None = None) -> Arithmetic:
    """The arithmetic for operands `a` and `b`; sums in int32 for integers and fp32 for floats unless given."""
    acc = default_accumulator(a if a.is_float else b) if accumulator is None else accumulator
    if not acc.is_float and (a.is_float or b.is_float):
        raise DtypeError(f"acc_dtype = {acc.name} cannot hold products of {a.name} and {b.name}: use fp32, fp16 or bf16")
    return Arithmetic(a.is_float or b.is_float or acc.is_float, acc)


def fused_multiply_add(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """a b + c in float32, rounded once.

    Compiled code on CPUs and GPUs contracts the expression to the machine's own instruction. Where it does not
    (`jax.disable_jit`, other back ends), the rounding is done by hand in float64.
    """
    return a * b + c if _contracts() else _by_hand(a, b, c)


def _contracts() -> bool:
    return not jax.config.jax_disable_jit and _back_end_contracts(jax.default_backend())  # type: ignore[attr-defined]


@functools.cache
def _back_end_contracts(_: str) -> bool:
    """Does compiled a b + c round once here? (1 + 2^-12)^2 - (1 + 2^-11) is 2^-24, and 0 if the product is rounded."""
    with jax.ensure_compile_time_eval():
        x, y = np.full(64, 1 + 2.0**-12, np.float32), np.full(64, -(1 + 2.0**-11), np.float32)
        return bool(np.all(np.asarray(jax.jit(lambda x, y: x * x + y)(x, y)) == np.float32(2.0**-24)))


@jax.custom_jvp
def _by_hand(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """The product is exact in float64. The sum is rounded there to odd, so that the rounding to float32 is the only one.

    (Boldo and Melquiond, 'Emulation of a FMA and correctly rounded sums', IEEE Trans. Computers 57(4), 2008.)
    """
    with jax.enable_x64(True):
        product, addend = a.astype(jnp.float64) * b.astype(jnp.float64), c.astype(jnp.float64)
        total = product + addend
        part = total - product
        error = (product - (total - part)) + (addend - part)  # exact: Knuth's two-sum
        even = (jax.lax.bitcast_convert_type(total, jnp.int64) & 1) == 0
        odd = jnp.nextafter(total, jnp.where(error > 0, jnp.inf, -jnp.inf))
        inexact = jnp.isfinite(total) & (error != 0)
        return jnp.where(inexact & even, odd, total).astype(jnp.float32)


@_by_hand.defjvp
def _by_hand_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (a, b, c), (da, db, dc) = primals, tangents
    return _by_hand(a, b, c), da * b + a * db + dc
