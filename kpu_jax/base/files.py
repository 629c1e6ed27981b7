"""Reading the text of an input file: one clear error for every way in which there is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kpu_jax.base.errors import KPUError, shown

MAX_BYTES = 2**18  # far above any configuration or study, and what PyYAML still reads within seconds
MAX_DIGITS = 400  # more than any float64 has; Python refuses to convert some thousand


def file_path(path: Any) -> Path:
    """A `Path` from text or a path object; `KPUError` for anything else."""
    name = path.__fspath__() if isinstance(path, os.PathLike) else path
    if not isinstance(name, str):
        raise KPUError(f"a file is named by text or a pathlib.Path, got {shown(path)}")
    if "\0" in name:
        raise KPUError(f"{shown(name)}: a file's name cannot hold a NUL character")
    return Path(name)


def read_text(file: Path) -> str:
    """The UTF-8 text of a file, without a byte order mark.

    Raises `KPUError` naming the file if it cannot be read, is larger than 256 KiB, is not text, or is empty.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, UnicodeEncodeError) as error:
        raise KPUError(f"{file!s}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise KPUError(f"{file}: larger than {MAX_BYTES} [byte], which no configuration or study needs")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise KPUError(f"{file}: not a text file (UTF-8)") from None
    if not text.strip():
        raise KPUError(f"{file}: the file is empty")
    return text


def check_digits(file: Path, number: str) -> None:
    """`KPUError` for an integer literal that is too long to convert."""
    if len(number) > MAX_DIGITS:
        raise KPUError(f"{file}: holds an integer of {len(number)} digits, {number[:12]}...; no field is that large")
