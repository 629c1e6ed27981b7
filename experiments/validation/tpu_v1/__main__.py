"""Four applications on TPU v1, as it was measured and as simulated.

    python -m experiments.validation.tpu_v1 [--csv FILE]

FILE has the columns of tests/reference/data/tpu_v1.csv (Jouppi et al., ISCA 2017, tables 1 and 3). For each application:
measured <= simulated <= 1.18 x measured TOPS, and the largest part of the critical path is weight memory (`dma`) where the
paper has weight stalls as the largest part, the array where it has none. Prints `rows N mismatches X`, exits with 1
if there are any. The assumptions are in `apps.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import kpu_jax as kpu
from experiments.validation import tables
from experiments.validation.tpu_v1.apps import APPS, Layer, chip, mapping_of
from kpu_jax.base.errors import KPUError

ABOVE = 1.18  # times the measured rate, at most
COLUMNS = ("app", "array_active_pct", "weight_stall_pct", "measured_TOPS")


class Simulated(NamedTuple):
    """What an application reaches, and where its time goes."""

    tops: float  # weights of the next layer loaded meanwhile
    cold: float  # every layer starts with nothing loaded and ends before the next one starts
    parts: dict[str, float]  # fraction of the time by engine class on the critical path


def cycles(cfg: kpu.KPUConfig, layer: Layer, layers: int) -> float:
    """Exact time of `layers` layers alike of which each loads its weights while the one before computes."""
    op = layer.op(layers)
    return float(kpu.simulate(cfg, op, mapping_of(op)).check().cycles)


def simulate(cfg: kpu.KPUConfig, layers: Sequence[Layer]) -> Simulated:
    """An application: the layers of a kind one after the other, the first of each kind cold."""
    together, cold, macs = 0.0, 0.0, 0.0
    parts: dict[str, float] = {}
    for layer in layers:
        one = cycles(cfg, layer, 1)
        further = cycles(cfg, layer, 2) - one if layer.count > 1 else 0.0
        total = one + (layer.count - 1) * further
        together, cold = together + total, cold + layer.count * one
        op = layer.op(1)
        macs += layer.count * float(op.macs)
        for engine, share in kpu.critical_path(cfg, op, mapping_of(op)).items():
            parts[engine] = parts.get(engine, 0.0) + layer.count * float(share)
    rate = 2 * macs * float(cfg.clocks.fabric_mhz) * 1e-6
    return Simulated(rate / together, rate / cold, {engine: share / cold for engine, share in parts.items()})


def check_table(file: str) -> int:
    """Simulate every application of the table whose layers are known."""
    cfg, mismatches, compared = chip(), [], 0
    print(f"{'':<8}{'measured':>10}{'simulated':>11}{'ratio':>7}{'cold':>7}   critical path; the paper's weight stalls, array active")
    for line, cells in tables.read_table(file, COLUMNS):
        app = cells["app"]
        if app not in APPS:
            continue
        try:
            active, stall, measured = (float(cells[c]) for c in COLUMNS[1:])
        except ValueError:
            raise KPUError(f"{file}, line {line}: {', '.join(COLUMNS[1:])} must be numbers") from None
        compared += 1
        found = simulate(cfg, APPS[app])
        largest = max(found.parts, key=lambda engine: found.parts[engine])
        parts = ", ".join(f"{engine} {share:.0%}" for engine, share in found.parts.items() if share >= 0.005)
        print(
            f"{app:<8}{measured:>10.1f}{found.tops:>11.2f}{found.tops / measured:>7.2f}{found.cold:>7.2f}"
            f"   {parts}; {stall:g} %, {active:g} %"
        )
        if not measured <= found.tops <= ABOVE * measured:
            mismatches.append(f"{app}: {found.tops:.2f} TOPS, not within {measured:g} to {ABOVE * measured:.2f}")
        if (largest == "dma") != (stall > active):
            mismatches.append(f"{app}: most of the time is {largest}'s; the paper: weight stalls {stall:g} %, array active {active:g} %")
    return tables.report(compared, mismatches)


def main(argv: Sequence[str] | None = None) -> int:
    parser = tables.parser("tpu_v1", __doc__)
    parser.add_argument("--csv", metavar="FILE", default=str(tables.DATA / "tpu_v1.csv"))
    return tables.run(lambda args: check_table(args.csv), parser, argv)


if __name__ == "__main__":
    sys.exit(main())
