"""SCALE-Sim's cycles and accesses, reproduced; wrong files give one clear error."""

from __future__ import annotations

import numpy as np
import pytest

import kpu_jax as kpu
from experiments.validation import scale_sim, tables
from kpu_jax.program import Engine, Opcode, build, execute

TABLE = tables.DATA / "scale_sim_cycles.csv"


def test_all_rows(capsys):
    assert scale_sim.main([]) == 0
    assert capsys.readouterr().out == "rows 70 mismatches 0\n"


@pytest.mark.parametrize("dataflow", scale_sim.DATAFLOWS)
def test_an_executed_program_holds_the_fabric_as_long(dataflow):
    m, n, k, rows, cols = 31, 40, 17, 8, 4
    expected = scale_sim.results(m, n, k, rows, cols, dataflow)
    memories = {"on_chip_memory.l3.tile_capacity_kb": 4096, "on_chip_memory.l2.bank_count": 1024}
    array = {"compute.processor_array": {"rows": rows, "cols": cols}, "compute.fold_overlap": False, "precision.macs_8": 1}
    cfg = kpu.presets.minimal().replace({**memories, **array})
    mapping = kpu.Mapping(dataflow=scale_sim.DATAFLOWS[dataflow], l3_tile=(m, n, k), l2_tile=(m, n, k))
    program = build(cfg, kpu.Gemm(m, n, k, dtype="int8"), mapping)
    assert np.sum(program.opcode == Opcode.FABRIC_PASS) == expected["folds"]
    assert execute(cfg, program).busy[Engine.FABRIC] == expected["total_cycles"]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (lambda text: text.replace(",1760,", ",1761,", 1), 1, "total_cycles 1760 instead of 1761"),
        (lambda text: text.replace(",is,", ",xs,", 1), 2, "dataflow = 'xs' is unknown"),
        (lambda text: text.replace("dataflow", "flow"), 2, "lacks the columns dataflow"),
        (lambda text: text.replace("64,64,64", "64,-1,64", 1), 2, "at least 1"),
        (lambda text: text.replace("64,64,64", "64,64,4294967296", 1), 2, "line 2, K = '4294967296': must be an integer"),
        (lambda text: text.replace("64,64,64", "2000000000,2000000,64", 1), 2, "line 2, M x N x K = 256,000,000,000,000,000"),
        (lambda text: text.replace("folds", "M", 1), 2, "the column M stands there twice"),
    ],
)
def test_differences_and_wrong_files(tmp_path, capsys, change, status, words):
    path = tmp_path / "table.csv"
    path.write_text(change("\n".join(TABLE.read_text().splitlines()[:4])))
    assert scale_sim.main(["--csv", str(path)]) == status
    captured = capsys.readouterr()
    assert words in captured.out + captured.err
