"""Spaces of chips: what they enumerate, what they refuse, and the TOML files that describe them."""

import jax.numpy as jnp
import numpy as np
import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import get_path, replace_path
from kpu_jax.explore.space import Space, load_space
from kpu_jax.hardware import preset

TILES = "compute.tile_count"
CLOCK = "clocks.fabric_mhz"


def test_points_are_all_combinations_geometry_first():
    space = Space({CLOCK: [500, 750], (TILES, "data_movement.dma_engine_count"): [[1, 2], [3, 4], [5, 6]]})
    assert (len(space), space.geometries, space.speeds) == (6, 3, 2)
    values = space.values(np.arange(6))
    assert values[TILES].tolist() == [1, 1, 3, 3, 5, 5] and values[CLOCK].tolist() == [500, 750] * 3
    chips = space.chips([0, 5])
    assert chips.compute.tile_count.tolist() == [1, 5] and chips.clocks.dma_mhz.tolist() == [1562.5] * 2
    assert space.chip(np.int64(5)).data_movement.dma_engine_count == 6
    assert space.chip(5) == space.chip(5.0) and type(space.chip(5).clocks.fabric_mhz) is np.float64


@pytest.mark.parametrize("values", [[1, 2], (1, 2), range(1, 3), np.array([1, 2]), np.float32([1, 2]), jnp.array([1, 2]), [[1], [2]]])
def test_lists_of_all_kinds(values):
    assert Space({TILES: values}).values(np.arange(2))[TILES].tolist() == [1, 2]


def test_one_list_stands_for_all_fields_and_flags_are_booleans():
    space = Space({("compute.processor_array.rows", "compute.processor_array.cols"): [8, 16]})
    assert [get_path(space.chip(1), p) for p in space.paths] == [16, 16]
    assert Space({"compute.fold_overlap": [True, False]}).chip(1).compute.fold_overlap == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (None, "give a mapping"),
        ([TILES], "give a mapping"),
        ({}, "no fields"),
        ({5: [1]}, "an axis is a dotted field or a tuple of them, got 5"),
        ({(): [1]}, r"an axis is a dotted field or a tuple of them, got \(\)"),
        ({"compute.tiles": [1]}, r"space.*unknown field compute\.tiles: did you mean 'tile_count'"),
        ({"compute": [1]}, r"space: compute is a section; name one of its fields"),
        ({"technology.node_nm": [16, 7]}, r"technology\.node_nm alone changes no constant"),
        ({"technology.dram": ["HBM3"]}, r"technology\.dram alone changes no constant"),
        ({"compute.systolic_mode": [True]}, r"compute\.systolic_mode belongs to a file"),
        ({"address_map.l3_tile_base": [0, 4096]}, r"address_map\.l3_tile_base changes no time, energy or area"),
        ({"technology.tdp_mw_per_kb": [0.1, 0.2]}, "changes no time, energy or area"),
        ({TILES: []}, r"compute\.tile_count: needs a list of values such as \[8, 16, 32\], got \[\]"),
        ({TILES: "12"}, "needs a list of values"),
        ({TILES: {1, 2}}, "needs a list of values"),
        ({TILES: 4}, "needs a list of values"),
        ({TILES: ["1", "2"]}, r"compute\.tile_count must be an integer .*got '1'"),
        ({TILES: [True]}, r"compute\.tile_count .*got True"),
        ({TILES: np.array([True])}, r"compute\.tile_count .*got np.True_"),
        ({TILES: [1, 10**400]}, r"compute\.tile_count .*401 digits"),
        ({TILES: [1.5]}, "fraction 1.5"),
        ({TILES: [1, 2, 2]}, r"compute\.tile_count: value 2 repeats value 1, 2; list every chip once"),
        ({(TILES, CLOCK): [[1, 500], [2, 750], [1, 500.0]]}, "value 2 repeats value 0, 1, 500"),
        ({(TILES, CLOCK): [[1, 500], [2]]}, "value 1 must be a row of 2 numbers"),
        ({(TILES, CLOCK): [[1, 500], 2]}, "value 1 must be a row of 2 numbers"),
        ({TILES: [1], (TILES, CLOCK): [[1, 500]]}, r"compute\.tile_count varies on more than one axis"),
        ({CLOCK: [1e9]}, r"is this in Hz\? the unit is MHz"),
    ],
)
def test_what_spans_no_space(fields, message):
    with pytest.raises(KPUError, match=message):
        Space(fields)


