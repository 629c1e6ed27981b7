"""Grids of values and conditions between fields."""

import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.explore.conditions import condition
from kpu_jax.explore.grids import grid_values

FIELDS = ("a.rows", "a.cols", "b.rows", "c.size")
ROWS, COLS = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 3, 2])
COLUMNS = {"a.rows": ROWS, "a.cols": COLS, "b.rows": np.array([0.0, 1, 0, 2]), "c.size": np.float64(6)}


@pytest.mark.parametrize(
    ("grid", "want"),
    [
        ({"start": 8, "stop": 64, "step": 2, "scale": "log"}, [8, 16, 32, 64]),
        ({"start": 1, "stop": 1000, "num": 4, "scale": "log"}, [1, 10, 100, 1000]),
        ({"start": 0.5, "stop": 2, "num": 4}, [0.5, 1, 1.5, 2]),
        ({"start": 1, "stop": 10, "step": 4}, [1, 5, 9]),
        ({"start": 0.1, "stop": 0.3, "step": 0.1}, [0.1, 0.2, 0.3]),
        ({"start": 5, "stop": 5, "num": 1}, [5]),
    ],
)
def test_grids(grid, want):
    np.testing.assert_allclose(grid_values(grid), want, rtol=1e-12)


@pytest.mark.parametrize(
    ("grid", "word"),
    [
        ({"start": 8, "stop": 64}, "one of num or step"), ({"start": 8, "stop": 64, "num": 2, "step": 2}, "one of num or step"),
        ({"start": 8, "end": 64, "num": 2}, "'end'"), ({"start": 8, "stop": 4, "num": 2}, "stop must be"),
        ({"start": 0, "stop": 4, "num": 2, "scale": "log"}, "start must be"), ({"start": 1, "stop": 4, "step": 0}, "step must be"),
        ({"start": 1, "stop": 4, "step": 1, "scale": "log"}, "step must be"), ({"start": 1, "stop": 4, "num": 1}, "num must be"),
        ({"start": 1, "stop": 1e12, "step": 1}, "widen the step"), ({"start": 1, "stop": 4, "num": 2, "scale": "lg"}, "'log'"),
    ],
)  # fmt: skip
def test_wrong_grids_are_named(grid, word):
    with pytest.raises(kpu.KPUError, match=word):
        kpu.Space({"compute.tile_count": grid})


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a.rows == cols", [True, False, True, False]),
        ("1 < a.rows <= 3", [False, True, True, False]),
        ("a.rows * cols - 1 >= size / 2 or b.rows == 2", [False, True, True, True]),
        ("not (a.rows < cols and b.rows > 0)", [True, False, True, True]),
        ("cols / b.rows < 2", [False, False, False, True]),
    ],
)
def test_conditions(text, want):
    assert condition(text, FIELDS)(COLUMNS).tolist() == want


def test_a_field_that_varies_is_meant_before_others():
    assert condition("rows > 1", FIELDS, ("b.rows",)).paths == ("b.rows",)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("rows > 1", "may be a.rows, b.rows"), ("colls > 1", "'cols'"), ("a.colls > 1", "'a.cols'"), ("cols", "compares nothing"),
        ("1 < 2", "names no field"), ("cols = 2", "cannot be read"), ("cols > __import__('os').getpid()", "not allowed"),
        ("cols ** 2 > 3", "not allowed"), ("[cols for _ in a] == 1", "not allowed"), ("cols > 'x'", "not allowed"), (3, "is text"),
        ("(" * 300 + "cols" + ")" * 300 + " > 1", "at most 500"), ("cols in size", "not allowed"), ("cols > True", "not allowed"),
    ],
)  # fmt: skip
def test_wrong_conditions_are_named(text, word):
    with pytest.raises(kpu.KPUError, match=word):
        condition(text, FIELDS)


def test_studies_have_grids_and_conditions(tmp_path):
    file = tmp_path / "space.toml"
    file.write_text(
        'where = ["rows == cols"]\n'
        '[[axis]]\nfields = "compute.processor_array.rows"\nvalues = {start = 8, stop = 32, step = 2, scale = "log"}\n'
        '[[axis]]\nfields = "compute.processor_array.cols"\nvalues = [8, 16]\n'
    )
    space, rest = kpu.load_space(file)
    assert not rest and len(space) == 6 and space.allowed(np.arange(6)).tolist() == [True, False, False, True, False, False]
    with pytest.raises(kpu.KPUError, match="no values of the axes meet .*cols > 16"):
        kpu.Space({"compute.processor_array.cols": [8, 16]}, where=["processor_array.cols > 16"])


def test_indices_may_have_any_shape():
    space = kpu.Space({"compute.tile_count": [1, 2, 4], "clocks.fabric_mhz": [500, 1000]}, where=["compute.tile_count * 500 > fabric_mhz"])
    square = np.arange(6).reshape(2, 3)[:, ::-1]
    for path, column in space.values(square).items():
        np.testing.assert_array_equal(column, space.values(np.arange(6))[path][square])
    np.testing.assert_array_equal(space.allowed(square), space.allowed(np.arange(6))[square])
