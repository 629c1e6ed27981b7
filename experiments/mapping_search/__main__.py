"""What is proven of the mapping of each distinct ResNet-50 layer on edge_ai: `python -m experiments.mapping_search`."""

import sys
import time

import kpu_jax as kpu


def main(objective: str = "edp") -> None:
    chip, network = kpu.presets.edge_ai(), kpu.networks.resnet50()
    kpu.search_mapping(chip, network.row(2), budget=0)  # compiles
    print("| layer | space | objective | before | gap | closed by | bounded | timed | s |\n|---|---|---|---|---|---|---|---|---|")
    for row in range(network.rows):
        op = network.row(row)
        start = time.perf_counter()
        _, _, c = kpu.search_mapping(chip, op, objective=objective)
        took = time.perf_counter() - start
        quick = kpu.simulate(chip, op, kpu.best_mapping(chip, op, objective=objective))
        before = {"latency": quick.seconds, "energy": quick.energy_pj * 1e-12, "edp": quick.edp}[objective]
        before /= float(op.count) ** (2 if objective == "edp" else 1)  # a report is of all repetitions
        values = (f"{c.space:.2e}", f"{c.value:.3e}", f"{before:.3e}", f"{c.gap:.1%}")
        cells = (*values, c.closed_by, f"{c.bounded:,}", f"{c.timed:,}", f"{took:.2f}")
        print(f"| {network.row_names[row]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
