"""ViT-base on arrays of 32 x 32, 64 x 64 and 128 x 128: do speed, energy and EDP follow SCALE-Sim v3's published trends?

    python -m experiments.validation.vit_arrays [--gbps 64]

Published (Raj et al., ISPASS 2025, arXiv:2504.15377): 128 x 128 is 6.53 times faster than 32 x 32; 32 x 32 is 2.86 times
more energy-efficient, by utilisation and leakage; 64 x 64 has the best EDP. Checked: the order of the speeds, and the
first ratio within a factor of 1.5. Energy and EDP are printed by their terms, not checked: the paper's energies per action
(Accelergy's) are not ours. Exits with 1 if a check fails.

Assumed, since the paper's abstract gives none: one weight-stationary array at 1 GHz whose passes fill and drain one after
the other (SCALE-Sim's folds), int8, 2 MiB of L3 and 1 MiB of L2 for every array, movers that never stall it; 22 nm with
LPDDR4. The encoder at batch 1, with patch embedding and head.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import kpu_jax as kpu
from experiments.validation import tables

SIDES = (32, 64, 128)
FASTER, THRIFTIER = 6.53, 2.86  # 128 over 32 in speed, 32 over 128 in energy
WITHIN = 1.5
TERMS = {
    "external": ("dram", "overfetch", "host"),
    "SRAM": ("l3", "l2", "l1"),
    "PEs": ("mac", "pe", "vector"),
    "clock": ("clock",),
    "leakage": ("leakage",),
}


def chip(side: int, gbps: float) -> kpu.KPUConfig:
    """One array of side x side PEs; everything else is the same for all of them."""
    return kpu.presets.minimal().replace(
        {
            "compute": {"processor_array": {"rows": side, "cols": side}, "fold_overlap": False},
            "precision.macs_8": 1,
            "on_chip_memory": {
                "l3": {"tile_count": 8, "tile_capacity_kb": 256},
                "l2": {"bank_count": 32, "bank_capacity_kb": 32},
                "l1": {"buffer_capacity_kb": 1},
            },
            "external_memory": {"bank_count": 1, "bandwidth_gbps": gbps},
            "memory_controller": {"page_buffer_count": 2, "page_buffer_capacity_kb": 16},
            "clocks": {"fabric_mhz": 1000, "dma_mhz": 1000, "block_mover_mhz": 1000, "streamer_mhz": 1000},
            "buses": {"dma_bytes": 256, "block_mover_bytes": 256, "streamer_bytes": 1024},
            "technology": kpu.technology(22, "LPDDR4"),
        }
    )


def run(side: int, gbps: float) -> kpu.Report:
    """ViT-base, each operation by its fastest mapping of the stated set."""
    cfg, net = chip(side, gbps), kpu.networks.vit_b16(embed_and_head=True)
    mappings = kpu.best_mapping(cfg, net, objective="latency", fixed={"dataflow": "weight_stationary"})
    return kpu.simulate(cfg, net, mappings).check()


def compare_arrays(args: argparse.Namespace) -> int:
    """Simulate every array side and check the published trends."""
    reports = {side: run(side, args.gbps) for side in SIDES}
    print(f"{'array':<12}{'ms':>8}{'array busy':>12}{'mJ':>8}{'EDP [uJ s]':>12}   of the energy")
    for side, r in reports.items():
        terms = {name: sum(float(r.energy[part]) for part in parts) / float(r.energy_pj) for name, parts in TERMS.items()}
        shares = ", ".join(f"{name} {share:.0%}" for name, share in terms.items())
        busy = float(r.busy["fabric"] / r.cycles)
        print(f"{f'{side} x {side}':<12}{r.seconds * 1e3:>8.2f}{busy:>12.0%}{r.energy_pj * 1e-9:>8.2f}{r.edp * 1e6:>12.1f}   {shares}")
    small, large = reports[SIDES[0]], reports[SIDES[-1]]
    faster, thriftier = float(small.seconds / large.seconds), float(large.energy_pj / small.energy_pj)
    best = min(reports, key=lambda side: reports[side].edp)
    print(f"128 x 128 over 32 x 32: {faster:.2f} times as fast (published {FASTER})")
    print(f"energy of 128 x 128 over 32 x 32: {thriftier:.2f} (published {THRIFTIER})")
    print(f"PE cycles, busy or idle, of 128 x 128 over 32 x 32: {(SIDES[-1] / SIDES[0]) ** 2 / faster:.2f}")
    print(f"best EDP: {best} x {best} (published 64 x 64)")
    mismatches = []
    if not reports[32].seconds > reports[64].seconds > reports[128].seconds:
        mismatches.append("the larger array is not the faster one")
    if not FASTER / WITHIN <= faster <= FASTER * WITHIN:
        mismatches.append(f"128 x 128 is {faster:.2f} times as fast as 32 x 32, not within {WITHIN} of {FASTER}")
    return tables.report(len(SIDES), mismatches)


def main(argv: Sequence[str] | None = None) -> int:
    parser = tables.parser("vit_arrays", __doc__)
    parser.add_argument("--gbps", type=float, default=64.0, help="external bandwidth [GB/s]")
    return tables.run(compare_arrays, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
