"""What do fusion, attention by row blocks and results that stay in L3 save a whole network?

    python -m experiments.network_on_chip [--objective edp|latency|energy] [--networks ...] [--chips ...]

Every network on every chip by `kpu.plan_network`: external traffic, time and energy before any policy and after each, by
exact time; then the throughput of the pipeline and the longest path by dependence. The vector work is in all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import kpu_jax as kpu
from kpu_jax.explore.limits import OBJECTIVES

LLAMA_BLOCK = kpu.networks.TransformerSpec(
    1, 4096, 32, 14336, kv_heads=8, gated=True, activation="silu", bias=False, norm="rmsnorm", rotary=True
)
NETWORKS: dict[str, Callable[[], kpu.Workload]] = {
    "ResNet-50": lambda: kpu.networks.resnet50(vector_ops=True),
    "BERT-base, 384 tokens": lambda: kpu.networks.bert_base(sequence=384, vector_ops=True),
    "Llama-3-8B block, 2048 tokens": lambda: kpu.networks.transformer(LLAMA_BLOCK, new_tokens=2048, vector_ops=True),
    "Llama-3-8B block, one token": lambda: kpu.networks.transformer(LLAMA_BLOCK, new_tokens=1, context=2048, vector_ops=True),
}
CHIPS = ("edge_ai", "datacenter")
HEADER = "| network | chip | after | external [MB] | time [ms] | energy [mJ] |\n|---|---|---|---|---|---|"


def rows(name: str, chip: str, report: kpu.NetworkReport) -> list[str]:
    """Lines of the table: totals before any policy, and after each that changed them."""
    lines, before = [], None
    for policy, t in report.savings.items():
        if t != before:
            lines.append(
                f"| {name} | {chip} | {policy} | {t.external_bytes / 1e6:,.2f} | {t.seconds * 1e3:,.3f} | {t.energy_pj * 1e-9:,.3f} |"
            )
        before = t
    return lines


def remarks(name: str, chip: str, report: kpu.NetworkReport) -> str:
    """What was done, the pipeline's throughput, and how much of the time lies on the longest path."""
    plan, path, pipeline = report.plan, report.critical_path, report.pipeline
    blocked = sum(a.chosen for a in plan.attention)
    return (
        f"{name} on {chip}: {len(plan.kept)} results stay in L3, {blocked} of {len(plan.attention)} attentions by row blocks; "
        f"{pipeline.throughput:,.1f} inputs/s in {len(pipeline.stages)} stages, {1 / report.seconds:,.1f} one after the other; "
        f"longest path {path.path_cycles / path.cycles:.0%} of the time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objective", choices=OBJECTIVES, default="edp")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--chips", nargs="+", default=list(CHIPS), help="presets")
    args = parser.parse_args()
    print(HEADER)
    told = []
    for name in args.networks:
        for chip in args.chips:
            report = kpu.plan_network(kpu.preset(chip), NETWORKS[name](), objective=args.objective)
            print("\n".join(rows(name, chip, report)), flush=True)
            told.append(remarks(name, chip, report))
    print("\n".join(["", *told]))


if __name__ == "__main__":
    main()
