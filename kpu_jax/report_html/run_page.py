"""The page of one run: a chip, a workload, and where time and energy go."""

from __future__ import annotations

from typing import Any

from kpu_jax.analysis import PerformanceAnalyzer, bounds, layer_table, roofline
from kpu_jax.analysis.performance_analyzer import CRITICAL
from kpu_jax.hardware import KPUConfig
from kpu_jax.mapping import Mapping
from kpu_jax.model.report import Report
from kpu_jax.program import build, execute
from kpu_jax.report_html.page import Page
from kpu_jax.workload import Workload

MOST_MACS_PER_PE = 200_000  # of an operation whose program is written out and drawn: seconds


def run_page(title: str, chip: KPUConfig, workload: Workload, mappings: Mapping, report: Report, command: str = "") -> Page:
    """The page of `report`, that of `workload` on `chip` under `mappings` (leaves [row]). `command` reproduces it.

    Summary, what binds each row, energy, traffic, roofline, the operations and their mappings, configuration. For a workload
    of one small operation also when each engine works. Raises `KPUError` for an infeasible report or one of another workload.
    """
    from kpu_jax.visualization import (
        plot_energy_breakdown,
        plot_graph,
        plot_memory_heatmap,
        plot_performance,
        plot_roofline,
        plot_timeline,
        svg_of,
    )

    found = PerformanceAnalyzer().analyze(report, chip=chip, workload=workload, mapping=mappings)
    rows = layer_table(workload, report, mappings)
    page = Page(title, f"{len(workload):,} operations in {workload.rows:,} distinct rows, {workload.macs.sum():,} multiply-adds")
    page.section("Summary").table(_summary(chip, workload, report))
    page.text(
        "Cycles are exact for these mappings (the same as walking the schedule block by block); energy and area are modelled, "
        "with the constants of the chip's technology. Mappings are the best of a stated set."
    )
    page.section("What would help").points(found.advice or ["Nothing stands out: the multipliers are busy, and little is moved twice."])
    page.section("Where the time goes").table(found.tables["where the cycles go"])
    page.text("What is on the critical path (the gradient of the exact time; the parts add up), and what twice as fast would give:")
    page.table(found.tables[CRITICAL])
    page.figure(svg_of(plot_performance(report, workload.row_names)), "Time of each row; fill: the engine class that it is bound by.")
    if (workload.compute_rows).any():
        roofs = svg_of(plot_roofline(roofline(chip, workload, report)))
        page.figure(roofs, "Operations under the roofs of the memory levels: how far each is from what its level allows.")
    small = workload.rows == 1 and _macs_per_pe(chip, workload) <= MOST_MACS_PER_PE
    if small:
        program = build(chip, workload.row(0), mapping_of(mappings, 0))
        timeline = execute(chip, program)
        page.figure(svg_of(plot_timeline(timeline)), "When each engine class works, and what it waits for.")
        page.figure(svg_of(plot_memory_heatmap(program, timeline)), "Bytes that each place of the memories holds over time.")
    page.section("Where the energy goes")
    page.figure(svg_of(plot_energy_breakdown(report)), "Energy by memory level and kind of action.")
    page.table(found.tables["traffic"])
    page.figure(svg_of(plot_memory_heatmap(report)), "Bytes read and written by memory level and operand.")
    page.section("Operations").text("The slowest next to what no schedule on this chip can beat:")
    page.table(found.tables["against the least possible"]).text("All of them, and their mappings:").table(rows)
    if len(workload) > 1:
        page.figure(svg_of(plot_graph(workload)), "Which operation reads which.")
    page.section("Configuration").pre(str(chip), "All fields of the chip").pre(str(chip.technology), "All constants of its technology")
    page.section("How to reproduce")
    page.pre(command) if command else page.text("This page was made by a program, not by a command.")
    return page


def mapping_of(mappings: Mapping, row: int) -> Mapping:
    """One row of stacked mappings."""
    import jax

    return jax.tree.map(lambda v: v[row], mappings)


def _macs_per_pe(chip: KPUConfig, workload: Workload) -> float:
    op, array = workload.row(0), chip.compute.processor_array
    if float(op.count) > 1:
        return float("inf")
    return float(op.macs) / float(chip.compute.tile_count * array.rows * array.cols)


def _summary(chip: KPUConfig, workload: Workload, report: Report) -> list[dict[str, Any]]:
    least = bounds(chip, workload, report)
    lines = [
        ("time", report.seconds * 1e3, "ms"),
        ("cycles", report.cycles, "fabric cycles"),
        ("... at least, for any schedule", least.least_cycles.sum(), "fabric cycles"),
        ("... at least, for this schedule", report.cycles_bound, "fabric cycles"),
        ("energy", report.energy_pj * 1e-9, "mJ"),
        ("energy x delay", report.edp, "J s"),
        ("mean power", report.power_w, "W"),
        ("utilization of the multipliers", 100 * report.utilization, "%"),
        ("external traffic", sum(report.traffic["dram"].values()), "byte"),
        ("... at least, for any schedule", least.least_bytes.sum(), "byte"),
        ("area of the chip", report.area_mm2, "mm²"),
        ("TDP of the chip, estimated", report.tdp_w, "W"),
    ]
    return [{"quantity": name, "value": float(value), "unit": unit} for name, value, unit in lines]
