"""Programs as text and as files: exact round trips, and errors that name the line or the damage."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_cases import small_case

import kpu_jax as kpu
from kpu_jax.base.errors import KPUError
from kpu_jax.program import assemble, disassemble, load_program, same_program, save_program
from kpu_jax.program.binary import MAGIC
from kpu_jax.program.program import COLUMNS

CFG, GEMM = kpu.presets.minimal(), kpu.Gemm(20, 24, 40, dtype="int8", bias=True, activation="relu")
SMALL = kpu.program.build(CFG, GEMM, kpu.Mapping(l3_tile=(16, 16, 16), l2_tile=(16, 8, 16)))
VALUES = {
    np.int32: st.integers(-(2**31), 2**31 - 1),
    np.float64: st.floats(allow_nan=False, width=64),
}


@st.composite
def programs(draw):
    """Programs of random schedules, some with arbitrary numbers in arbitrary places."""
    program = small_case(np.random.default_rng((19, draw(st.integers(0, 10_000))))).program()
    program = program.replace(**{name: column.copy() for name, column in program.columns().items()})
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from([n for n in COLUMNS if n not in ("opcode", "operand", "tile", "needs", "need_kind", "label")]))
        column = getattr(program, name)
        column.flat[draw(st.integers(0, column.size - 1))] = draw(VALUES[COLUMNS[name]])
    for name, low in (("tile", -1), ("needs", -1), ("need_kind", 0)):
        column = getattr(program, name)
        column.flat[draw(st.integers(0, column.size - 1))] = draw(st.integers(low, 2))
    program.need_kind[program.needs == -1] = 0
    return program


@settings(max_examples=15, deadline=None)
@given(programs())
def test_text_round_trip_is_exact(program):
    text = disassemble(program)
    again = assemble(text)
    assert same_program(again, program)
    assert disassemble(again) == text


@settings(max_examples=15, deadline=None)
@given(program=programs())
def test_file_round_trip_is_exact(tmp_path_factory, program):
    path = tmp_path_factory.mktemp("programs") / "one.kpu"
    save_program(program, path)
    assert same_program(load_program(path), program)


def test_same_program_sees_differences():
    other = SMALL.replace(bytes=SMALL.bytes + (np.arange(len(SMALL)) == 3))
    assert same_program(SMALL, SMALL) and not same_program(SMALL, other)
    assert not same_program(SMALL, SMALL.replace(labels=(*SMALL.labels, "more")))
    assert not same_program(SMALL, SMALL.replace(rows=np.float64(9)))


def test_text_is_readable_and_takes_comments():
    text = disassemble(SMALL)
    line = next(line for line in text.splitlines() if "BM_MOVE_TILE" in line and " B " in line)
    assert "tj=0.0 tk=0.0" in line and "needs=" in line and "bytes=" in line
    commented = "# a program\n\n" + "\n".join(f"{line}   # why {i}" for i, line in enumerate(text.splitlines()))
    assert same_program(assemble(commented), SMALL)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace("DMA_LOAD_TILE", "DMA_LAOD_TILE", 1), ("line 6", "did you mean 'DMA_LOAD_TILE'", "0  DMA_LAOD")),
        (lambda t: t.replace(" bytes=", " bites=", 1), ("line 6", "'bites' is unknown")),
        (lambda t: t.replace("bytes=256", "bytes=many", 1), ("line 6", "bytes=many: not a number")),
        (lambda t: t.replace("ti=0", "ti=0.0.0.0", 1), ("line 6", "at most")),
        (lambda t: t.replace("height=16", "height=1.5", 1), ("not an integer",)),
        (lambda t: t.replace("needs=0:operand", "needs=0:operator", 1), ("is no need",)),
        (lambda t: t.replace("needs=0:operand", "needs=" + ",".join(["0:operand"] * 9), 1), ("more than the",)),
        (lambda t: t.replace("version=1", "version=7", 1), ("line 1", "newer")),
        (lambda t: t.replace("rows=8", "rows=x", 1), ("rows=x: not a number",)),
        (lambda t: t.replace("rows=8 ", "", 1), ("array: lacks rows",)),
        (lambda t: t.replace("labels [", "labels ", 1), ("JSON list",)),
        (lambda t: "\n".join(t.splitlines()[:-1]), ("its first line says",)),
        (lambda t: "\n".join(line for line in t.splitlines() if not line.startswith("mapping")), ("lacks the lines mapping",)),
        (lambda t: t.replace("\n 3  ", "\n 4  ", 1).replace("\n  3  ", "\n  4  ", 1), ("expected instruction 3",)),
        (lambda t: t.replace(" bytes=", " bytes=1 bytes=", 1), ("line 6", "bytes stands there twice")),
        (lambda t: t.replace(" ti=0", " ti=1 ti=0", 1), ("line 6", "ti stands there twice")),
        (lambda t: t.replace('"load A"\n', '"load A" "load A"\n', 1), ("line 6", "label stands there twice")),
        (lambda t: t.replace(" bytes=256", " bytes=2_56", 1), ("line 6", "bytes=2_56: not a number")),
        (lambda t: t.replace(" bytes=256", " bytes=\u0662", 1), ("line 6", "not a number")),
        (lambda t: t.replace("height=16", "height=1_6", 1), ("height=1_6: not an integer",)),
        (lambda t: t.replace(" rows=", " rows=8 rows=", 1), ("line 4", "rows stands there twice")),
        (lambda t: t.replace("version=1", "version=1 version=1", 1), ("line 1", "version stands there twice")),
        (lambda t: t.replace("labels [", "labels []\nlabels [", 1), ("line 6", "a second line labels")),
        (lambda t: t.replace("labels [", 'labels ["load A", ', 1), ("line 5", "a label stands there twice")),
        (lambda t: t + next(line for line in t.splitlines() if line.startswith("op ")), ("a second line op",)),
        (lambda t: "", ("no lines",)),
        (lambda t: "hello", ("line 1", "begins with", "hello")),
    ],
)
def test_wrong_text_names_the_line(change, words):
    text = disassemble(SMALL)
    assert change(text) != text
    with pytest.raises(KPUError) as error:
        assemble(change(text))
    for word in words:
        assert word in str(error.value)


def resigned(data: bytes) -> bytes:
    """With a checksum that fits again."""
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d[: len(d) // 2], "cut off"),
        (lambda d: d[:30], "cut off"),
        (lambda d: d[:5], "cut off"),
        (lambda d: d[:-1], "cut off"),
        (lambda d: b"", "not a program file"),
        (lambda d: b"PK" + d, "not a program file"),
        (lambda d: resigned(d[:8] + (2).to_bytes(4, "little") + d[12:]), "newer"),
        (lambda d: d[:1000] + bytes([d[1000] ^ 1]) + d[1001:], "damaged"),
        (lambda d: d + b"x", "damaged"),
        (lambda d: resigned(d.replace(b'"operand"', b'"operant"', 1)), "damaged"),
        (lambda d: resigned(d.replace(b'"batch": 1', b'"botch": 1', 1)), "unknown"),
        (lambda d: resigned(d.replace(b'{"op"', b'["op"', 1)), "damaged"),
        (lambda d: d.replace(b'"<i4"', b'"<i,"', 1), "damaged: its checksum"),  # no dtype, and not for NumPy to read
        (lambda d: resigned(d.replace(b'"<i4"', b'"<i,"', 1)), "damaged: its columns"),
        (lambda d: resigned(d.replace(b'"<f8"', b'"|V8"', 1)), "damaged: its columns"),
        (lambda d: resigned(d.replace(b'"needs"', b'"nEeds"', 1)), "damaged: its columns"),
    ],
)
def test_wrong_files_say_what_is_wrong(tmp_path, change, words):
    path = tmp_path / "one.kpu"
    save_program(SMALL, path)
    data = path.read_bytes()
    assert data.startswith(MAGIC) and change(data) != data
    path.write_bytes(change(data))
    with pytest.raises(KPUError, match=words) as error:
        load_program(path)
    assert str(path) in str(error.value)


def test_any_damage_is_one_clear_error(tmp_path):
    path = tmp_path / "one.kpu"
    save_program(SMALL, path)
    data, rng = path.read_bytes(), np.random.default_rng(31)
    for i in rng.choice(1200, 150, replace=False):  # the header, and the first columns
        path.write_bytes(data[:i] + bytes([data[i] ^ int(rng.integers(1, 256))]) + data[i + 1 :])
        with pytest.raises(KPUError):
            load_program(path)


@pytest.mark.parametrize("value", ["program", None, SMALL.opcode, SMALL.replace(bytes=SMALL.bytes[1:]), SMALL.replace(op=3)])
def test_what_is_no_program_is_refused(tmp_path, value):
    for use in (disassemble, lambda p: save_program(p, tmp_path / "x.kpu"), kpu.program.traffic, kpu.program.wire):
        with pytest.raises(KPUError, match="program"):
            use(value)
    if not isinstance(value, kpu.program.Program):
        with pytest.raises(KPUError, match="program"):
            same_program(SMALL, value)
    else:
        assert not same_program(SMALL, value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist_is_not_made(tmp_path):
    with pytest.raises(KPUError, match="there is no folder"):
        save_program(SMALL, tmp_path / "new" / "one.kpu")
    assert not list(tmp_path.iterdir())


def test_no_file_and_a_failed_write_leave_things_as_they_were(tmp_path):
    with pytest.raises(KPUError, match="cannot be read"):
        load_program(tmp_path / "none.kpu")
    path = tmp_path / "one.kpu"
    save_program(SMALL, path)
    with pytest.raises(ValueError):
        save_program(SMALL.replace(bytes=np.array(["x"])), path)
    assert same_program(load_program(path), SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["one.kpu"]
