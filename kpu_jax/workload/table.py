"""A workload: many operations as one table of stacked leaves, identical layers merged into counted rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Int

from kpu_jax.base.errors import KPUError, check_number, nearest, shown
from kpu_jax.base.pytree import build
from kpu_jax.base.tables import Sheet, Shown
from kpu_jax.workload.op import FIELDS, VECTOR, Op, leaves
from kpu_jax.workload.origin import HostWork, Origin
from kpu_jax.workload.padding import pad_rows
from kpu_jax.workload.summary import workload_sheet
from kpu_jax.workload.validation import check_op

MAX_ROWS = 2**20  # operations of one workload: networks have thousands, and each is an object on the host


class Node(NamedTuple):
    """One operation of a graph: what `Workload.from_graph` takes."""

    name: str
    op: Op
    reads: tuple[int, ...]
    repeats: float = 1
    origin: Origin = Origin()


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Workload(Shown):
    """Operations in execution order, stored as distinct rows with counts.

    Made by `from_ops` or by a front end; the constructor itself does not check. Two lengths: `rows` distinct
    operations (the table, [row]) and `len(workload)` operations of the graph ([op]). Counts given to `from_ops` are
    expanded into operations; the loops of a traced program are not: their operations have `repeats` beyond 1 (a
    fraction for a branch taken now and then), which the rows' counts include. A pytree with children `ops` and
    `predecessors`; the rest is static and host-only, so hand `padded()`, not the workload, to a compiled function
    that is to serve several networks.
    """

    ops: Op  # leaves [row], `count` = instances of the row
    predecessors: Int[ArrayLike, "op max_pred"]  # instance indices whose results are read, -1 padded; int32
    names: tuple[str, ...]  # of every operation
    row_of: tuple[int, ...]  # row of every operation
    repeats: tuple[float, ...] = ()  # how often each operation runs; () for once each
    origins: tuple[Origin, ...] = ()  # of every operation, from a front end; () without
    host_work: tuple[HostWork, ...] = ()  # what the chip cannot do

    @classmethod
    def from_ops(cls, items: Iterable[Any]) -> Workload:
        """A workload from operations, or tuples (name, op) or (name, op, predecessors), in execution order.

        `predecessors` are names or positions of earlier items; left out, the item before; () for none. An op whose
        count is c stands for c instances in a chain, named name[0] .. name[c-1]. Instances equal in all leaves but
        the count share a row; ops with jax leaves keep rows of their own.

        Raises `KPUError` for no operations, items of other types, and predecessors that are not earlier.
        """
        if isinstance(items, (Op, str, np.ndarray, jax.Array)) or not isinstance(items, Iterable):
            raise KPUError(f"from_ops takes a list of operations such as [op] or [('name', op)], got {shown(items)}")
        names: list[str] = []
        instances: list[Op] = []
        sources: list[tuple[int, ...]] = []
        last: list[int] = []  # item -> its last instance
        by_name: dict[str, int] = {}
        for position, item in enumerate(items):
            name, op, given = _item(position, item)
            before = tuple(_source(name, p, last, by_name) for p in given) if given is not None else tuple(last[-1:])
            for repeat in range(count := _count(name, op)):
                names.append(name if count == 1 else f"{name}[{repeat}]")
                sources.append(before if repeat == 0 else (len(instances) - 1,))
                instances.append(op)
            if len(instances) > MAX_ROWS:
                raise KPUError(f"a workload holds at most {MAX_ROWS} operations, and {name!r} goes beyond; lower its count")
            last.append(len(instances) - 1)
            by_name[name] = len(instances) - 1
        return _assemble(names, instances, sources)

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Children `ops` and `predecessors`; names and row indices are static."""
        keys = jax.tree_util.GetAttrKey("ops"), jax.tree_util.GetAttrKey("predecessors")
        static = self.names, self.row_of, self.repeats, self.origins, self.host_work
        return ((keys[0], self.ops), (keys[1], self.predecessors)), static

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], children: Sequence[Any]) -> Workload:
        """Rebuild without checks."""
        ops, predecessors = children
        fields = dict(zip(("names", "row_of", "repeats", "origins", "host_work"), static, strict=True))
        return build(cls, ops=ops, predecessors=predecessors, **fields)

    @classmethod
    def from_graph(cls, nodes: Iterable[Node], host_work: Iterable[HostWork] = ()) -> Workload:
        """A workload from operations with everything that a front end knows of them, in execution order.

        `Node.reads` are positions of earlier nodes. Raises `KPUError` for no nodes.
        """
        listed = list(nodes)
        parts = [n.name for n in listed], [n.op for n in listed], [n.reads for n in listed], [n.repeats for n in listed]
        net = _assemble(*parts)
        return dataclasses.replace(net, origins=tuple(n.origin for n in listed), host_work=tuple(host_work))

    @property
    def rows(self) -> int:
        """Number of distinct operations."""
        return max(self.row_of) + 1

    @property
    def row_names(self) -> tuple[str, ...]:
        """The name of each row's first instance."""
        return tuple(self.names[self.row_of.index(row)] for row in range(self.rows))

    @property
    def macs(self) -> Int[np.ndarray, " op"]:
        """MACs of every operation, repeats included, int64 (fractional repeats are rounded).

        Host only: `KPUError` if the leaves are traced.
        """
        return self._times(self._concrete(self.ops.macs)[list(self.row_of)])

    @property
    def zero_macs(self) -> Int[np.ndarray, " op"]:
        """Of `macs`, those whose input is padding, or a zero that a stride put in (transposed convolutions). int64.

        A convolution's `macs` are those of the dense matrix product, as published tables count them; `macs -
        zero_macs` multiply data. Known for traced convolutions, 0 for operations made by hand.
        """
        return self._times(np.array([o.zero_macs for o in self.origins] or np.zeros(len(self))))

    def _times(self, each: np.ndarray) -> np.ndarray:
        """`each` [op] times the repeats, counted exactly."""
        if not self.repeats:
            return each.astype(np.int64)
        return np.array([round(int(x) * r) for x, r in zip(each, self.repeats, strict=True)], np.int64)

    @property
    def compute_rows(self) -> np.ndarray:
        """bool [row]: True for fabric work (gemm, conv), False for the vector engine's. Host only."""
        return self._concrete(self.ops.kind) != VECTOR

    def _concrete(self, leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.core.Tracer):
            raise KPUError("macs, compute_rows and gemm_work are host quantities; inside jit use workload.ops")
        return np.asarray(leaf)

    def row(self, index: int) -> Op:
        """Row `index` as a single `Op` (with its count); negative indices count from the end. Raises `KPUError` beyond."""
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or not -self.rows <= index < self.rows:
            raise KPUError(f"row {shown(index)} does not exist: the workload has {self.rows} rows, from 0")
        return jax.tree_util.tree_map(lambda x: x[index], self.ops)

    def padded(self, length: int) -> Op:
        """The table with leaves [length]: this workload's rows, then 1 x 1 x 1 GEMMs of count 0.

        Workloads padded alike share one compiled kernel. Raises `KPUError` if `length` is below `rows`.
        """
        size = int(check_number("length", length, "rows", low=1.0, high=float(MAX_ROWS), integer=True))
        if size < self.rows:
            raise KPUError(f"length = {size} [rows] is too small: the workload has {self.rows} rows")
        return pad_rows(self.ops, size)

    def gemm_work(self) -> Workload:
        """The fabric operations alone; a removed vector operation's consumers read its predecessors instead.

        Raises `KPUError` if nothing is left.
        """
        keep = self.compute_rows[list(self.row_of)]
        sources = self._sources()
        position: dict[int, int] = {}
        through: list[tuple[int, ...]] = []  # instance -> kept instances that its result stems from
        out_sources = []
        for i, before in enumerate(sources):
            reached = tuple(dict.fromkeys(k for j in before for k in through[j]))
            if keep[i]:
                position[i] = len(position)
                out_sources.append(tuple(position[k] for k in reached))
            through.append((i,) if keep[i] else reached)
        kept = list(position)
        single = self._singles()
        repeats = [self.repeats[i] for i in kept] if self.repeats else None
        return _assemble([self.names[i] for i in kept], [single[self.row_of[i]] for i in kept], out_sources, repeats)

    def __add__(self, other: Workload) -> Workload:
        """This workload, then the other (no dependence between them); identical rows merge, origins are left behind."""
        if not isinstance(other, Workload):
            return NotImplemented
        shift = len(self)
        mine, theirs = self._singles(), other._singles()
        instances = [mine[r] for r in self.row_of] + [theirs[r] for r in other.row_of]
        sources = [*self._sources(), *(tuple(p + shift for p in s) for s in other._sources())]
        repeats = [*(self.repeats or (1,) * shift), *(other.repeats or (1,) * len(other))]
        return _assemble([*self.names, *other.names], instances, sources, repeats)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, Op]]:
        """(name, op) of every operation, in execution order; the count is the operation's repeats."""
        single = self._singles()
        if not self.repeats:
            return ((name, single[r]) for name, r in zip(self.names, self.row_of, strict=True))
        each = zip(self.names, self.row_of, self.repeats, strict=True)
        return ((name, dataclasses.replace(single[r], count=np.float64(times))) for name, r, times in each)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Workload):
            return NotImplemented
        mine, theirs = ((w.names, w.row_of, w.ops, w.repeats, w.origins, w.host_work) for w in (self, other))
        return mine == theirs and np.array_equal(np.asarray(self.predecessors), np.asarray(other.predecessors))

    def __hash__(self) -> int:
        return hash((self.names, self.row_of, self.ops))

    def sheet(self) -> Sheet:
        """What prints: a line per row, and the work that the host does."""
        away = [f"on the host: {h.name} ({h.reason}), {h.repeats:g} times {h.bytes_to_host:,.0f} B there, "
                f"{h.bytes_from_host:,.0f} B back" for h in self.host_work]  # fmt: skip
        return workload_sheet(self.ops, self.names, self.row_of, away)

    def _singles(self) -> list[Op]:
        """One op of count 1 per row."""
        return [build(Op, **{**leaves(self.row(i)), "count": np.float64(1.0)}) for i in range(self.rows)]

    def _sources(self) -> list[tuple[int, ...]]:
        return [tuple(int(p) for p in row if p >= 0) for row in self._concrete(self.predecessors)]


