"""TPU v1's rates, and the I/O lower bound, in small; wrong files give one clear error."""

from __future__ import annotations

import pytest

from experiments.validation import tables
from experiments.validation.io_bound import __main__ as io_bound
from experiments.validation.tpu_v1 import __main__ as tpu_v1
from experiments.validation.tpu_v1.apps import APPS, chip

MEASURED = {cells["app"]: float(cells["measured_TOPS"]) for _, cells in tables.read_table(tables.DATA / "tpu_v1.csv", tpu_v1.COLUMNS)}


@pytest.mark.parametrize("app", ["MLP1", "CNN0"])
def test_tpu_v1_reaches_the_measured_rate_and_no_more_than_the_margin(app):
    cfg, together, macs = chip(), 0.0, 0.0
    for layer in APPS[app]:
        one = tpu_v1.cycles(cfg, layer, 1)
        together += one + (layer.count - 1) * (tpu_v1.cycles(cfg, layer, 2) - one if layer.count > 1 else 0.0)
        macs += layer.count * float(layer.op(1).macs)
    tops = 2 * macs * 700e6 / together * 1e-12
    assert MEASURED[app] <= tops <= tpu_v1.ABOVE * MEASURED[app]


@pytest.mark.long
def test_all_of_tpu_v1(capsys):
    assert tpu_v1.main([]) == 0
    assert "rows 4 mismatches 0" in capsys.readouterr().out


def test_io_bound_of_one_gemm(capsys):
    assert io_bound.main(["--gemm", "1024^3", "--words", "65536"]) == 0
    assert "rows 2 mismatches 0" in capsys.readouterr().out


def test_a_schedule_better_than_the_table_allows_is_a_mismatch(tmp_path, capsys):
    rows = (tables.DATA / "io_lower_bounds.csv").read_text().splitlines()[:2]
    path = tmp_path / "bounds.csv"
    path.write_text("\n".join(rows).replace("18874368", "16874368"))
    assert io_bound.main(["--csv", str(path)]) == 1
    assert "times the two-level schedule" in capsys.readouterr().out
