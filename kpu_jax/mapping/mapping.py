"""`Mapping`: one schedule of one GEMM or convolution, as a pytree of numbers."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import MAX_DIMENSION, KPUError, check_choice, is_number, shown
from kpu_jax.base.pytree import as_leaf, is_traced, record
from kpu_jax.base.tables import Sheet, Shown
from kpu_jax.base.validation import LeafRules, Limits, check_type

DATAFLOWS = ("output_stationary", "weight_stationary", "input_stationary")  # what stays in the PEs during a pass
ORDERS = ("mnk", "mkn", "nmk", "nkm", "kmn", "knm")  # outermost first
PASS_ORDERS = ("mn", "nm", "kn", "nk", "km", "mk")  # code // 2 is the dataflow that it belongs to
BUFFERINGS = ("single", "double")  # places of a block in a memory
_SHORT_FLOWS = {"os": DATAFLOWS[0], "ws": DATAFLOWS[1], "is": DATAFLOWS[2]}


@record
class Mapping(Shown):
    """Tiles, loop orders, dataflow, buffering and partition of one operation (`design.md`, section 1).

    Leaves are NumPy float64 codes and sizes [elements] on the host; under jit or vmap they may be tracers.
    `l3_*` and `l2_*` are the tile of the shared L3 and of one compute tile's L2; `partition_*` the number of
    compute tiles that share the batch, and the M, N, K of each L3 block. Orders are outermost first.
    """

    dataflow: Any
    l3_m: Any
    l3_n: Any
    l3_k: Any
    l2_m: Any
    l2_n: Any
    l2_k: Any
    l3_order: Any
    l2_order: Any
    pass_order: Any
    double_l3: Any
    double_l2: Any
    double_l1: Any
    partition_b: Any
    partition_m: Any
    partition_n: Any
    partition_k: Any

    def __init__(
        self,
        *,
        l3_tile: tuple[Any, Any, Any],
        l2_tile: tuple[Any, Any, Any],
        dataflow: str = "output_stationary",
        l3_order: str = "mnk",
        l2_order: str = "mnk",
        pass_order: str | None = None,
        buffering: tuple[str, str, str] = ("double", "double", "double"),
        partition: tuple[Any, Any, Any, Any] = (1, 1, 1, 1),
    ) -> None:
        """Check and encode a mapping; every size may also be a tracer, which is not checked.

        `l3_tile`, `l2_tile`: (m, n, k) in elements, edges are clipped. `pass_order` names the two dimensions
        that the array covers ("mn" output-, "kn" weight-, "km" input-stationary, either order).
        `buffering`: "single" or "double" at (L3, L2, L1). `partition`: compute tiles over (batch, m, n, k).
        Raises `KPUError` naming the field, the value and what is allowed.
        """
        flow = DATAFLOWS.index(check_choice("mapping.dataflow", dataflow, DATAFLOWS, _SHORT_FLOWS))
        legal = PASS_ORDERS[2 * flow : 2 * flow + 2]
        passes = legal[0] if pass_order is None else check_choice("mapping.pass_order", pass_order, PASS_ORDERS)
        if passes not in legal:
            raise KPUError(
                f"mapping.pass_order = {passes!r} does not fit {dataflow}, whose array covers "
                f"({', '.join(legal[0])}): use {legal[0]!r} or {legal[1]!r}"
            )
        sizes: dict[str, Any] = {}
        for level, tile in (("l3", l3_tile), ("l2", l2_tile)):
            for axis, size in zip("mnk", _parts(f"mapping.{level}_tile", tile, 3), strict=True):
                sizes[f"{level}_{axis}"] = _size(f"mapping.{level}_tile.{axis}", size, "elements")
        for axis, size in zip("bmnk", _parts("mapping.partition", partition, 4), strict=True):
            sizes[f"partition_{axis}"] = _size(f"mapping.partition.{axis}", size, "compute tiles")
        for level, kind in zip(("l3", "l2", "l1"), _parts("mapping.buffering", buffering, 3), strict=True):
            sizes[f"double_{level}"] = BUFFERINGS.index(check_choice(f"mapping.buffering.{level}", kind, BUFFERINGS))
        sizes["dataflow"] = flow
        sizes["l3_order"] = ORDERS.index(check_choice("mapping.l3_order", l3_order, ORDERS))
        sizes["l2_order"] = ORDERS.index(check_choice("mapping.l2_order", l2_order, ORDERS))
        sizes["pass_order"] = PASS_ORDERS.index(passes)
        for name, value in sizes.items():
            object.__setattr__(self, name, as_leaf(value))

    @property
    def l3_tile(self) -> tuple[Any, Any, Any]:
        """(m, n, k) of the L3 block [elements]."""
        return self.l3_m, self.l3_n, self.l3_k

    @property
    def l2_tile(self) -> tuple[Any, Any, Any]:
        """(m, n, k) of the L2 block [elements]."""
        return self.l2_m, self.l2_n, self.l2_k

    @property
    def partition(self) -> tuple[Any, Any, Any, Any]:
        """Compute tiles over (batch, m, n, k)."""
        return self.partition_b, self.partition_m, self.partition_n, self.partition_k

    def describe(self) -> dict[str, Any]:
        """The constructor's arguments that give this mapping back, with names for codes. Raises `KPUError` for traced and stacked ones."""
        if is_traced(self) or np.ndim(self.dataflow):
            raise KPUError("mapping.describe needs one concrete mapping, not a traced or stacked one")
        doubles = (self.double_l3, self.double_l2, self.double_l1)
        return {
            "dataflow": DATAFLOWS[int(self.dataflow)],
            "l3_tile": tuple(int(x) for x in self.l3_tile),
            "l2_tile": tuple(int(x) for x in self.l2_tile),
            "l3_order": ORDERS[int(self.l3_order)],
            "l2_order": ORDERS[int(self.l2_order)],
            "pass_order": PASS_ORDERS[int(self.pass_order)],
            "buffering": tuple(BUFFERINGS[int(d)] for d in doubles),
            "partition": tuple(int(x) for x in self.partition),
        }

    def __repr__(self) -> str:
        """The call that makes this mapping."""
        if not self._is_concrete() or np.ndim(self.dataflow):
            return f"Mapping(stacked or traced, leaves of shape {np.shape(self.dataflow)})"
        return "Mapping(" + ", ".join(f"{k}={v!r}" for k, v in self.describe().items()) + ")"

    def __str__(self) -> str:
        return self.sheet().text()

    def sheet(self) -> Sheet:
        """What prints: a line per level; of a stack [row], such as a network's, a line per mapping."""
        if not self._is_concrete() or np.ndim(self.dataflow) > 1:
            return Sheet(repr(self))
        if np.ndim(self.dataflow):
            each = [jax.tree.map(lambda v, i=i: v[i], self).describe() for i in range(len(self.dataflow))]
            return Sheet(f"{len(each):,} mappings", {"": [{"row": i, **words} for i, words in enumerate(each)]})
        own = self.describe()
        orders = (own["l3_order"], own["l2_order"], own["pass_order"])
        by_level = zip(("L3", "L2", "array"), orders, own["buffering"], strict=True)
        lines: list[dict[str, Any]] = [{"level": level, "order": order, "buffering": kind} for level, order, kind in by_level]
        lines.append({"level": "compute tiles", "batch": own["partition"][0]})
        sizes = (own["l3_tile"], own["l2_tile"], (None,) * 3, own["partition"][1:])
        lines = [{**line, **dict(zip("mnk", size, strict=True))} for line, size in zip(lines, sizes, strict=True)]
        title = f"Mapping, {own['dataflow'].replace('_', ' ')}: blocks [elements] by level, and the compute tiles that share them"
        columns = ("level", "m", "n", "k", "batch", "order", "buffering")
        return Sheet(title, {"": [{name: line.get(name) for name in columns} for line in lines]})

    def _is_concrete(self) -> bool:
        return not is_traced(self) and all(map(is_number, jax.tree.leaves(self)))


