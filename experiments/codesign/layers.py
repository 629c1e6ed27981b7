"""The four networks of DOSA's evaluation, as tables of operations."""

from __future__ import annotations

import csv
from pathlib import Path

import kpu_jax as kpu

NETWORKS = ("resnet50", "bert", "unet", "retinanet")


def dosa_network(name: str) -> kpu.Workload:
    """One pass of the network's distinct layers, as the GEMMs of their im2col form, int8."""
    with (Path(__file__).parent / "dosa_layers.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["workload"] == name]
    ops = [
        (f"{i}:{r['name']}", kpu.Gemm(int(r["gemm_M"]), int(r["gemm_N"]), int(r["gemm_K"]), count=int(r["count"])))
        for i, r in enumerate(rows)
    ]
    return kpu.Workload.from_ops(ops)
