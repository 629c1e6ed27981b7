"""The chip stated for the measured TPU times predicts them better than the published baselines, in every range."""

from __future__ import annotations

import numpy as np

from experiments.validation.tables import DATA
from experiments.validation.tpu_gemm import PUBLISHED, output_shapes, read, stated_times


def test_one_chip_beats_both_baselines_in_every_range():
    measured, ranges = read(DATA / "tpu_gemm_us.csv")
    errors = np.abs(stated_times(measured.workload) / measured.seconds - 1)
    medians = {name: float(np.median(errors[ranges == name])) for name in PUBLISHED}
    print(medians)
    assert {name: np.sum(ranges == name) for name in PUBLISHED} == {"128": 114, "1024": 166, "4096": 120}
    for name, baselines in PUBLISHED.items():
        assert medians[name] < min(baselines), name


def test_a_product_and_its_transpose_are_one_output_shape():
    measured, _ = read(DATA / "tpu_gemm_us.csv")
    label = dict(zip(measured.workload.row_names, output_shapes(measured), strict=True))
    assert label["80x32x48"] == label["32x80x64"] == "32x80"