@pytest.mark.parametrize("base", ["edge_ai", {}, replace_path(preset("edge_ai"), CLOCK, np.float64(-1))])
def test_the_base_is_a_chip(base):
    with pytest.raises(KPUError, match=r"the chip must be a KPUConfig|clocks\.fabric_mhz .*got -1"):
        Space({TILES: [1]}, base)
    with pytest.raises(KPUError, match="one concrete chip"):
        Space({TILES: [1]}, Space({TILES: [1, 2]}).chips([0, 1]))


@pytest.mark.parametrize("index", [-1, 2, 1.5, "a", None, True, [0], np.array([0, 1])])
def test_one_chip_needs_an_index_inside_the_space(index):
    with pytest.raises(KPUError, match=r"chip must be an integer at least 0 and at most 1 \[index\], got"):
        Space({TILES: [1, 2]}).chip(index)


@pytest.mark.parametrize("index", [-1, [0, 2], np.array([0.0]), ["a"], [[0], [0, 1]], None, [True], "a", 10**30, [10**30]])
def test_indices_lie_inside_the_space(index):
    space = Space({TILES: [1, 2]})
    for call in (space.values, space.chips, space.geometry_values):
        with pytest.raises(KPUError, match="indices must be integers"):
            call(index)
    assert space.values([])[TILES].shape == (0,)


GOOD = f"""
base = "minimal"
workload = "mlp"
[[axis]]
fields = ["{TILES}"]
values = [1, 2]
[[axis]]
fields = "{CLOCK}"
values = [500, 750]
"""


def test_a_file_gives_the_space_and_the_other_tables(tmp_path):
    (tmp_path / "s.toml").write_text(GOOD)
    space, rest = load_space(tmp_path / "s.toml")
    assert len(space) == 4 and space.base == preset("minimal") and rest == {"workload": "mlp"}


AXIS = f'[[axis]]\nfields = "{TILES}"\nvalues = [1, 2]\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (bytes(range(256)), r"not a text file"),
        (b"\x00", "not valid TOML"),
        (b"a = [", "not valid TOML"),
        (b"axis = " + b"[" * 2000, "nested too deeply"),
        (b"a" + b".a" * 4000 + b" = 1", "line 1: longer than 4096 characters"),
        (b"a = " + b"9" * 4090, "unknown entry 'a'|too many digits"),
        (f"{AXIS}{AXIS}".encode(), r"\[\[axis\]\] 2: compute\.tile_count varies on an earlier axis already"),
        (b"[[axis]]\nfields = 5\nvalues = [1]", r"\[\[axis\]\] 1: fields = 5 must be a list of dotted paths"),
        (b"[[axis]]\nfields = [{a = 1}]\nvalues = [1]", r"\[\[axis\]\] 1: fields = .*must be a list of dotted paths"),
        (b"[[axis]]\nfields = [['a']]\nvalues = [1]", r"\[\[axis\]\] 1: fields = .*must be a list of dotted paths"),
        (b"[[axis]]\nfields = []\nvalues = [1]", "an axis is a dotted field"),
        (b"[[axis]]\nfields = 'a'", r"\[\[axis\]\] 1 needs exactly `fields`"),
        (b"axis = 5", r"axis = 5 must be tables: \[\[axis\]\]"),
        (AXIS.replace("[1, 2]", "[" + "9" * 400 + "]").encode(), r"compute\.tile_count .*about 40[01] digits"),
        (AXIS.replace("[1, 2]", "[1979-05-27]").encode(), r"compute\.tile_count .*datetime\.date"),
        (f'base = "x"\n{AXIS}'.encode(), "base: preset = 'x' is unknown"),
        (f"base = 5\n{AXIS}".encode(), "base: preset = 5 is unknown"),
        (f'base = "x.yaml"\n{AXIS}'.encode(), r"base: .*x\.yaml: cannot be read"),
        (f'base = "\\u0000.yaml"\n{AXIS}'.encode(), "base: .*NUL"),
        (f"output = 'x.csv'\n{AXIS}".encode(), "unknown entry 'output'"),
    ],
    ids=range(21),
)
def test_files_that_are_no_space(tmp_path, content, message):
    file = tmp_path / "s.toml"
    file.write_bytes(content)
    with pytest.raises(KPUError, match=message) as caught:
        load_space(file)
    assert str(file) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(KPUError, match=r"cannot be read: (Is a directory|No such file or directory)$"):
            load_space(path)
    for wrong in (None, 5, "a\0b"):
        with pytest.raises(KPUError, match="a file is named by text|NUL"):
            load_space(wrong)