def _parts(field: str, value: Any, count: int) -> tuple[Any, ...]:
    """The entries of a tuple, list or array, in order; dictionaries and sets have none that counts."""
    ordered = isinstance(value, (tuple, list)) or (isinstance(value, (np.ndarray, jax.Array)) and np.ndim(value) == 1)
    if not ordered or len(value) != count:
        raise KPUError(f"{field} needs a tuple of {count} entries, got {shown(value)}")
    return tuple(value)


def _size(field: str, value: Any, unit: str) -> Any:
    return value if isinstance(value, jax.core.Tracer) else _whole(unit).check(field, value)


def _whole(unit: str) -> Limits:
    return Limits(unit, 1, MAX_DIMENSION, integer=True)


def _code(names: tuple[str, ...]) -> Limits:
    return Limits(f"code of {', '.join(names)}", high=len(names) - 1, integer=True)


_LIMITS: dict[str, Limits] = {
    "dataflow": _code(DATAFLOWS),
    **{f"{level}_{axis}": _whole("elements") for level in ("l3", "l2") for axis in "mnk"},
    "l3_order": _code(ORDERS),
    "l2_order": _code(ORDERS),
    "pass_order": _code(PASS_ORDERS),
    **{f"double_{level}": _code(BUFFERINGS) for level in ("l3", "l2", "l1")},
    **{f"partition_{axis}": _whole("compute tiles") for axis in "bmnk"},
}
_RULES = LeafRules(_LIMITS, lambda path, value: _LIMITS[path.removeprefix("mapping.")].check(path, value))


def check_mapping(mapping: Any) -> None:
    """Raise a `KPUError` unless `mapping` is a `Mapping` whose leaves, single or stacked, are sizes and known codes.

    For leaves that no constructor saw; traced ones are passed over. Whether it fits a chip is `legality`'s.
    """
    check_type("the mapping", mapping, Mapping, "build one with kpu.Mapping or kpu.best_mapping")
    _RULES(mapping, "mapping.")
