"""The C++ simulator kpu-sim, reproduced by our executor: its list scheduler's makespans, busy cycles and bytes.

    python -m experiments.validation.kpu_sim [--csv FILE]
    python -m experiments.validation.kpu_sim --trace FILE [--trace FILE ...] [--dims M,N,K,Ti,Tj,Tk,systolic] [--cache | --no-cache]

FILE has the columns of tests/reference/data/kpu_sim_executor.csv, or of a trace_*.csv there (whose name, such as
trace_32x32x32_t16_s16_cache.csv, gives the sizes unless --dims does). Prints `rows N mismatches X` and the first
mismatches; the exit status is 1 if there are any, and 2 for a file that cannot be used.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments.validation import tables
from experiments.validation.kpu_sim_program import MOST, Setting, check_setting, first_queues, program_of
from kpu_jax.base.errors import KPUError, shown
from kpu_jax.program import Engine, Opcode, Operand, execute_durations

BUSY = {"dma_busy": Engine.DMA, "bm_busy": Engine.BLOCK_MOVER, "str_busy": Engine.STREAMER, "comp_busy": Engine.FABRIC}
RESULTS = ("n_instr", "dma_total_bytes", "bm_bytes", "makespan_cycles", *BUSY)
TRACE = ("instr_id", "opcode", "resource", "res_index", "start", "end", "matrix", "ti", "tj", "tk")
RESOURCES = {Engine.DMA: "DMA", Engine.BLOCK_MOVER: "BM", Engine.STREAMER: "STR", Engine.FABRIC: "COMP"}
NAME = re.compile(r"trace_(\d+)x(\d+)x(\d+)_t(\d+)(?:x(\d+)x(\d+))?_s(\d+)_(cache|nocache)")


def results(s: Setting) -> dict[str, int]:
    """What kpu-sim reports for a setting."""
    program, hold = program_of(s)
    timeline = execute_durations(program, hold)
    carried = {engine: int(program.bytes[program.engine == engine].sum()) for engine in (Engine.DMA, Engine.BLOCK_MOVER)}
    return {
        "n_instr": int(np.sum(program.opcode != Opcode.FABRIC_PASS)),
        "dma_total_bytes": carried[Engine.DMA],
        "bm_bytes": carried[Engine.BLOCK_MOVER],
        "makespan_cycles": int(timeline.makespan),
        **{name: int(timeline.busy[engine]) for name, engine in BUSY.items()},
    }


def trace(s: Setting) -> list[tuple[str, ...]]:
    """kpu-sim's trace of a setting: the columns `TRACE`."""
    program, hold = program_of(s)
    timeline = execute_durations(program, hold)
    numbers = np.cumsum(program.opcode != Opcode.FABRIC_PASS) - 1
    first = dict(zip(RESOURCES, first_queues(s), strict=False))
    rows = []
    for i, number in enumerate(numbers):
        opcode, engine = Opcode(program.opcode[i]), Engine(program.engine[i])
        name = Opcode.STR_FEED_ROWS.name if opcode == Opcode.FABRIC_PASS else opcode.name
        details: tuple = ("",) * 8
        if engine in RESOURCES:
            times = int(timeline.start[i]), int(timeline.end[i])
            index = int(program.queue[i] - first[engine])
            details = RESOURCES[engine], index, *times, Operand(program.operand[i]).name, *program.tile[i, 0].tolist()
        rows.append(tuple(map(str, (number, name, *details))))
    return rows


def settings_in(file: str) -> Iterator[tuple[int, Setting, dict[str, int]]]:
    """(line, setting, kpu-sim's results) of every row."""
    for line, cells in tables.read_table(file, (*Setting._fields, *RESULTS)):
        values = {name: tables.integer(file, line, name, cells[name], 1, high) for name, high in MOST.items()}
        setting = Setting(**values, tile_caching=tables.flag(file, line, "tile_caching", cells["tile_caching"]))
        check_setting(f"{file}, line {line}", setting)
        yield line, setting, {name: tables.integer(file, line, name, cells[name]) for name in RESULTS}


def check_table(file: str) -> int:
    """Compare every row of a table of results."""
    mismatches, count = [], 0
    for line, setting, expected in list(settings_in(file)):
        count += 1
        if text := tables.differences(expected, results(setting)):
            mismatches.append(f"line {line}: {text}; {setting}")
    return tables.report(count, mismatches)


def check_trace(file: str, setting: Setting) -> int:
    """Compare a trace row by row."""
    expected = [(line, tuple(cells[name] for name in TRACE)) for line, cells in tables.read_table(file, TRACE)]
    got = trace(setting)
    pairs = [(line, row, ours) for (line, row), ours in zip(expected, got, strict=False) if row != ours]
    mismatches = [f"line {line}: {','.join(ours)} instead of {','.join(row)}" for line, row, ours in pairs]
    if len(got) != len(expected):
        mismatches.append(f"{len(got)} rows instead of {len(expected)}")
    return tables.report(len(expected), mismatches)


def setting_of(file: str, dims: str | None, cache: bool | None) -> Setting:
    """The setting of a trace, from options or from its file's name."""
    if dims is not None:
        try:
            numbers = [int(word) for word in dims.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 7 or min(numbers) < 1:
            raise KPUError(f"--dims {shown(dims)}: write seven integers M,N,K,Ti,Tj,Tk,systolic of at least 1")
        return check_setting(f"--dims {dims}", Setting(*numbers, tile_caching=int(cache is not False)))
    found = NAME.search(Path(file).name)
    if not found:
        raise KPUError(f"{file}: the name gives no sizes as trace_32x32x32_t16_s16_cache.csv does: say --dims M,N,K,Ti,Tj,Tk,systolic")
    *product, ti, tj, tk, side = (int(word or 0) for word in found.groups()[:-1])
    if 0 in (*product, ti, side):
        raise KPUError(f"{file}: the sizes in the name must be at least 1")
    caching = found[8] == "cache" if cache is None else cache
    return check_setting(file, Setting(*product, ti, tj or ti, tk or ti, side, tile_caching=int(caching)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = tables.parser("kpu_sim", __doc__)
    parser.add_argument("--csv", metavar="FILE")
    parser.add_argument("--trace", metavar="FILE", action="append", default=[])
    parser.add_argument("--dims", metavar="M,N,K,Ti,Tj,Tk,systolic")
    parser.add_argument("--cache", action=argparse.BooleanOptionalAction)

    def check(args: argparse.Namespace) -> int:
        status = [check_trace(file, setting_of(file, args.dims, args.cache)) for file in args.trace]
        if args.csv is not None or not args.trace:
            status.append(check_table(args.csv if args.csv is not None else str(tables.DATA / "kpu_sim_executor.csv")))
        return max(status)

    return tables.run(check, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
