"""The best mappings of ZigZag, AccelForge and kpu_jax on the same products, memories and energies.

    python -m experiments.validation.peers [--only zigzag accelforge] [--effort 5]

Each tool has external memory, an L3 and an L2 for all operands and an array of 16 x 16; one byte per element and partial
sum; 64 pJ per byte at external memory, 8 at L3, nothing below, 1 pJ per multiply-add. Each searches for its least energy:
ZigZag over the orders of `--effort` prime factors of the loops (LOMA), AccelForge over its whole space, kpu_jax by
`best_mapping`'s stated set and by a random search (`least_energy`). Printed: bytes read plus written at external memory and
L3 per operand, and the energy. What explains the differences is in the README.

Checked: we move no fewer external bytes than the operands once, and our least energy is at most 1.02 times that of the
best peer (of those that compute the whole product). Prints `rows N mismatches X`, exits with 1 if there are any. Peers get
environments of their own (build/peers).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import kpu_jax as kpu
from experiments.benchmarks.peers.chip import chip_of
from experiments.benchmarks.peers.environments import PEERS, Driver, Missing
from experiments.validation import tables
from experiments.validation.least_energy import least_energy

CHIP = {"rows": 16, "cols": 16, "l3_bytes": 256 << 10, "l2_bytes": 32 << 10, "dram_pj": 64, "l3_pj": 8, "mac_pj": 1}
GEMMS = {
    "BERT-base projection, 128 tokens": (128, 768, 768),
    "BERT-base feed-forward, 128 tokens": (128, 3072, 768),
    "512^3": (512, 512, 512),
    "ResNet-50 conv4 3x3 (im2col)": (196, 256, 2304),
    "ViT-B projection, 197 tokens": (197, 768, 768),
    "1000 classes, batch 1": (1, 1000, 2048),
}
OVER = 1.02
MAPPERS = ("zigzag", "accelforge")


def ours(gemm: tuple[int, int, int]) -> dict[str, Any]:
    """Our best mapping in the peers' terms."""
    op = kpu.Gemm(*gemm, dtype="int8", acc_dtype="int8")
    found = least_energy(chip_of(CHIP), op, {"dram": CHIP["dram_pj"], "l3": CHIP["l3_pj"]}, blocks=32, rounds=24)
    macs = CHIP["mac_pj"] * float(op.macs)
    traffic = {level: {x: float(found.report.traffic[level][x]) for x in "ABC"} for level in ("dram", "l3")}
    return {"pj": found.pj + macs, "stated_pj": found.stated_pj + macs, "traffic": traffic, "mapping": str(found.mapping)}


def line(name: str, found: dict[str, Any]) -> str:
    cells = "".join(f"{found['traffic'][level][x] / 1e3:>9,.1f}" for level in ("dram", "l3") for x in "ABC")
    return f"  {name:<12}{cells}{found['pj'] * 1e-6:>12.3f}"


def compare_mappings(args: argparse.Namespace) -> int:
    """Print the best mapping of every tool for every product, and check ours."""
    drivers: list[Driver] = []
    for peer in PEERS:
        if peer.name in args.only:
            try:
                drivers.append(Driver(peer))
            except Missing as reason:
                print(f"left out: {reason}")
    mismatches = []
    print(f"  {'':<12}{'external A':>9}{'B':>8}{'C':>9}{'L3 A':>9}{'B':>9}{'C [kB]':>9}{'energy [uJ]':>12}")
    chosen = {name: gemm for name, gemm in GEMMS.items() if args.gemm in (None, name)}
    for name, gemm in chosen.items():
        m, n, k = gemm
        found = {"kpu_jax": ours(gemm)}
        print(f"{name}: {m} x {n} x {k}; operands once {(m * k + k * n + m * n) / 1e3:,.1f} kB")
        print(line("kpu_jax", found["kpu_jax"]) + f"   (stated set {found['kpu_jax']['stated_pj'] * 1e-6:.3f})")
        for driver in drivers:
            try:
                found[driver.peer.name] = driver.ask("search", chip=CHIP, gemm=list(gemm), effort=args.effort)
            except Missing as trouble:
                print(f"  left out: {trouble}")
                continue
            print(line(driver.peer.name, found[driver.peer.name]), flush=True)
        if args.mappings:
            for tool, best in found.items():
                print(f"    {tool}: {best['mapping']}")
        short = {tool for tool, best in found.items() if sum(best["traffic"]["dram"].values()) < m * k + k * n + m * n}
        if "kpu_jax" in short:
            mismatches.append(f"{name}: fewer external bytes than the operands have")
        for tool in short - {"kpu_jax"}:
            print(f"  {tool} leaves a part of the product out: fewer external bytes than the operands have")
        if peers := [best["pj"] for tool, best in found.items() if tool not in {"kpu_jax", *short}]:
            over = found["kpu_jax"]["pj"] / min(peers)
            print(f"  ours / the best peer's: {over:.4f}")
            if over > OVER:
                mismatches.append(f"{name}: our least energy is {over:.3f} times the best peer's")
    for driver in drivers:
        driver.close()
    return tables.report(len(chosen), mismatches)


def main(argv: Sequence[str] | None = None) -> int:
    parser = tables.parser("peers", __doc__)
    parser.add_argument("--only", nargs="*", choices=MAPPERS, default=MAPPERS)
    parser.add_argument("--effort", type=int, default=5, help="prime factors of the loops that ZigZag permutes at most")
    parser.add_argument("--gemm", choices=GEMMS, help="this product alone")
    parser.add_argument("--mappings", action="store_true", help="print the mappings, too")
    return tables.run(compare_mappings, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
