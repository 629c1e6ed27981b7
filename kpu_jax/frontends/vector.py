"""Steps of the vector engine: what each costs, and groups of them fused into one operation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from kpu_jax.base.errors import KPUError
from kpu_jax.frontends.flat import Array, Step
from kpu_jax.frontends.formats import Formats
from kpu_jax.frontends.primitives import ELEMENTWISE, REDUCTIONS, UPDATES, WINDOWS, Cost
from kpu_jax.workload import Op, VectorOp


class VectorWork(NamedTuple):
    """One step's share of a group: elements it runs over, and primitives in all."""

    elements: int
    total: Cost
    rows_end: bool = False  # its result needs more than the row at hand, so that its readers start another pass
    whole_input: bool = False  # reads its first operand anywhere, so that this must be complete


def vector_work(step: Step) -> VectorWork:
    """Cost of one primitive of the vector engine."""
    name, size = step.primitive, max((a.size for a in step.writes), default=0)
    words = max(1.0, max((_words(a.dtype) for a in (*step.reads, *step.writes)), default=1.0))
    if name in REDUCTIONS:
        operand = step.reads[0]
        return VectorWork(operand.size, REDUCTIONS[name] * (operand.size * words), not _by_rows(step, operand))
    if name in WINDOWS:
        shape = step.params.get("window_dimensions", (1,))
        spread = max(step.reads[0].size, 1) if name.startswith("select_and_scatter") else size
        if name.startswith("select_and_scatter"):
            return VectorWork(spread, WINDOWS[name] * (step.reads[0].size * math.prod(shape) * words), True, True)
        return VectorWork(size, WINDOWS[name] * (size * math.prod(shape) * words), False, True)
    if name in UPDATES:
        update = step.reads[1] if name == "dynamic_update_slice" else step.reads[2]
        return VectorWork(max(update.size, 1), UPDATES[name] * (update.size * words), True, True)
    cost = ELEMENTWISE[name]
    if name == "integer_pow":
        power = abs(step.params["y"])
        cost = Cost(simple=max(1, power.bit_length() + power.bit_count() - 2), div=float(step.params["y"] < 0))
    if name == "polynomial":  # of x and the coefficients from degree 0 on
        cost = cost * (len(step.reads) - 2)
    return VectorWork(size, cost * (size * words), whole_input=name in ("gather", "dynamic_slice") or name.startswith("cum"))


def _words(dtype: str) -> float:
    return 2.0 if dtype in ("int64", "uint64") else 1.0


def _by_rows(step: Step, operand: Array) -> bool:
    """Whether a reduction ends within a row: it takes the last axes and leaves the first."""
    axes = tuple(step.params.get("axes", step.params.get("dimensions", ())))
    return bool(axes) and 0 not in axes and sorted(axes) == list(range(len(operand.shape) - len(axes), len(operand.shape)))


def vector_op(steps: Iterable[Step], reads: float, writes: float, formats: Formats) -> Op:
    """One `VectorOp` for a group: its largest step's elements, `reads` and `writes` [bytes], all primitives.

    The format is the widest that the largest step works in.
    """
    works = [(vector_work(s), s) for s in steps]
    elements = max(w.elements for w, _ in works)
    if not elements:
        raise KPUError(f"{works[0][1].place}: an array has a dimension of zero: nothing to work on")
    total = Cost()
    for work, _ in works:
        total += work.total  # type: ignore[assignment]
    largest = max(works, key=lambda pair: pair[0].elements)[1]
    arrays = [a for a in (*largest.reads, *largest.writes) if not a.constant and not a.dtype.startswith("key<")]
    known = [f for f in (formats.format(a.dtype) for a in arrays) if f is not None]
    widest = max(known, key=lambda f: (f.bits, f.is_float), default=formats.format("int32"))
    assert widest is not None
    per_element = Cost(*(x / elements for x in total))
    one_bit = 1 / 8
    base = VectorOp(
        elements,
        function="copy",
        inputs=max(reads, one_bit) * 8 / elements / widest.bits,
        outputs_per_element=max(writes, one_bit) * 8 / elements / widest.bits,
        simple_per_element=per_element.simple,
        dtype=widest,
    )
    own = {f"vector_{name}": np.float64(getattr(per_element, name)) for name in ("exp", "div", "sqrt")}
    return dataclasses.replace(base.plain(), **own)


def label(steps: list[Step]) -> str:
    """A short name for a group: its pattern, or its last primitive of weight."""
    names = [s.primitive for s in steps]
    found = set(names)
    if {"exp", "reduce_max", "reduce_sum"} <= found and found & {"div", "mul"}:
        return "log_softmax" if "log" in found and "div" not in found else "softmax"
    roots = [i for i, n in enumerate(names) if n in ("rsqrt", "sqrt")]
    if roots and "reduce_sum" in names[: roots[-1]]:
        return "layernorm" if "sub" in found or names.count("reduce_sum") > 1 else "rmsnorm"
    if len(found) == 1:
        return names[0]
    light = {"convert_element_type", "mul", "add", "select_n", "copy", "pad", "concatenate"}
    heavy = [n for n in names if n not in light]
    return f"fused_{(heavy or names)[-1]}"
