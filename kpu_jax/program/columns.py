"""`check_columns`: is it a program at all, one concrete operation with columns of the right shapes and kinds?"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, check_number, shown
from kpu_jax.base.pytree import is_traced
from kpu_jax.base.validation import check_type
from kpu_jax.mapping import Mapping
from kpu_jax.program.header import ARRAY
from kpu_jax.program.program import COLUMNS, Program
from kpu_jax.workload import Op


def check_columns(program: Any) -> None:
    """Raise a `KPUError` unless `program` can be written down and read: what its numbers mean is `check_structure`'s."""
    check_type("the program", program, Program, "make one with kpu.program.build")
    if is_traced(program):
        raise KPUError("the program must be concrete, outside jit, vmap and grad; inside use kpu.program.cycles")
    check_type("program.op", program.op, Op, "the plain operation that it computes")
    check_type("program.mapping", program.mapping, Mapping, "the one that it was built from")
    if any(np.ndim(leaf) for leaf in jax.tree.leaves((program.op, program.mapping))):
        raise KPUError("a program is of one operation and mapping; these are stacked: take one of them")
    for name in ARRAY:
        check_number(f"program.{name}", getattr(program, name), "byte" if name == "burst" else "count", low=1, integer=True)
    _check_shapes(program)
    labels = program.labels
    if not isinstance(labels, tuple) or not all(isinstance(label, str) for label in labels):
        raise KPUError(f"program.labels must be a tuple of texts, got {shown(labels)}")
    if len(set(labels)) != len(labels):
        raise KPUError("program.labels holds a label twice")


def _check_shapes(program: Program) -> None:
    n = np.size(program.opcode)
    table = (n, np.shape(program.needs)[-1] if np.ndim(program.needs) == 2 else 1)
    shapes = {"tile": (n, 3, 3), "needs": table, "need_kind": table}
    for name, dtype in COLUMNS.items():
        column, shape = getattr(program, name), shapes.get(name, (n,))
        if not isinstance(column, np.ndarray) or column.dtype != dtype:
            raise KPUError(f"program.{name} must be a NumPy array of {np.dtype(dtype)}, got {getattr(column, 'dtype', type(column))}")
        if column.shape != shape:
            raise KPUError(f"program.{name} has the shape {column.shape}, expected {shape} for {n} instructions")
    if not n:
        raise KPUError("the program has no instructions")
