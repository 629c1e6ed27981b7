"""How near the best schedules come to the I/O lower bound of matrix multiplication.

    python -m experiments.validation.io_bound [--csv FILE] [--gemm NAME] [--words MOST]

FILE has the columns of tests/reference/data/io_lower_bounds.csv: a GEMM, the words S of fast memory, a lower bound on the
words that cross to it (2MNK/sqrt(S) - 2S of Smith et al., arXiv:1702.02017, or each operand once), and the best schedule
of two memory levels. Here a chip whose L3, L2, L1, page buffers and registers hold S words together, nearly all of them
in L3, and the mapping with the least external traffic that is found. Checked: no schedule is below the bound, and the best
is at most 1.05 times the table's two-level schedule, which has all S words in one place. Prints `rows N mismatches X`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import kpu_jax as kpu
from experiments.validation import tables
from experiments.validation.least_energy import least_energy
from kpu_jax.analysis.bounds import fast_memory_bytes, io_lower_bound
from kpu_jax.base.errors import KPUError

WORD = 4  # bytes, of operands and partial sums alike
OVER = 1.05  # times the two-level schedule, at most
MOST = 4 << 20  # words
COLUMNS = ("gemm", "M", "N", "K", "S_words_fast_memory", "best_2level_schedule_words")


def chip(words: int) -> kpu.KPUConfig:
    """A chip whose fast memories hold just so many words, as many as possible of them in L3."""
    least = {
        "on_chip_memory": {"l3": {"tile_count": 1, "tile_capacity_kb": 1}, "l2": {"bank_count": 1, "bank_capacity_kb": 1}},
        "memory_controller": {"page_buffer_count": 1, "page_buffer_capacity_kb": 0.25},
        "compute": {"processor_array": {"rows": 2, "cols": 2}},
        "external_memory": {"bank_capacity_mb": 65536},
    }
    cfg = kpu.presets.minimal().replace({**least, "on_chip_memory.l1.buffer_capacity_kb": 0.0625})
    rest = fast_memory_bytes(cfg, kpu.Gemm(1, 1, 1, dtype="fp32").plain()) - 1024
    return cfg.replace({"on_chip_memory.l3.tile_capacity_kb": (words * WORD - float(rest)) / 1024})


def ratios(m: int, n: int, k: int, words: int) -> tuple[float, float, float]:
    """External words of the best schedule found, of the best of the stated set, and the lower bound."""
    cfg, gemm = chip(words), kpu.Gemm(m, n, k, dtype="fp32")
    found = least_energy(cfg, gemm, {"dram": 1.0})
    bound = max(float(io_lower_bound(cfg, gemm)), float(found.report.compulsory))
    return found.pj / WORD, found.stated_pj / WORD, bound / WORD


def check_table(file: str, gemm: str | None, most: int) -> int:
    """Compare the rows of a table that are asked for."""
    mismatches, compared = [], 0
    print(f"{'':<34}{'S [Ki]':>8}{'bound':>16}{'best':>16}{'/ bound':>9}{'two-level':>11}{'stated set':>12}")
    for line, cells in tables.read_table(file, COLUMNS):
        m, n, k, words, two_level = (tables.integer(file, line, name, cells[name], 1) for name in COLUMNS[1:])
        if words > most or gemm not in (None, cells["gemm"]):
            continue
        compared += 1
        best, stated, bound = ratios(m, n, k, words)
        print(
            f"{cells['gemm']:<34}{words // 1024:>8}{bound:>16,.0f}{best:>16,.0f}{best / bound:>9.3f}"
            f"{two_level / bound:>11.3f}{stated / bound:>12.3f}"
        )
        if best < bound * (1 - 1e-12):
            mismatches.append(f"{cells['gemm']}, S = {words}: {best:,.0f} words, below the bound of {bound:,.0f}")
        if best > OVER * two_level:
            mismatches.append(f"{cells['gemm']}, S = {words}: {best:,.0f} words, {best / two_level:.2f} times the two-level schedule")
    if gemm is not None and not compared:
        raise KPUError(f"{file}: no row with gemm = {gemm!r} and S of at most {most} words")
    return tables.report(compared, mismatches)


def main(argv: Sequence[str] | None = None) -> int:
    parser = tables.parser("io_bound", __doc__)
    parser.add_argument("--csv", metavar="FILE", default=str(tables.DATA / "io_lower_bounds.csv"))
    parser.add_argument("--gemm", metavar="NAME", help="only the rows of this GEMM")
    parser.add_argument("--words", metavar="MOST", type=int, default=MOST, help="only rows with S up to this [words]")
    return tables.run(lambda args: check_table(args.csv, args.gemm, args.words), parser, argv)


if __name__ == "__main__":
    sys.exit(main())
