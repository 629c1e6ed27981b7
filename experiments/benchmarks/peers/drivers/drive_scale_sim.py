"""SCALE-Sim 3.0.0: a product cycle by cycle on one output-stationary array. It has no mapping to search."""

from __future__ import annotations

import tempfile
from pathlib import Path

from protocol import Answer, serve, timed

CONFIG = """[general]
run_name = run
[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {cols}
IfmapSramSzkB: {kb}
FilterSramSzkB: {kb}
OfmapSramSzkB: {kb}
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 10
Dataflow: os
ReadRequestBuffer: 64
WriteRequestBuffer: 64
[layout]
IfmapCustomLayout: False
FilterCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def prepare() -> dict:
    from scalesim.scale_sim import scalesim

    def run(chip: Answer, gemms: list) -> list[int]:
        """Compute cycles of each product (its report counts from 0)."""
        with tempfile.TemporaryDirectory() as folder:
            where = Path(folder)
            kb = max(1, chip["l3_bytes"] // 3 // 1024)
            (where / "chip.cfg").write_text(CONFIG.format(rows=chip["rows"], cols=chip["cols"], kb=kb))
            lines = [f"g{i}, {m}, {n}, {k}," for i, (m, n, k) in enumerate(gemms)]
            (where / "work.csv").write_text("\n".join(["Layer, M, N, K,", *lines]) + "\n")
            (where / "layout.csv").write_text("\n".join(["Layer name", *(f"g{i}, " + "1, " * 20 for i in range(len(gemms)))]) + "\n")
            tool = scalesim(
                save_disk_space=True,
                verbose=False,
                config=str(where / "chip.cfg"),
                topology=str(where / "work.csv"),
                layout=str(where / "layout.csv"),
                input_type_gemm=True,
            )
            tool.run_scale(top_path=str(where))
            layers = tool.runner.single_layer_sim_object_list
            return [int(layer.get_compute_report_items()[1]) + 1 for layer in layers]

    def evaluate(job: Answer) -> Answer:
        cycles, spent = timed(lambda: run(job["chip"], [job["gemm"]]))
        return {"seconds": spent, "cycles": cycles[0]}

    def sweep(job: Answer) -> Answer:
        _, spent = timed(lambda: [run(chip, [job["gemm"]]) for chip in job["chips"]])
        return {"seconds": spent}

    def network(job: Answer) -> Answer:
        cycles, spent = timed(lambda: run(job["chip"], job["gemms"]))
        return {"seconds": spent, "cycles": cycles}

    return {"evaluate": evaluate, "sweep": sweep, "network": network}


if __name__ == "__main__":
    serve(prepare)
