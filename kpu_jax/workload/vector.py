"""Element-wise work and reductions of the vector engine, and what each function costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import ArrayLike

from kpu_jax.base.errors import MAX_DIMENSION, MAX_MACS, check_choice
from kpu_jax.base.pytree import record
from kpu_jax.workload.dtypes import parse_dtype
from kpu_jax.workload.op import ACTIVATIONS, VECTOR, Op
from kpu_jax.workload.options import checked, dimension, fill, locations

_MOST = float(MAX_DIMENSION)  # operands, results or primitives of one element
SPECIAL = ("exp", "div", "sqrt")  # primitives that take cycles of their own


class VectorFunction(NamedTuple):
    """What one element of a function takes: operands read, and how often each primitive runs.

    Primitives are exp, div, sqrt and the activations, which take `KPUConfig.vector`'s cycles for each, and
    simple ones (every other name), which take `cycles_add`.
    """

    inputs: int
    primitives: Mapping[str, float]

    @property
    def ops(self) -> float:
        """Primitive operations per element."""
        return float(sum(self.primitives.values()))


def _one(primitive: str, inputs: int) -> VectorFunction:
    return VectorFunction(inputs, {primitive: 1})


VECTOR_FUNCTIONS: dict[str, VectorFunction] = {
    **{name: _one(name, 2) for name in ("add", "sub", "mul", "div", "max", "min")},
    **{name: _one(name, 1) for name in ("copy", "scale", "exp", *ACTIVATIONS[1:])},
    "rsqrt": _one("sqrt", 1),
    "sum": _one("add", 1),
    "max_reduce": _one("max", 1),
    "average": _one("add", 1),
    "add_relu": VectorFunction(2, {"add": 1, "max": 1}),
    "rotary": VectorFunction(1, {"mul": 2, "add": 1}),  # x cos + rotated(x) sin
    "softmax": VectorFunction(1, {"max": 1, "sub": 1, "exp": 1, "add": 1, "mul": 1}),
    "layernorm": VectorFunction(1, {"add": 2, "sub": 1, "mul": 3, "bias": 1}),  # mean, centre, square, sum, 2 scales
    "rmsnorm": VectorFunction(1, {"mul": 3, "add": 1}),  # square, sum, normalise, scale
}
"""Per-element costs. Work per row (a reciprocal, a square root) is not counted: a modelling choice, override it per operation."""


@record
class VectorOp(Op):
    """Vector-engine work over `elements`: m = elements, n = k = 1, no MACs; flattens to the leaves of `Op`."""

    def __init__(
        self,
        elements: ArrayLike,
        *,
        function: str = "add",
        inputs: ArrayLike | None = None,
        outputs_per_element: ArrayLike = 1.0,
        dtype: Any = "int8",
        out_dtype: Any = None,
        simple_per_element: ArrayLike | None = None,
        data_on: str | Mapping[str, str] = "external",
        reserved_l3_bytes: ArrayLike = 0,
        count: ArrayLike = 1,
    ) -> None:
        """`inputs` operands of `dtype` are read per element (None: as the function has), fractions for broadcasts.

        `outputs_per_element` is below 1 for reductions (1/49 for a 7x7 mean; elements are then the inputs).
        `simple_per_element`: simple primitives per element in place of the function's (9 for a 3x3 pooling).

        Raises `KPUError` for elements not an integer from 1 to 2^53, non-positive numbers, and unknown names.
        """
        cost = VECTOR_FUNCTIONS[check_choice("VectorOp.function", function, VECTOR_FUNCTIONS)]
        bits = parse_dtype("VectorOp.dtype", dtype)
        out = bits if out_dtype is None else parse_dtype("VectorOp.out_dtype", out_dtype)
        operands = cost.inputs if inputs is None else inputs
        own = {name: times for name, times in cost.primitives.items() if name not in SPECIAL and name not in ACTIVATIONS}
        simple = sum(own.values()) if simple_per_element is None else simple_per_element
        activations = [ACTIVATIONS.index(name) for name in cost.primitives if name in ACTIVATIONS]
        per_element = checked("VectorOp.outputs_per_element", outputs_per_element, "1/element", high=_MOST, low_open=True)
        fill(
            self,
            kind=VECTOR,
            m=dimension("VectorOp.elements", elements, high=MAX_MACS),
            n=1,
            k=1,
            batch=1,
            a_bits=checked("VectorOp.inputs", operands, "operands/element", high=_MOST, low_open=True) * bits.bits,
            b_bits=0,
            c_bits=per_element * out.bits,
            acc_bits=per_element * out.bits,
            mac_format=bits.mac_format,
            density_a=1,
            density_b=1,
            zero_gating=1,
            activation=activations[0] if activations else 0,
            vector_simple=checked("VectorOp.simple_per_element", simple, "primitives/element", high=_MOST),
            **{f"vector_{name}": cost.primitives.get(name, 0) for name in SPECIAL},
            **locations("VectorOp.data_on", data_on),
            reserved_l3_bytes=checked("VectorOp.reserved_l3_bytes", reserved_l3_bytes, "bytes", high=float(MAX_MACS)),
            count=dimension("VectorOp.count", count, "operations"),
        )
