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

    def multiply_add(self, acc: jax.Array, a: jax.Array, b: jax.Array, *, by_hand: bool = False) -> jax.Array:
        """acc + a b, as one PE does it; `by_hand`: whatever the compiler makes of the code around it."""
        if not self.is_float:
            return self._held(acc + a * b)
        return self._held((fused_by_hand if by_hand else fused_multiply_add)(a, b, acc))

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

    Compiled code on CPUs and GPUs contracts the expression to the machine's own instruction, if product and sum stand in
    one loop (a reshape between them, or a branch, may part them: the tests check those that we use). Where it does not
    (`jax.disable_jit`, other back ends), the rounding is done by hand.
    """
    return a * b + c if _contracts() else fused_by_hand(a, b, c)


def _contracts() -> bool:
    return not jax.config.jax_disable_jit and _back_end_contracts(jax.default_backend())  # type: ignore[attr-defined]


@functools.cache
def _back_end_contracts(_: str) -> bool:
    """Does compiled a b + c round once here? (1 + 2^-12)^2 - (1 + 2^-11) is 2^-24, and 0 if the product is rounded."""
    with jax.ensure_compile_time_eval():
        x, y = np.full(64, 1 + 2.0**-12, np.float32), np.full(64, -(1 + 2.0**-11), np.float32)
        return bool(np.all(np.asarray(jax.jit(lambda x, y: x * x + y)(x, y)) == np.float32(2.0**-24)))


@jax.custom_jvp
def fused_by_hand(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """a b + c in float32, rounded once, by some ten operations in float64, contracted or not.

    The product is exact there. The sum is rounded to odd, so that the rounding to float32 is the only one (Boldo and
    Melquiond, 'Emulation of a FMA and correctly rounded sums', IEEE Trans. Computers 57(4), 2008).
    """
    with jax.enable_x64(True):
        product, addend = a.astype(jnp.float64) * b.astype(jnp.float64), c.astype(jnp.float64)
        total = product + addend
        part = total - product
        error = (product - (total - part)) + (addend - part)  # exact: Knuth's two-sum
        bits = jax.lax.bitcast_convert_type(total, jnp.int64)
        odd = bits + jnp.where((error > 0) == (total > 0), 1, -1)  # the neighbour on the side of the true sum
        nudged = jnp.isfinite(total) & (error != 0) & (bits & 1 == 0)
        return jax.lax.bitcast_convert_type(jnp.where(nudged, odd, bits), jnp.float64).astype(jnp.float32)


@fused_by_hand.defjvp
def _fused_by_hand_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (a, b, c), (da, db, dc) = primals, tangents
    return fused_by_hand(a, b, c), da * b + a * db + dc
