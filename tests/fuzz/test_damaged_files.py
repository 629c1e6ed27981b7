"""Damaged files: every reader gives a value that can be used, or a `KPUError` of one line that names the file."""

from __future__ import annotations

import numpy as np
import pytest
from damage import ODD, damaged, damaged_tree, fuzz
from file_readers import DESCRIPTION, READERS, conversions, json_values, use
from hypothesis import given
from hypothesis import strategies as st

import kpu_jax as kpu
from kpu_jax.explore.store import Store
from kpu_jax.utilities import data_converter as convert

COUNTS = [40, pytest.param(8_000, marks=pytest.mark.long)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name, count, tmp_path, tally):
    reader, attempts = READERS[name], tally()
    if name == "part of a store":
        Store(tmp_path, DESCRIPTION)
    file = tmp_path / reader.file
    valid = reader.valid()
    for content in valid:
        file.write_bytes(content)
        reader.read(file)  # as it is, nothing is wrong with it

    @fuzz(count)
    @given(damaged(valid, reader.tokens), st.booleans())
    def attempt(content, sealed):
        file.write_bytes(reader.seal(content) if reader.seal and sealed else content)
        with attempts(file.name if reader.mentions_file else ""):
            reader.read(file)

    attempt()
    assert attempts.inputs > count / 2 and attempts.counts["refused"]


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_values(count, tally):
    attempts = tally()

    @fuzz(count)
    @given(st.one_of([damaged_tree(value) for value in json_values()]))
    def attempt(values):
        with attempts():
            value = convert.from_dict(values)
            use(value)
            convert.to_dict(value)

    attempt()
    assert attempts.counts["refused"]


@pytest.mark.parametrize("count", COUNTS)
def test_onnx_files(count, tmp_path, tally):
    pytest.importorskip("onnx", reason="extra onnx")
    from onnx_files import models, rewritten

    attempts, file, valid = tally(), tmp_path / "m.onnx", models()
    for content in valid:
        file.write_bytes(content)
        kpu.load_onnx(file)

    @fuzz(count)
    @given(damaged(valid) | rewritten(valid))
    def attempt(content):
        file.write_bytes(content)
        with attempts():
            use(kpu.load_onnx(file))

    attempt()
    assert attempts.counts["refused"] and attempts.counts["accepted"]


@pytest.mark.parametrize("count", COUNTS)
def test_tables_of_pandas(count, tmp_path, tally):
    pandas = pytest.importorskip("pandas", reason="extra dataframe")
    attempts, file = tally(), tmp_path / "t.parquet"
    cells = ODD | st.sampled_from([b"x", np.float32(1), np.arange(3), {"a": [1]}, pandas.Timestamp("2020"), pandas.NA])
    rows = [convert.to_pandas(value).to_dict("records") for value in conversions()]

    @fuzz(count)
    @given(st.one_of([damaged_tree(each, cells) for each in rows]), st.booleans())
    def attempt(values, through_a_file):
        try:
            frame = pandas.DataFrame(values)
            if through_a_file:
                frame.to_parquet(file)
        except Exception:  # what pandas itself does not make
            return
        with attempts():
            value = convert.from_parquet(file) if through_a_file else convert.from_pandas(frame)
            use(value)
            convert.to_csv(value)

    attempt()
    assert attempts.counts["refused"] and attempts.counts["accepted"]


@pytest.mark.parametrize("count", COUNTS)
def test_arrays_as_bytes(count, tally):
    attempts = tally()
    formats = st.sampled_from(["int4", "int8", "int16", "int32", "fp4", "fp8", "fp8_e5m2", "fp16", "bf16", "fp32"]) | ODD
    shape = st.lists(st.integers(-1, 5), max_size=3) | ODD

    @fuzz(count)
    @given(st.binary(max_size=40) | ODD, formats, shape, st.sampled_from(["nearest", "exact", "up"]))
    def attempt(data, dtype, shape, rounding):
        with attempts():
            array = convert.from_bytes(data, dtype, shape)
            again = convert.from_bytes(convert.to_bytes(array, dtype), dtype, shape)
            assert again.tobytes() == array.tobytes() and again.dtype == array.dtype
        with attempts():
            convert.to_bytes(data, dtype, rounding=rounding)

    attempt()
    assert attempts.counts["refused"] and attempts.counts["accepted"]


def test_no_file_at_all(tmp_path, tally):
    attempts = tally()
    for name, reader in READERS.items():
        if name not in ("assembly", "sweep.json", "part of a store"):
            for path in (tmp_path / reader.file, tmp_path):
                with attempts():
                    reader.read(path)
    assert not attempts.counts["accepted"]
