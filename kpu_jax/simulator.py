"""`simulate` and the `Simulator` facade: host values in, a report of NumPy float64 out."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kpu_jax.base.compilation import ONCE, jit_for
from kpu_jax.base.errors import KPUError, check_choice, check_number
from kpu_jax.base.pytree import is_traced
from kpu_jax.explore.mapping_search import best_mapping
from kpu_jax.hardware import KPUConfig, check_config, preset
from kpu_jax.hardware.fields import FIELDS
from kpu_jax.mapping import Mapping, check_mapping
from kpu_jax.model.batch import exact_cycles_of
from kpu_jax.model.evaluate import evaluate, evaluate_table
from kpu_jax.model.report import Report, to_host
from kpu_jax.workload import Op, Workload, check_workload
from kpu_jax.workload.padding import pad_rows

TIMINGS = ("exact", "bound")
GIB, MIB = 1 << 30, 1 << 20


@jit_for(ONCE)
def _one(cfg: Any, op: Any, mapping: Any, cycles: Any) -> Report:
    return evaluate(cfg, op, mapping, exact=False, cycles=cycles)


@jit_for(ONCE)
def _many(cfg: Any, ops: Any, mappings: Any, cycles: Any) -> Report:
    return evaluate_table(cfg, ops, mappings, exact=False, cycles=cycles)


def _report(cfg: Any, ops: Any, mappings: Any, exact: bool) -> Report:
    """The report of concrete arguments, a table of operations if their leaves have an axis, in float64."""
    single = np.ndim(ops.m) == 0
    rows = 1 if single else len(ops.m)
    run = _one if single else _many
    if not single:
        ops = pad_rows(ops)
        mappings = jax.tree.map(lambda v: np.concatenate([v, np.repeat(v[-1:], len(ops.m) - rows)]), mappings)
    times = np.full(np.shape(ops.m), np.nan)
    with jax.enable_x64(True):
        report = run(cfg, ops, mappings, times)
        if exact:
            codes = np.atleast_1d(np.asarray(report.status_code if single else report.per_op.status_code))
            timed = np.flatnonzero((codes == 0) & (np.atleast_1d(ops.count) > 0))
            lanes = jax.tree.map(lambda v: np.atleast_1d(v)[timed], (ops, mappings))
            cycles = exact_cycles_of(jax.tree.map(lambda v: np.full(len(timed), v), cfg), *lanes)
            np.atleast_1d(times)[timed] = cycles
            report = run(cfg, ops, mappings, np.full((), cycles[0]) if single and len(timed) else times)
        report = to_host(report)
    return report if single else report.first_rows(rows)


def simulate(cfg: KPUConfig, workload: Op | Workload, mapping: Mapping | None = None, *, timing: str = "exact") -> Report:
    """Run `workload` (an operation or a network) on chip `cfg` and report cycles, energy and traffic.

    `mapping`: for an operation one `Mapping`; for a `Workload` a stacked one with leaves [row] (or one for all
    rows). None takes `best_mapping`. `timing`: "exact" cycles, or the lower "bound" (cheap, differentiable in
    reverse mode at any size). A `Workload`'s operations run one after the other.

    With concrete values it computes in float64 and returns NumPy leaves; inside jit, vmap or grad it is pure
    and takes the ambient precision (pass a mapping then). An infeasible mapping gives infinite cycles and a
    `status` (`report.check()` raises). Raises `KPUError` for arguments of the wrong kind.
    """
    exact = check_choice("timing", timing, TIMINGS) == "exact"
    check_config(cfg)
    check_workload(workload)
    if mapping is not None:
        check_mapping(mapping)
    traced = is_traced(cfg, workload, mapping)
    if mapping is None:
        if traced:
            raise KPUError("simulate under jit, vmap or grad needs a mapping: find it outside with best_mapping")
        mapping = best_mapping(cfg, workload)
    if isinstance(workload, Workload):
        rows = workload.rows
        mapping = jax.tree.map(lambda v: _rows(v, rows), mapping)
        arguments: tuple[Any, Any, Any] = (cfg, workload.ops, mapping)
        pure: Any = evaluate_table
    else:
        arguments = (cfg, workload.plain(), mapping)
        pure = evaluate
    if traced:
        return pure(*arguments, exact=exact)
    alone = cfg if isinstance(workload, Workload) else arguments
    if any(np.ndim(leaf) for leaf in jax.tree.leaves(alone)):
        raise KPUError("simulate takes one chip, operation and mapping; use jax.vmap(kpu.simulate) over stacked ones")
    cfg, ops, mapping = canonical(arguments)
    return _report(cfg, ops, mapping, exact)


def canonical(tree: Any) -> Any:
    """Leaves as NumPy float64, so that no caller's number type traces anew."""
    return jax.tree.map(lambda v: np.asarray(v, np.float64), tree)


