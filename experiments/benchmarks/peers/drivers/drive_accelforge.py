"""AccelForge 1.0.467: external memory, L3 and L2 that keep all operands, and an array without memories of its own.

The array shares its operands for nothing, so L2 costs nothing: what counts is external memory, L3 and the multiply-adds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from protocol import Answer, serve, timed

MEMORY = """  - !Memory
    name: {name}
    size: {bits}
    leak_power: 0
    area: 0
    tensors: {{keep: All}}
    actions:
    - {{name: read, energy: {pj}, throughput: inf, bits_per_action: 8}}
    - {{name: write, energy: {pj}, throughput: inf, bits_per_action: 8}}
"""
ARRAY = """  - !Container
    name: PE
    spatial:
    - {{name: rows, fanout: {rows}}}
    - {{name: cols, fanout: {cols}}}
  - !Compute
    name: MAC
    leak_power: 0
    area: 0
    actions:
    - {{name: compute, energy: {mac_pj}, throughput: 1e9}}
"""
WORKLOAD = """workload:
  iteration_space_shape:
    m: 0 <= m < {m}
    n: 0 <= n < {n}
    k: 0 <= k < {k}
  bits_per_value: {{All: 8}}
  einsums:
  - name: G
    tensor_accesses:
    - {{name: A, projection: [m, k]}}
    - {{name: B, projection: [k, n]}}
    - {{name: C, projection: [m, n], output: True}}
    renames: {{weight: B, input: A, output: C}}
"""


def architecture(chip: Answer) -> str:
    memories = (("dram", "inf", chip["dram_pj"]), ("l3", 8 * chip["l3_bytes"], chip["l3_pj"]), ("l2", 8 * chip["l2_bytes"], 0))
    return "arch:\n  nodes:\n" + "".join(MEMORY.format(name=n, bits=b, pj=pj) for n, b, pj in memories) + ARRAY.format(**chip)


def fixed_mapping(chip: Answer) -> str:
    """The product whole in L3, blocks of one pass with all of K in L2."""
    lines = ["mapping:", "  nodes:"]
    rows, cols = chip["rows"], chip["cols"]
    for level in ("dram", "l3"):
        lines += ["  - !Storage", "    tensors: [A, B, C]", f"    component: {level}"]
    for rank, tile in (("m", rows), ("n", cols)):
        lines += ["  - !Temporal", f"    rank_variable: {rank}", f"    tile_shape: {tile}"]
    lines += ["  - !Storage", "    tensors: [A, B, C]", "    component: l2", "  - !Temporal", "    rank_variable: k", "    tile_shape: 1"]
    for rank, name in (("m", "rows"), ("n", "cols")):
        lines += ["  - !Spatial", f"    rank_variable: {rank}", "    tile_shape: 1", f"    name: {name}", "    component: PE"]
    return "\n".join([*lines, "  - !Compute", "    einsum: G", "    component: MAC"]) + "\n"


def prepare() -> dict:
    import accelforge as af
    from accelforge.mapper.FFM import Metrics

    af.set_n_parallel_jobs(1)

    def spec(chip: Answer, gemm: list, fixed: bool) -> object:
        m, n, k = gemm
        with tempfile.TemporaryDirectory() as folder:
            where = Path(folder)
            texts = [architecture(chip), WORKLOAD.format(m=m, n=n, k=k), *([fixed_mapping(chip)] if fixed else [])]
            files = [where / f"{i}.yaml" for i in range(len(texts))]
            for file, text in zip(files, texts, strict=True):
                file.write_text(text)
            made = af.Spec.from_yaml(*map(str, files))
        made.mapper.metrics = Metrics.ENERGY
        return made

    def run(chip: Answer, gemm: list) -> object:
        return spec(chip, gemm, True).evaluate_mapping()  # type: ignore[attr-defined]

    def best(chip: Answer, gemm: list) -> object:
        return spec(chip, gemm, False).map_workload_to_arch(print_progress=False)  # type: ignore[attr-defined]

    def moved(found: object) -> dict:
        """Bytes read plus written at L3 and external memory, per operand."""
        traffic: dict = {"l3": dict.fromkeys("ABC", 0.0), "dram": dict.fromkeys("ABC", 0.0)}
        for (component, tensor, _), count in found.actions(per_component=True, per_tensor=True).items():  # type: ignore[attr-defined]
            if component in traffic:
                traffic[component][tensor] += float(count)
        return traffic

    def nest(found: object) -> str:
        """The loops and storage of a mapping, outermost first."""
        return " | ".join(node.compact_str() for node in found.mapping().nodes)  # type: ignore[attr-defined]

    def evaluate(job: Answer) -> Answer:
        found, spent = timed(lambda: run(job["chip"], job["gemm"]))
        return {"seconds": spent, "pj": float(found.energy())}

    def search(job: Answer) -> Answer:
        found, spent = timed(lambda: best(job["chip"], job["gemm"]))
        return {"seconds": spent, "pj": float(found.energy()), "traffic": moved(found), "mapping": nest(found)}

    def sweep(job: Answer) -> Answer:
        _, spent = timed(lambda: [run(chip, job["gemm"]) for chip in job["chips"]])
        return {"seconds": spent}

    def network(job: Answer) -> Answer:
        _, spent = timed(lambda: [best(job["chip"], gemm) for gemm in job["gemms"]])
        return {"seconds": spent}

    return {"evaluate": evaluate, "search": search, "sweep": sweep, "network": network}


if __name__ == "__main__":
    serve(prepare)
