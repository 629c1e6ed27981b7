"""Reading text: one error for every file that holds none."""

import pathlib

import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.base.files import MAX_BYTES, file_path, read_text


def test_text_is_read_without_its_byte_order_mark(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffé".encode())
    assert read_text(file_path(str(file))) == "é" and file_path(file) == file


@pytest.mark.parametrize("path", [None, 5, b"a", ["a"], "a\0", pathlib.Path("a\0")])
def test_what_names_no_file(path):
    with pytest.raises(KPUError, match="a file is named by text|NUL"):
        file_path(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"\xff", "not a text file"), (b"x" * (MAX_BYTES + 1), r"larger than 262144 \[byte\]")],
)
def test_files_without_text(tmp_path, content, message):
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    with pytest.raises(KPUError, match=rf"a\.txt: .*{message}"):
        read_text(file)


def test_files_that_cannot_be_read(tmp_path):
    for file in (tmp_path, tmp_path / "none", tmp_path / ("x" * 5000), tmp_path / "\ud800"):
        with pytest.raises(KPUError, match="cannot be read: "):
            read_text(file)