def _item(position: int, item: Any) -> tuple[str, Op, Sequence[Any] | None]:
    if isinstance(item, Op):
        return f"op{position}", item, None
    if isinstance(item, (tuple, list)) and len(item) in (2, 3) and isinstance(item[0], str) and isinstance(item[1], Op):
        given = item[2] if len(item) == 3 else None
        several = isinstance(given, (tuple, list, set, frozenset, range)) or (isinstance(given, np.ndarray) and given.ndim == 1)
        return item[0], item[1], given if several or given is None else (given,)
    raise KPUError(f"item {position} of a workload must be an op, (name, op) or (name, op, predecessors), got {shown(item)}")


def _count(name: str, op: Op) -> int:
    if np.shape(op.m) or isinstance(op.count, jax.core.Tracer):
        raise KPUError(f"op {name!r} must be a single operation with a concrete count; stack tables with jax.vmap")
    return int(check_number(f"count of op {name!r}", op.count, "operations", low=1.0, high=float(MAX_ROWS), integer=True))


def _source(name: str, given: Any, last: list[int], by_name: dict[str, int]) -> int:
    if isinstance(given, str):
        if given not in by_name:
            raise KPUError(f"predecessor {shown(given)} of {name!r} is not an earlier operation: {nearest(given, by_name)}")
        return by_name[given]
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or not 0 <= given < len(last):
        raise KPUError(
            f"predecessor {shown(given)} of {name!r} must be a position from 0 to {len(last) - 1}, an earlier item"
        )
    return last[given]


