"""`simulate` and the `Simulator` facade: host values in, a report of NumPy float64 and arrays out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kpu_jax.base.errors import ClosedError, KPUError, check_choice, check_number
from kpu_jax.base.pytree import is_traced, replace_path
from kpu_jax.execution import machine_product, on_machine
from kpu_jax.execution.arguments import split
from kpu_jax.explore.mapping_search import best_mapping
from kpu_jax.explore.quick_mapping import quick_mapping
from kpu_jax.frontends.trace import trace
from kpu_jax.graph import POLICIES, plan_network
from kpu_jax.hardware import KPUConfig, check_config, preset
from kpu_jax.hardware.fields import FIELDS
from kpu_jax.machine import memory
from kpu_jax.machine.formats import as_array, storage
from kpu_jax.machine.matmul import Formats, as_batches, check_options, formats_of, is_float, multiply, quantised, result_shape
from kpu_jax.machine.order import regions_of
from kpu_jax.machine.port import MemoryPort
from kpu_jax.mapping import Mapping, check_mapping
from kpu_jax.model.concrete import report_of
from kpu_jax.model.evaluate import evaluate, evaluate_table
from kpu_jax.model.report import Report
from kpu_jax.program.blocks import Blocks
from kpu_jax.program.build import checked, rate_of_chip
from kpu_jax.workload import Gemm, Op, Workload, check_workload

TIMINGS = ("exact", "bound")
GIB, MIB = 1 << 30, 1 << 20


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
    return report_of(cfg, ops, mapping, exact)


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

    Main memory is all external memory, scratchpad all of L3 [byte]; a given size overrides the chip's total. With
    `config` and None, the sizes are the chip's own. Memory costs nothing until it is written. After `close`, or the end
    of a `with` block, everything but the sizes and the last report raises `ClosedError`.
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
        self._mappings: dict[Op, Mapping] = {}
        self._closed = False
        self.reset()

    def reset(self) -> None:
        """Empty all memories and forget the last run."""
        self._check_open()
        self.memories = {name: MemoryPort(state, self._check_open) for name, state in memory.memories(self.config).items()}
        self._report: Report | None = None
        self._ran: tuple[Op, Mapping] | None = None

    def close(self) -> None:
        """Give all memory back."""
        self._closed = True
        self.memories = {}

    def __enter__(self) -> Simulator:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this Simulator is closed; make another with kpu.Simulator()")

    def __repr__(self) -> str:
        if self._report is not None:
            done = f"last run {float(self._report.cycles):,.0f} cycles"
        else:
            done = "nothing run yet" if self._ran is None else f"last run {self._ran[0]!r}"  # not timed for a mere repr
        state = "closed" if self._closed else done
        return f"Simulator({self.main_memory_size:,} bytes of main memory, {self.scratchpad_size:,} bytes of scratchpad; {state})"

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

    @property
    def main_memory(self) -> MemoryPort:
        """External memory: `read(address, size)`, `write(address, uint8 array)`."""
        self._check_open()
        return self.memories["external_memory"]

    @property
    def scratchpad(self) -> MemoryPort:
        """L3, all tiles in a row."""
        self._check_open()
        return self.memories["l3_tile"]

    @property
    def report(self) -> Report | None:
        """The report of the last `run` or `matmul`, None before the first; exact cycles are counted when it is asked for."""
        if self._report is None and self._ran is not None:
            self._report = simulate(self.config, *self._ran)
        return self._report

    def run(self, workload: Op | Workload, mapping: Mapping | None = None, *, timing: str = "exact", **policies: str) -> Report:
        """Simulate `workload` on this chip and keep the report as `self.report`.

        An operation, or a `Workload` with given mappings: `simulate`. A `Workload` alone runs as a graph and gives a
        `NetworkReport`: `kpu.plan_network`, whose `policies` are objective, fusion, attention and residency.
        Raises `KPUError` for policies it does not know, and for policies where there is nothing to plan.
        """
        self._check_open()
        for name, given in policies.items():
            check_choice(f"{name} of run", given, POLICIES[check_choice("a policy of run", name, POLICIES)])
        if isinstance(workload, Workload) and mapping is None:
            self._report = plan_network(self.config, workload, timing=timing, **policies)
        elif policies:
            raise KPUError(f"run: {', '.join(policies)} are for a Workload without a mapping; leave them out, or the mapping")
        else:
            self._report = simulate(self.config, workload, mapping, timing=timing)
        return self._report

    def dma_transfer(
        self,
        source: int,
        target: int,
        size: int,
        *,
        rows: int = 1,
        source_stride: int | None = None,
        target_stride: int | None = None,
    ) -> int:
        """Copy `rows` runs of `size` bytes between addresses of the machine's map (`sim.scratchpad.base` + offset).

        Returns the bytes moved: so many are read at the source, and as many written at the target.

        Strides are the distances between runs [byte], the size itself by default. Raises `AddressError` for ranges that
        lie in no memory, leave theirs or overlap; then nothing is copied.
        """
        self._check_open()
        states = {name: port.state for name, port in self.memories.items()}
        (taken_from, at), (brought_to, to) = (memory.locate(states, address, size) for address in (source, target))
        strides = {"source_stride": source_stride, "target_stride": target_stride}
        moved = memory.transfer(states[taken_from], at, states[brought_to], to, size, rows=rows, **strides)
        self.memories[brought_to].state = moved
        return int(rows) * int(size)

    def matmul(
        self,
        A: Any,
        B: Any,
        *,
        bias: Any = None,
        activation: str = "none",
        dtype: Any = None,
        c_dtype: Any = None,
        acc_dtype: Any = None,
        a_scale: Any = None,
        b_scale: Any = None,
        c_scale: Any = None,
        mapping: Mapping | None = None,
    ) -> Any:
        """activation(A B + bias) on this chip: the numbers in the order in which the mapping's schedule adds them.

        A [..., m, k] and B [..., k, n] by NumPy's rules for matmul, in number formats of the KPU. NumPy in, NumPy out;
        jax in, jax out, and under jit, vmap and grad a pure, differentiable function (`machine.matmul`, which explains
        `dtype` to `c_scale`). Integers give int32 unless `c_dtype` says otherwise, floats their own format.

        `mapping`: None takes the sweep's strategy with the least bound on energy times delay; it is remembered per
        operation, and the first of a process compiles for seconds. Concrete operands are placed in main memory for the
        time of the product. Afterwards `report` tells cycles, energy and traffic of this very mapping.

        Raises `ShapeError`, `DtypeError`, `QuantisationError`, `MemoryFullError`, `InfeasibleError` (the mapping does
        not fit), `ClosedError`; memories and report are then as before.
        """
        self._check_open()
        a, b, addend = (as_array("A", A), as_array("B", B), None if bias is None else as_array("the bias", bias))  # type: Any, Any, Any
        shape = result_shape(a.shape, b.shape)
        formats = formats_of(a, b, dtype, c_dtype, acc_dtype)
        check_options(a, b, addend, activation, a_scale, b_scale, c_scale)
        in_jax = any(isinstance(x, jax.Array) for x in (a, b, addend))
        traced = is_traced(a, b, addend, a_scale, b_scale, c_scale)
        a, b = as_batches(a, b)
        op = _gemm(a, b, formats, addend is not None, activation)
        mapping = self._mapping_of(op, mapping)
        array = self.config.compute.processor_array
        with jax.ensure_compile_time_eval():
            rate = int(rate_of_chip(self.config, op))
        bounds, orders = regions_of(op, Blocks(op, mapping, rows=int(array.rows), cols=int(array.cols), macs_per_pe=rate))

        multiplied = functools.partial(multiply, orders=orders, formats=formats, bounds=bounds, activation=activation)
        scale = None
        if is_float(a, b):
            a, b, addend, scale = quantised(a, b, addend, a_scale, b_scale, formats=formats)
        if traced:
            c = multiplied(a, b, addend, scale, c_scale)
        else:
            c = self._in_memory((a, b, addend), formats, lambda *stored: multiplied(*stored, scale, c_scale))
            op = replace_path(op, "zero_gating", _switching(np.asarray(a), np.asarray(b)))
        self._report, self._ran = None, (op, mapping)
        c = c.reshape(shape)
        return c if in_jax or traced else np.array(c)  # the caller's own, to write on

    def execute(
        self, fn: Callable[..., Any], *, dtype: Any = None, acc_dtype: Any = None, **reading: Any
    ) -> Callable[..., tuple[Any, Report]]:
        """`value, report = sim.execute(fn)(*args)`: `fn(*args)` with every product and convolution computed by the machine.

        `dtype`: the format that floats are quantised to, scaled by the largest magnitude of each operand (None: each
        array's own); C comes back in the function's type. Everything else is computed by JAX, and so are products of types
        that the KPU does not have. K is summed in ascending order in one chain, as output-stationary.

        Leaves of the arguments that are no arrays are handed on as they are. The report is that of
        `kpu.trace(fn, dtype=dtype, **reading)(*args)` on this chip under the best mappings. Differentiable, and goes under
        jit and vmap (`machine.matmul`); derivatives of quantised products are straight-through.
        An ONNX model too: `sim.execute(kpu.onnx_function(path))({"x": array})`.
        Raises `DtypeError` for unknown formats, `KPUError` for what cannot be traced, `ClosedError`.
        """
        self._check_open()
        product, traced = machine_product(dtype, acc_dtype), trace(fn, dtype=dtype, **reading)
        compiled = jax.jit(lambda arrays, others: on_machine(others.with_arrays(fn), product)(arrays), static_argnums=1)
        x64 = getattr(fn, "needs_x64", False)

        def run(*args: Any, **kwargs: Any) -> tuple[Any, Report]:
            self._check_open()
            with jax.enable_x64(True) if x64 else contextlib.nullcontext():
                with jax.ensure_compile_time_eval():
                    report = simulate(self.config, traced(*args, **kwargs))
                value = compiled(*split(args, kwargs))
            self._report, self._ran = report, None
            return value, report

        return run

    def _mapping_of(self, op: Op, mapping: Mapping | None) -> Mapping:
        """The given mapping, if it fits, or the one that was found for this operation."""
        if mapping is not None:
            with jax.ensure_compile_time_eval():
                return checked(self.config, op, mapping)[2]
        if op not in self._mappings:
            self._mappings[op] = quick_mapping(self.config, op)
        return self._mappings[op]

    def _in_memory(self, operands: tuple[Any, Any, Any], formats: Formats, compute: Any) -> jax.Array:
        """C, computed of operands that lie in main memory, with room for it there; then the memory is given back."""
        port = self.main_memory
        state, stored = port.state, []  # type: Any, list[np.ndarray | None]
        for x, fmt in zip(operands, (formats.a, formats.b, formats.how.accumulator), strict=True):
            if x is None:
                stored.append(None)
                continue
            values = np.asarray(x).astype(storage(fmt), copy=False)
            state, address = memory.allocate(state, memory.array_bytes(values.shape, fmt))
            state = memory.write_array(state, address, values, fmt)
            stored.append(memory.read_array(state, address, values.shape, fmt))
        c = compute(*stored)
        state, address = memory.allocate(state, memory.array_bytes(c.shape, formats.c))
        port.state = dataclasses.replace(port.state, high_water=state.high_water)
        return c


def _gemm(a: Any, b: Any, formats: Formats, has_bias: bool, activation: str) -> Op:
    """The operation of a product of [batch, m, k] and [batch, k, n]."""
    return Gemm(
        a.shape[1],
        b.shape[2],
        a.shape[2],
        batch=a.shape[0],
        a_dtype=formats.a,
        b_dtype=formats.b,
        c_dtype=formats.c,
        acc_dtype=formats.how.accumulator,
        bias=has_bias,
        activation=activation,
    ).plain()


def _switching(a: np.ndarray, b: np.ndarray) -> float:
    """Fraction of the multiply-adds of A [batch, m, k] and B [batch, k, n] whose operands are both other than zero."""
    pairs = np.count_nonzero(a, axis=1) * np.count_nonzero(b, axis=2)
    return max(float(pairs.sum()) / (a.shape[1] * b.shape[2] * a.shape[2] * a.shape[0]), float(np.finfo(np.float64).tiny))


KPUSimulator = Simulator
