"""What the chip's objects hold, as plain dicts and lists, in both directions. Exact: floats keep every bit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import KPUError, nearest, shown
from kpu_jax.base.pytree import build, is_traced
from kpu_jax.base.tables import Row
from kpu_jax.explore.sweep import SweepResult
from kpu_jax.explore.sweep_table import sweep_table
from kpu_jax.hardware import KPUConfig
from kpu_jax.hardware.dictionary import config_from_dict, config_to_dict
from kpu_jax.mapping import Mapping as Schedule
from kpu_jax.model.bound import ENGINES
from kpu_jax.model.report import Report
from kpu_jax.model.traffic import LEVELS, OPERANDS
from kpu_jax.workload import FIELDS, HostWork, Node, Op, Origin, Tensor, Workload, check_op

KINDS = ("workload", "config", "mapping", "report", "table")


def kind_of(value: Any) -> str:
    """Which of `KINDS` a value is; a sweep's result and a list of dicts are tables. `KPUError` for others."""
    for kind, cls in (("workload", Workload), ("config", KPUConfig), ("mapping", Schedule), ("report", Report), ("table", SweepResult)):
        if isinstance(value, cls):
            return kind
    if isinstance(value, Op):
        return "workload"
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(row, Mapping) for row in value):
        return "table"
    raise KPUError(
        f"cannot convert {type(value).__name__} {shown(value)}: give a Workload, KPUConfig, Mapping, Report, SweepResult or a list of rows"
    )


def to_dict(value: Any) -> dict[str, Any]:
    """`{"kind": ..., ...}` of plain numbers, text, lists and dicts; `from_dict` gives an equal object back.

    Raises `KPUError` for other objects, and for traced ones.
    """
    if not isinstance(value, Sequence) and is_traced(value):
        raise KPUError("a traced value cannot be converted: call data_converter outside of jit, vmap and grad")
    kind = kind_of(value)
    return {"kind": kind, **_WRITE[kind](value)}


