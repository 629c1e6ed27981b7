"""Programs as files: a versioned header in JSON, the columns as they are in memory, and a checksum.

Layout: 8 bytes magic, version and length of the header (uint32, little-endian), header, columns (little-endian, in the
header's order), SHA-256 of all that.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError
from kpu_jax.base.files import file_path
from kpu_jax.base.outputs import new_files
from kpu_jax.program.columns import check_columns
from kpu_jax.program.header import SECTIONS, check_section, header_fields, header_of
from kpu_jax.program.program import COLUMNS, Program

MAGIC = b"KPUPROG\n"
VERSION = 1
_PREFIX = struct.Struct("<8sII")
_DIGEST = hashlib.sha256().digest_size


def save_program(program: Program, path: Any) -> None:
    """Write `program` to the file `path`, whole or not at all.

    Raises `KPUError` if it is no program, or its folder does not exist or cannot be written.
    """
    check_columns(program)
    file = file_path(path)
    if not file.parent.is_dir():
        raise KPUError(f"{file}: there is no folder {file.parent}: make it first")
    columns = {name: np.ascontiguousarray(column, _stored(name)) for name, column in program.columns().items()}
    header: dict[str, Any] = {**header_of(program), "labels": list(program.labels)}
    header["columns"] = [[name, column.dtype.str, list(column.shape)] for name, column in columns.items()]
    text = json.dumps(header).encode()
    parts = [_PREFIX.pack(MAGIC, VERSION, len(text)), text, *(column.tobytes() for column in columns.values())]
    digest = hashlib.sha256()
    with new_files(file.parent) as folder, (folder / file.name).open("wb") as stream:
        for part in parts:
            digest.update(part)
            stream.write(part)
        stream.write(digest.digest())


def load_program(path: Any) -> Program:
    """The program in the file `path`, as it was saved.

    Raises `KPUError` naming the file if it cannot be read, is not such a file, is of a newer version, cut off or damaged.
    """
    file = file_path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise KPUError(f"{file}: cannot be read: {error.strerror or error}") from None
    try:
        return _decode(data)
    except KPUError as error:
        raise KPUError(f"{file}: {error}") from None


def _stored(name: str) -> np.dtype:
    return np.dtype(COLUMNS[name]).newbyteorder("<")


def _decode(data: bytes) -> Program:
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise KPUError("not a program file of kpu_jax; a program as text is read with kpu.program.assemble")
    if len(data) < _PREFIX.size:
        raise KPUError(f"cut off: {len(data)} [byte] are less than its first {_PREFIX.size}")
    _, version, length = _PREFIX.unpack_from(data)
    if version > VERSION:
        raise KPUError(f"written by a newer kpu_jax: version {version}, this one reads up to {VERSION}; update kpu_jax")
    if version < 1:
        raise KPUError(f"damaged: version {version}")
    start = _PREFIX.size + length
    if len(data) < start + _DIGEST:
        raise KPUError(f"cut off: {len(data):,} [byte] end within the header")
    intact = hashlib.sha256(memoryview(data)[:-_DIGEST]).digest() == data[-_DIGEST:]
    try:
        header, shapes = _read_header(data[_PREFIX.size : start])
    except KPUError:
        if intact:
            raise
        raise KPUError("damaged: its checksum is not that of its contents") from None
    sizes = {name: _stored(name).itemsize * math.prod(shape) for name, shape in shapes.items()}
    whole = start + sum(sizes.values()) + _DIGEST
    if len(data) != whole:
        raise KPUError(f"{'cut off' if len(data) < whole else 'damaged'}: {len(data):,} [byte] instead of {whole:,}")
    if not intact:
        raise KPUError("damaged: its checksum is not that of its contents")
    columns: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        column = np.frombuffer(data, _stored(name), math.prod(shape), start).reshape(shape)
        columns[name] = column.astype(COLUMNS[name])
        start += sizes[name]
    sections = {section: check_section(section, header.get(section)) for section in SECTIONS}
    program = Program(**header_fields(sections), **columns, labels=tuple(header["labels"]))
    check_columns(program)
    return program


def _read_header(text: bytes) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """(the header, the shape of every column), or a `KPUError` unless it is one that `save_program` writes."""
    try:
        header = json.loads(text)
        columns = [(name, dtype, tuple(shape)) for name, dtype, shape in header["columns"]]
        labels = header["labels"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise KPUError("damaged: its header is not what kpu_jax writes") from None
    sides = [side for _, _, shape in columns for side in shape]
    if not all(isinstance(side, int) and 0 <= side < 2**31 for side in sides) or not isinstance(labels, list):
        raise KPUError("damaged: its header is not what kpu_jax writes")
    if [(name, dtype) for name, dtype, _ in columns] != [(name, _stored(name).str) for name in COLUMNS]:
        raise KPUError("damaged: its columns are not those of a program")
    return header, {name: shape for name, _, shape in columns}
