"""What is proven of the mapping of each distinct ResNet-50 layer on edge_ai: `python -m experiments.mapping_search`."""

import argparse
import time

import kpu_jax as kpu


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.mapping_search", description=__doc__)
    parser.add_argument("--objective", default="edp", choices=("edp", "latency", "energy"))
    parser.add_argument("--budget", type=int, default=6_000_000, help="sets of mappings bounded per layer, at most")
    args = parser.parse_args()
    chip, network = kpu.presets.edge_ai(), kpu.networks.resnet50()
    # Compiles the pricing and both loops of the exact timing.
    kpu.search_mapping(chip, kpu.Gemm(32, 32, 32), objective=args.objective)
    print(f"| layer | space | {args.objective} | of the stated set | gap | closed by | bounded | timed | s | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for row in range(network.rows):
        op = network.row(row)
        start, cpu = time.perf_counter(), time.process_time()
        _, _, c = kpu.search_mapping(chip, op, objective=args.objective, budget=args.budget)
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
        quick = kpu.simulate(chip, op, kpu.best_mapping(chip, op, objective=args.objective))
        before = {"latency": quick.seconds, "energy": quick.energy_pj * 1e-12, "edp": quick.edp}[args.objective]
        before /= float(op.count) ** (2 if args.objective == "edp" else 1)  # a report is of all repetitions
        values = (f"{c.space:.2e}", f"{c.value:.3e}", f"{before / c.value - 1:+.1%}", f"{c.gap:.2%}", c.closed_by)
        cells = (*values, f"{c.bounded:,}", f"{c.timed:,}", f"{took:.1f}", f"{cpu:.1f}")
        print(f"| {network.row_names[row]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