def _rows(leaf: Any, rows: int) -> Any:
    shape = np.shape(leaf)
    if shape == ():
        return leaf * np.ones(rows)
    if shape[0] != rows:
        raise KPUError(f"mapping: the workload has {rows} rows, the mapping {shape[0]}: give one mapping per row")
    return leaf


class Simulator:
    """A simulated KPU. `Simulator()` is edge_ai with 1 GiB of main memory and 1 MiB of scratchpad.

    Main memory is all external memory, scratchpad all of L3 [byte]; a given size overrides the chip's total.
    With `config` and None, the sizes are the chip's own.
    """

    def __init__(
        self, main_memory_size: int | None = None, scratchpad_size: int | None = None, *, config: KPUConfig | None = None
    ) -> None:
        if isinstance(main_memory_size, KPUConfig):
            raise KPUError("main_memory_size is a number of bytes; give a chip as Simulator(config=chip)")
        if config is None:
            config = preset("edge_ai")
            main_memory_size = GIB if main_memory_size is None else main_memory_size
            scratchpad_size = MIB if scratchpad_size is None else scratchpad_size
        check_config(config)
        if np.ndim(config.compute.tile_count):
            raise KPUError("config holds several stacked chips; a Simulator is one")
        changes: dict[str, float] = {}
        for name, size, path, unit, parts in (
            ("main_memory_size", main_memory_size, "external_memory.bank_capacity_mb", MIB, config.external_memory.bank_count),
            ("scratchpad_size", scratchpad_size, "on_chip_memory.l3.tile_capacity_kb", 1024, config.on_chip_memory.l3.tile_count),
        ):
            if size is not None:
                per_part = unit * float(parts)
                low, high = (FIELDS[path].low * per_part, FIELDS[path].high * per_part)
                total = check_number(name, size, "byte", low=np.ceil(low), high=np.floor(high), integer=True)
                changes[path] = total / per_part
        self.config = config.replace(changes) if changes else config
        self.report: Report | None = None

    def __repr__(self) -> str:
        done = "nothing run yet" if self.report is None else f"last run {float(self.report.cycles):,.0f} cycles"
        return f"Simulator({self.main_memory_size:,} bytes of main memory, {self.scratchpad_size:,} bytes of scratchpad; {done})"

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def main_memory_size(self) -> int:
        """All external memory [byte]."""
        m = self.config.external_memory
        return round(float(m.bank_count * m.bank_capacity_mb) * MIB)

    @property
    def scratchpad_size(self) -> int:
        """All of L3 [byte]."""
        m = self.config.on_chip_memory.l3
        return round(float(m.tile_count * m.tile_capacity_kb) * 1024)

    def run(self, workload: Op | Workload, mapping: Mapping | None = None, *, timing: str = "exact") -> Report:
        """Simulate `workload` on this chip (see `simulate`) and keep the report as `self.report`."""
        self.report = simulate(self.config, workload, mapping, timing=timing)
        return self.report


KPUSimulator = Simulator