def _assemble(
    names: list[str], instances: list[Op], sources: list[tuple[int, ...]], repeats: list[float] | None = None
) -> Workload:
    """Merge equal instances into rows (first occurrence first), count them, stack the leaves."""
    if not instances:
        raise KPUError("a workload needs at least one operation, got none")
    keys: dict[Any, int] = {}
    distinct: list[Op] = []
    row_of = []
    for op in instances:
        values = leaves(op)
        del values["count"]
        key = object() if _is_jax(*values.values()) else tuple(float(v) for v in values.values())
        if key not in keys:
            keys[key] = len(distinct)
            distinct.append(op)
        row_of.append(keys[key])
    stacked = {name: _stack([getattr(op, name) for op in distinct]) for name in FIELDS}
    stacked["count"] = np.bincount(row_of, repeats).astype(np.float64)
    widest = max(1, *map(len, sources))
    predecessors = np.full((len(instances), widest), -1, np.int32)
    for i, before in enumerate(sources):
        predecessors[i, : len(before)] = before
    several = tuple(repeats) if repeats and set(repeats) != {1} else ()
    return Workload(build(Op, **stacked), predecessors, tuple(names), tuple(row_of), several)


def _is_jax(*values: Any) -> bool:
    return any(isinstance(v, jax.Array) for v in values)


def _stack(values: list[Any]) -> Any:
    if not _is_jax(*values):
        return np.array(values, dtype=np.float64)
    dtype = jnp.result_type(*(v.dtype for v in values if _is_jax(v)))
    return jnp.stack([jnp.asarray(v, dtype) for v in values])


def check_workload(workload: Any) -> None:
    """Raise a `KPUError` unless this is a `Workload`, or an operation, that a constructor could have made (see `check_op`)."""
    if not isinstance(workload, (Workload, Op)):
        raise KPUError(
            f"workload must be a Gemm, Conv, VectorOp or Workload, got {type(workload).__name__} {shown(workload)}; "
            "a network is kpu.networks.resnet50() or kpu.network('resnet50')"
        )
    check_op(workload.ops if isinstance(workload, Workload) else workload)
