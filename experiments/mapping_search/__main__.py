"""What is proven of the mapping of each distinct ResNet-50 layer on edge_ai: `python -m experiments.mapping_search`."""

import time

import kpu_jax as kpu


def main() -> None:
    chip, network = kpu.presets.edge_ai(), kpu.networks.resnet50()
    kpu.search_mapping(chip, network.row(0))  # compiles
    print("| layer | space | EDP [J s] | proven within | closed by | s |\n|---|---|---|---|---|---|")
    for row in range(network.rows):
        start = time.perf_counter()
        _, _, c = kpu.search_mapping(chip, network.row(row))
        took = time.perf_counter() - start
        print(f"| {network.row_names[row]} | {c.space:.2e} | {c.value:.3e} | {c.gap:.1%} | {c.closed_by} | {took:.2f} |", flush=True)


if __name__ == "__main__":
    main()
