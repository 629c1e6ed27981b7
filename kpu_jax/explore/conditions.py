"""Conditions between the fields of a space, such as "rows == cols" or "l2.bank_count * l2.bank_capacity_kb <= 4096".

Parsed into a tree of a few known operations: numbers, fields, + - * /, comparisons, and, or, not. Nothing is executed.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, check_number, is_number, nearest, shown

MAX_LENGTH = 500  # characters
Operation = Callable[[Any, Any], Any]
ARITHMETIC: dict[type, Operation] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
COMPARISONS: dict[type, Operation] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
Columns = Mapping[str, Any]  # dotted path -> values
Term = Callable[[Columns], Any]


@dataclass
class Condition:
    """What chips of a space must meet."""

    text: str
    paths: tuple[str, ...]  # of the fields that it compares
    _term: Term

    def __call__(self, columns: Columns) -> Any:
        """Mask of the chips that meet it, from the values of their fields: NumPy or JAX arrays of float64."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._term(columns)


def condition(text: Any, fields: Sequence[str], varying: Sequence[str] = ()) -> Condition:
    """A condition between dotted `fields`, each written in full or by the end of its name where only one ends so,
    or only one of the `varying` ones.

    Raises `KPUError` for anything but such comparisons, and for fields that do not exist (nearest names) or are
    ambiguous.
    """
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_LENGTH:
        raise KPUError(f'a condition is text such as "rows == cols", at most {MAX_LENGTH} characters, got {shown(text)}')
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise KPUError(f'condition {shown(text)} cannot be read: write a comparison such as "rows == cols"') from None
    paths: dict[str, None] = {}
    try:
        if not isinstance(tree, (ast.Compare, ast.BoolOp)) and not (isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not)):
            raise KPUError("it compares nothing; use ==, !=, <, <=, > or >=")
        term = _term(tree, (fields, varying), paths)
    except KPUError as error:
        raise KPUError(f"condition {shown(text)}: {error}") from None
    if not paths:
        raise KPUError(f"condition {shown(text)} names no field")
    return Condition(text.strip(), tuple(paths), term)


def _term(node: ast.expr, fields: tuple[Sequence[str], Sequence[str]], paths: dict[str, None]) -> Term:
    def part(child: ast.expr) -> Term:
        return _term(child, fields, paths)

    if isinstance(node, ast.Constant) and is_number(node.value):
        number = np.float64(check_number("a number", node.value, "of the field"))  # divides by zero without an error
        return lambda columns: number
    if isinstance(node, (ast.Name, ast.Attribute)):
        path = _field(ast.unparse(node), *fields)
        paths[path] = None
        return lambda columns: columns[path]
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        left, right = part(node.left), part(node.right)
        apply = ARITHMETIC[type(node.op)]
        return lambda columns: apply(left(columns), right(columns))
    if isinstance(node, ast.Compare) and all(type(op) in COMPARISONS for op in node.ops):
        terms, tests = [part(node.left), *map(part, node.comparators)], [COMPARISONS[type(op)] for op in node.ops]

        def compare(columns: Columns) -> Any:
            values = [term(columns) for term in terms]
            return reduce(operator.and_, (test(a, b) for test, a, b in zip(tests, values, values[1:], strict=False)))

        return compare
    if isinstance(node, ast.BoolOp):
        both = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        parts = [part(value) for value in node.values]
        return lambda columns: reduce(both, (p(columns) != 0 for p in parts))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = part(node.operand)
        return lambda columns: inner(columns) == 0
    raise KPUError(f"{shown(ast.unparse(node))} is not allowed: use numbers, fields, + - * /, comparisons, and, or, not")


def _field(name: str, fields: Sequence[str], varying: Sequence[str]) -> str:
    found = [path for path in fields if path == name] or [path for path in fields if path.endswith(f".{name}")]
    found = [path for path in found if path in varying] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise KPUError(f"{name} may be {', '.join(found)}: write more of the name")
    ends = {path.rsplit(".", 1)[-1] for path in fields}
    raise KPUError(f"there is no field {shown(name)}: {nearest(name, fields if '.' in name else ends)}")
