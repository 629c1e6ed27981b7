"""ZigZag 3.9.1: external memory, L3 and L2 for all operands, and an array without memories of its own.

The array shares its operands for nothing, so L2 costs nothing: what counts is external memory, L3 and the multiply-adds.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from protocol import Answer, serve, timed

MEMORY = """  {name}:
    size: {bits}
    r_cost: {pj}
    w_cost: {pj}
    area: 0
    latency: 1
    auto_cost_extraction: False
    operands: [I1, I2, O]
    ports:
      - name: rw_port_1
        type: read_write
        bandwidth_min: {bits_per_cycle}
        bandwidth_max: {bits_per_cycle}
        allocation: [{uses}]
    served_dimensions: [D1, D2]
"""
USES = ", ".join(f'"{operand}, {use}"' for operand in ("I1", "I2") for use in ("fh", "tl"))
USES += ", " + ", ".join(f'"O, {use}"' for use in ("fh", "tl", "fl", "th"))
SPATIAL = """- name: default
  spatial_mapping:
    D1:
      - D0, {rows}
    D2:
      - D2, {cols}
{temporal}  memory_operand_links:
    O: O
    W: I2
    I: I1
"""


def hardware(chip: Answer) -> str:
    """Costs are per access of the port's width: one byte at L3 and external memory."""
    array = chip["rows"] * chip["cols"]
    memories = (("l2", chip["l2_bytes"], 0.0, 8 * array), ("l3", chip["l3_bytes"], chip["l3_pj"], 8), ("dram", 1 << 40, chip["dram_pj"], 8))
    return (
        "name: peer\nmemories:\n"
        + "".join(MEMORY.format(name=n, bits=8 * size, pj=pj, bits_per_cycle=width, uses=USES) for n, size, pj, width in memories)
        + f"operational_array:\n  input_precision: [8, 8]\n  unit_energy: {chip['mac_pj']}\n  unit_area: 1\n"
        + f"  dimensions: [D1, D2]\n  sizes: [{chip['rows']}, {chip['cols']}]\n"
    )


def workload(gemm: list) -> list:
    """C[d0,d2] = A[d0,d1] B[d1,d2], one byte per element and partial sum."""
    m, n, k = gemm
    return [
        {
            "id": 0,
            "operator_type": "Gemm",
            "equation": "O[d0][d2]+=I[d0][d1]*W[d1][d2]",
            "dimension_relations": [],
            "loop_dims": ["D0", "D1", "D2"],
            "loop_sizes": [m, k, n],
            "operand_precision": {"W": 8, "I": 8, "O": 8, "O_final": 8},
            "operand_source": {"I": 0, "W": 0},
        }
    ]


def fixed_order(chip: Answer, gemm: list) -> str:
    """Loops, innermost first: all of K, then the rows and the columns of passes."""
    m, n, k = gemm
    loops = [f"    - [D1, {k}]"] if k > 1 else []
    loops += [f"    - [{dim}, {size}]" for dim, size in (("D0", m // chip["rows"]), ("D2", n // chip["cols"])) if size > 1]
    return "  temporal_ordering:\n" + "\n".join(loops) + "\n"


def prepare() -> dict:
    from zigzag.api import get_hardware_performance_zigzag

    def run(chip: Answer, gemm: list, fixed: bool, lpf_limit: int) -> tuple[float, object]:
        logging.disable(logging.WARNING)
        with tempfile.TemporaryDirectory() as folder:
            where = Path(folder)
            (where / "chip.yaml").write_text(hardware(chip))
            temporal = fixed_order(chip, gemm) if fixed else ""
            (where / "mapping.yaml").write_text(SPATIAL.format(rows=chip["rows"], cols=chip["cols"], temporal=temporal))
            pj, _, found = get_hardware_performance_zigzag(
                workload=workload(gemm),
                accelerator=str(where / "chip.yaml"),
                mapping=str(where / "mapping.yaml"),
                opt="energy",
                dump_folder=str(where / "out"),
                pickle_filename=str(where / "out" / "all.pickle"),
                lpf_limit=lpf_limit,
                loma_show_progress_bar=False,
            )
        return float(pj), found[0][1][0][0]

    def moved(evaluation: object) -> dict:
        """Bytes read plus written at L3 and external memory, per operand."""
        names = {"I": "A", "W": "B", "O": "C"}
        traffic: dict = {"l3": {}, "dram": {}}
        for operand, levels in evaluation.memory_word_access.items():  # type: ignore[attr-defined]
            for level, access in zip(("l3", "dram"), levels[-2:], strict=True):
                traffic[level][names[str(operand)]] = float(sum(access.data.values()))
        return traffic

    def evaluate(job: Answer) -> Answer:
        (pj, _), spent = timed(lambda: run(job["chip"], job["gemm"], True, 6))
        return {"seconds": spent, "pj": pj}

    def search(job: Answer) -> Answer:
        (pj, best), spent = timed(lambda: run(job["chip"], job["gemm"], False, job.get("effort", 6)))
        return {"seconds": spent, "pj": pj, "traffic": moved(best), "mapping": str(best.temporal_mapping)}  # type: ignore[attr-defined]

    def sweep(job: Answer) -> Answer:
        _, spent = timed(lambda: [run(chip, job["gemm"], True, 6) for chip in job["chips"]])
        return {"seconds": spent}

    def network(job: Answer) -> Answer:
        _, spent = timed(lambda: [run(job["chip"], gemm, False, job.get("effort", 6)) for gemm in job["gemms"]])
        return {"seconds": spent}

    return {"evaluate": evaluate, "search": search, "sweep": sweep, "network": network}


if __name__ == "__main__":
    serve(prepare)