def from_dict(values: Any) -> Any:
    """The object that `to_dict` wrote. Raises `KPUError` naming the entry for anything else."""
    if not isinstance(values, Mapping) or "kind" not in values:
        raise KPUError(f"expected a dict with 'kind' ({', '.join(KINDS)}), got {shown(values)}")
    kind = values["kind"]
    if not isinstance(kind, str) or kind not in _READ:
        raise KPUError(f"kind = {shown(kind)} is unknown: {nearest(kind, KINDS)}")
    try:
        return _READ[kind](values)
    except KPUError as error:
        raise KPUError(f"{kind}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise KPUError(f"{kind}: not whole or mistyped: {type(error).__name__}: {error!s:.200}") from None


# -- leaves: float, or nested lists of floats for stacks; numbers that JSON has no word for as text


def plain(leaf: Any) -> Any:
    """A leaf as float, or nested lists of floats."""
    array = np.asarray(leaf, np.float64)
    return _number(float(array)) if array.ndim == 0 else [plain(x) for x in array]


_NO_WORD = ("inf", "-inf", "nan")  # numbers that JSON has no word for


def _number(x: float) -> Any:
    return x if math.isfinite(x) else repr(x)


def leaf(value: Any) -> Any:
    """The inverse of `plain`: np.float64 or an array of them."""
    return np.asarray(_floats(value), np.float64)[()]


def _floats(value: Any) -> Any:
    return [_floats(v) for v in value] if isinstance(value, (list, tuple, np.ndarray)) else float(value)


# -- workloads: one row per operation, host work after them


def workload_rows(net: Workload | Op) -> list[Row]:
    """One dict per operation: name, repeats, the positions that it reads, its fields, and its origin; host work last."""
    net = Workload.from_ops([net]) if isinstance(net, Op) else net
    if np.ndim(net.ops.m) != 1:
        raise KPUError("only one workload can be converted, not a stack of them")
    repeats = net.repeats or (1,) * len(net)
    rows: list[Row] = []
    for i, row in enumerate(net.row_of):
        fields = {name: plain(getattr(net.ops, name)[row]) for name in FIELDS if name != "count"}
        before = [int(p) for p in np.asarray(net.predecessors)[i] if p >= 0]
        origin = dataclasses.asdict(net.origins[i]) if net.origins else None
        rows.append({"name": net.names[i], "repeats": plain(repeats[i]), "reads": before, "origin": _listed(origin), **fields})
    for work in net.host_work:
        own = {**dataclasses.asdict(work), "origin": None}
        origin = _listed(dataclasses.asdict(work.origin))
        rows.append({"name": work.name, "repeats": plain(work.repeats), "reads": [], "origin": origin, "host": _listed(own)})
    return rows


def workload_from_rows(rows: Sequence[Row]) -> Workload:
    """The workload of `workload_rows`, checked. Raises `KPUError` for fields that no operation can have."""
    nodes: list[Node] = []
    host: list[HostWork] = []
    known = any(row.get("origin") for row in rows if not row.get("host"))
    for position, row in enumerate(rows):
        origin = _origin(row.get("origin"))
        if row.get("host"):
            own = row["host"]
            host.append(HostWork(own["name"], own["function"], own["reason"], own["repeats"], origin, tuple(own["readers"])))
            continue
        missing = [f for f in FIELDS if f != "count" and row.get(f) is None]
        if missing:
            raise KPUError(f"operation {position} lacks {', '.join(missing)}")
        op = build(Op, **{f: leaf(row[f]) for f in FIELDS if f != "count"}, count=np.float64(1))
        check_op(op)
        before = tuple(int(p) for p in row["reads"])
        if any(not 0 <= p < position for p in before):
            raise KPUError(f"operation {position} reads {before}, which are not all earlier operations")
        repeats = float(row["repeats"])
        nodes.append(Node(str(row["name"]), op, before, int(repeats) if repeats.is_integer() else repeats, origin))
    net = Workload.from_graph(nodes, host)
    return net if known else dataclasses.replace(net, origins=())


def _listed(value: Any) -> Any:
    """Tuples as lists, so that a dict equals what JSON gives back."""
    if isinstance(value, dict):
        return {k: _listed(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _listed(value._asdict())
    return [_listed(v) for v in value] if isinstance(value, (list, tuple)) else value


def _origin(given: Any) -> Origin:
    if not given:
        return Origin()
    return Origin(
        source=given["source"],
        scope=given["scope"],
        primitives=tuple(given["primitives"]),
        loops=tuple(given["loops"]),
        reads=tuple(_tensor(t) for t in given["reads"]),
        writes=tuple(_tensor(t) for t in given["writes"]),
        meets_itself=tuple(given.get("meets_itself", ())),
        zero_macs=float(given["zero_macs"]),
    )


def _tensor(given: Mapping[str, Any]) -> Tensor:
    own = {name: tuple(int(i) for i in given[name]) for name in ("shape", "producers", "host")}
    return Tensor(**{**given, **own})


# -- mappings and reports


def mapping_rows(mapping: Schedule) -> list[Row]:
    """The constructor's arguments of every mapping of a stack [row], or of the one."""
    shape = np.shape(mapping.dataflow)
    if len(shape) > 1:
        raise KPUError(f"mappings stacked to shape {shape} cannot be converted; give one, or one per row")
    each = [mapping] if not shape else [jax.tree.map(lambda v, i=i: v[i], mapping) for i in range(shape[0])]
    return [_listed(m.describe()) for m in each]


def mapping_from_rows(rows: Sequence[Row], stacked: bool) -> Schedule:
    """One mapping, or with `stacked` one with leaves [row]."""
    arguments: list[dict[str, Any]] = [{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
    each = [Schedule(**given) for given in arguments]
    if not each:
        raise KPUError("holds no mapping")
    return jax.tree.map(lambda *v: np.stack(v), *each) if stacked else each[0]


def report_dict(report: Report) -> dict[str, Any]:
    """The fields of a report; `per_op` is one again, or None."""
    values: dict[str, Any] = {}
    for f in dataclasses.fields(Report):
        value = getattr(report, f.name)
        values[f.name] = report_dict(value) if isinstance(value, Report) else None if value is None else jax.tree.map(plain, value)
    return values


def report_from_dict(values: Mapping[str, Any]) -> Report:
    """The inverse of `report_dict`."""
    names = {f.name for f in dataclasses.fields(Report)}
    unknown, missing = sorted(set(values) - names), sorted(names - {"per_op"} - set(values))
    if unknown or missing:
        raise KPUError(f"unknown fields {unknown}, missing fields {missing}")
    for name in ("reads", "writes"):
        _check_keys(name, values[name], LEVELS)
        for level in LEVELS:
            _check_keys(f"{name}.{level}", values[name][level], OPERANDS)
    _check_keys("busy", values["busy"], ENGINES)
    per_op = values.get("per_op")
    fields = {k: _nested(v) for k, v in values.items() if k != "per_op"}
    return build(Report, **fields, per_op=None if per_op is None else report_from_dict(per_op))


def _check_keys(name: str, given: Any, keys: Sequence[str]) -> None:
    if not isinstance(given, Mapping) or set(given) != set(keys):
        raise KPUError(f"{name} must hold {', '.join(keys)}, got {shown(given)}")


def _nested(value: Any) -> Any:
    return {k: _nested(v) for k, v in value.items()} if isinstance(value, Mapping) else leaf(value)


# -- tables


def table_rows(value: Any) -> list[Row]:
    """The rows of a sweep's result (`analysis.sweep_table`), or plain rows, with Python numbers."""
    rows = sweep_table(value) if isinstance(value, SweepResult) else value
    return [{str(k): v.item() if isinstance(v, np.generic) else v for k, v in row.items()} for row in rows]


_WRITE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "workload": lambda v: {"operations": workload_rows(v)},
    "config": lambda v: {"fields": config_to_dict(v)},
    "mapping": lambda v: {"stacked": bool(np.shape(v.dataflow)), "mappings": mapping_rows(v)},
    "report": lambda v: {"fields": report_dict(v)},
    "table": lambda v: {"rows": [{k: _number(x) if isinstance(x, float) else x for k, x in row.items()} for row in table_rows(v)]},
}
_READ: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "workload": lambda d: workload_from_rows(d["operations"]),
    "config": lambda d: config_from_dict(d["fields"]),
    "mapping": lambda d: mapping_from_rows(d["mappings"], d["stacked"]),
    "report": lambda d: report_from_dict(d["fields"]),
    "table": lambda d: [{k: float(v) if v in _NO_WORD else v for k, v in row.items()} for row in d["rows"]],
}
