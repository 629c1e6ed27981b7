"""Sweep chips for ResNet-50 and BERT-base under an area and a power budget; print the exact Pareto table."""

from __future__ import annotations

import argparse
import time

import kpu_jax as kpu

FIELDS = {
    ("compute.processor_array.rows", "compute.processor_array.cols"): [8, 16, 24, 32],
    "compute.tile_count": [1, 2, 4, 8, 16],
    "on_chip_memory.l3.tile_count": [1, 4, 16],
    "on_chip_memory.l2.bank_count": [8, 32, 128],
    "on_chip_memory.l1.buffer_capacity_kb": [0.5, 2],
    ("clocks.fabric_mhz", "clocks.block_mover_mhz", "clocks.streamer_mhz"): [500, 750, 1000, 1500],
    "data_movement.streamer_count": [4, 8, 16, 32, 64],
    "data_movement.block_mover_count": [1, 2, 4, 8, 16],
    ("external_memory.bandwidth_gbps", "clocks.dma_mhz", "memory_controller.bandwidth_gbps"): [
        [gbps, gbps * 2 * 1e3 / (2 * 64), 0] for gbps in (12.5, 25, 50, 100, 200)
    ],
    "latency.external_ns": [60, 100],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--area", type=float, default=60.0, help="area budget [mm^2]")
    parser.add_argument("--power", type=float, default=8.0, help="power budget [W]")
    parser.add_argument("--retime", type=int, default=16, help="chips to time exactly")
    args = parser.parse_args()
    space = kpu.Space(FIELDS)
    print(space)
    net = kpu.networks.resnet50() + kpu.networks.bert_base()
    start, seen = time.time(), 0

    def progress(count: int) -> None:
        nonlocal seen
        seen += count
        print(f"\r{seen:,} of {len(space):,} chips, {time.time() - start:.0f} s", end="", flush=True)

    limits = {"area_mm2": args.area, "power_w": args.power}
    result = kpu.sweep(space, net, constraints=limits, retime_chips=args.retime, progress=progress)
    s, r = result.summary, result.retimed
    print(f"\n{s.met:,} chips within the budget by the bound; {s.evaluations:,} evaluations; {len(s.front_ids)} on the bound's front")
    print(f"{'chip':>9} {'ms':>9} {'mJ':>9} {'EDP J s':>11} {'mm^2':>8} {'W':>7}   (exact; both networks once)")
    for i in sorted(range(len(r.ids)), key=lambda i: r.measure("edp")[i]):
        if r.on_front[i]:
            d, e = r.seconds[i], r.energy_pj[i] * 1e-12
            print(f"{r.ids[i]:>9} {d * 1e3:>9.3f} {e * 1e3:>9.3f} {d * e:>11.4g} {r.area_mm2[i]:>8.2f} {e / d:>7.3f}")
    for objective, certified in result.certified.items():
        row, value = r.best(objective)
        print(f"best {objective}: chip {r.ids[row]}, {value:.5g}; certified: {'yes' if certified else 'no'}")


main()
