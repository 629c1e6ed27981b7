"""Programs as text, one line per instruction, and back.

    program version=1 instructions=11 prerequisites=2
    op kind=0 m=16 ...                       # numbers, codes as in `Op` and `Mapping`
    mapping dataflow=0 l3_m=16 ...
    array rows=16 cols=16 macs_per_pe=1 burst=64
    labels ["load A", "move A"]
     0  DMA_LOAD_TILE      A     ti=0 tk=0        bytes=1024 height=16 width=16                        "load A"
     1  BM_MOVE_TILE       A     ti=0.0 tk=0.0    bytes=1024 height=16 width=16     needs=0:operand    "move A"

`ti`, `tj`, `tk` are the indices along M, N, K of the block in L3, in L2 and of the pass, as deep as it has any. What is
left out is 0, or as usual: burst_bytes and read as bytes, written as read, engine and queue as the opcode's. A `#` begins
a comment.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, nearest, plain, shown
from kpu_jax.program.columns import check_columns
from kpu_jax.program.header import SECTIONS, check_section, header_fields, header_of
from kpu_jax.program.isa import INSTRUCTIONS, QUEUE, Need, Opcode, Operand
from kpu_jax.program.program import COLUMNS, NO_BLOCK, NO_NEED, Program, empty_columns

VERSION = 1
_TOKEN = re.compile(r'#.*|"(?:[^"\\]|\\.)*"|\S+')
_AXES = ("ti", "tj", "tk")
_USUAL = {"burst_bytes": "bytes", "read": "bytes", "written": "read"}  # what a column is where it is left out
_NUMBERS = tuple(name for name in COLUMNS if name not in ("opcode", "operand", "tile", "needs", "need_kind", "label"))


def disassemble(program: Program) -> str:
    """The program as text (see `kpu_jax.program.text`); `assemble` gives it back exactly.

    Raises `KPUError` if it is no program, or has columns of the wrong shape or kind.
    """
    check_columns(program)
    lines = [f"program version={VERSION} instructions={len(program)} prerequisites={program.needs.shape[1]}"]
    for section, numbers in header_of(program).items():
        lines.append(" ".join([section, *(f"{name}={plain(value)}" for name, value in numbers.items())]))
    lines.append(f"labels {json.dumps(list(program.labels))}")
    table = zip(*(column.tolist() for column in program.columns().values()), strict=True)
    width = len(str(len(program)))
    lines += [_line(i, dict(zip(COLUMNS, row, strict=True)), program.labels, width) for i, row in enumerate(table)]
    return "\n".join(lines) + "\n"


def instruction_text(program: Program, i: int) -> str:
    """Instruction i as a line of text."""
    row = {name: np.asarray(column)[i].tolist() for name, column in program.columns().items()}
    return _line(i, row, program.labels, len(str(i)))


def _line(i: int, row: dict[str, Any], labels: tuple[str, ...], width: int) -> str:
    """A row of the program as text; its entries are Python's own."""
    opcode, label = row["opcode"], row["label"]
    usual = _engine_of(opcode) if opcode in INSTRUCTIONS else {}
    of_axis = dict(zip(_AXES, map(_index_text, zip(*row["tile"], strict=True)), strict=True))
    indices = [f"{axis}={text}" for axis, text in of_axis.items() if text]
    numbers = [
        f"{name}={plain(row[name]) if math.isfinite(row[name]) else row[name]}"
        for name in _NUMBERS
        if row[name] != (row[_USUAL[name]] if name in _USUAL else usual.get(name, 0))
    ]
    waits = _needs_text(row["needs"], row["need_kind"])
    named = json.dumps(labels[label]) if 0 <= label < len(labels) else f"label={label}"
    text = f"{i:>{width}}  {_name(Opcode, opcode):<18} {_name(Operand, row['operand']):<5} {' '.join(indices):<26}"
    return f"{text} {' '.join(numbers):<52} {waits:<22} {named}"


def _name(kind: Any, code: Any) -> str:
    return kind(code).name if code in kind._value2member_map_ else str(code)


def _engine_of(opcode: int) -> dict[str, int]:
    engine = INSTRUCTIONS[Opcode(opcode)].engine
    return {"engine": int(engine), "queue": QUEUE[engine]}


def _index_text(column: Iterable[int]) -> str:
    levels = list(column)
    while levels and levels[-1] == NO_BLOCK:
        levels.pop()
    return ".".join("-" if index == NO_BLOCK else str(index) for index in levels)


def _needs_text(needs: list[int], kinds: list[int]) -> str:
    words = ["-" if need == NO_NEED else f"{need}:{_name(Need, kind).lower()}" for need, kind in zip(needs, kinds, strict=True)]
    while words and words[-1] == "-":
        words.pop()
    return f"needs={','.join(words)}" if words else ""


def assemble(text: str) -> Program:
    """The program that `text` describes.

    Checks what makes a line an instruction; whether the program makes sense is `check_program`'s. Raises `KPUError`
    naming the number and the text of the line.
    """
    if not isinstance(text, str):
        raise KPUError(f"assemble takes the text of a program, got {shown(text)}")
    sections: dict[str, Any] = {}
    head: dict[str, int] = {}
    seen: set[str] = set()  # lines of the header
    labels: dict[str, int] = {}
    columns: dict[str, np.ndarray] = {}
    count = 0
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        words = [word for word in _TOKEN.findall(line) if not word.startswith("#")]
        if not words:
            continue
        try:
            if not head:
                head = _head(words)
                if head["instructions"] > len(lines):  # before there are columns of that length
                    raise KPUError(f"{head['instructions']} instructions, but the text has only {len(lines)} lines")
                columns = empty_columns(head["instructions"], head["prerequisites"])
            elif words[0] in seen:
                raise KPUError(f"a second line {words[0]}")
            elif words[0] in SECTIONS:
                seen.add(words[0])
                given = _pairs(words[1:])
                sections[words[0]] = check_section(words[0], {name: _number(name, value) for name, value in given.items()})
            elif words[0] == "labels":
                seen.add(words[0])
                if count:
                    raise KPUError("labels come before the instructions")
                labels = _labels(line)
            else:
                _read_instruction(words, count, columns, labels)
                count += 1
        except KPUError as error:
            raise KPUError(f"line {number}: {error!s:.400}: {line.strip()[:200]}") from None
    if not head:
        raise KPUError("the text has no lines; a program begins with: program version=1 instructions=N prerequisites=P")
    if missing := [name for name in SECTIONS if name not in sections]:
        raise KPUError(f"the text lacks the lines {', '.join(missing)}")
    if count != head["instructions"]:
        raise KPUError(f"the text has {count} instructions, its first line says {head['instructions']}")
    return Program(**header_fields(sections), **columns, labels=tuple(labels))


def _head(words: list[str]) -> dict[str, int]:
    names = ("version", "instructions", "prerequisites")
    given = _pairs(words[1:])
    if words[0] != "program" or sorted(given) != sorted(names):
        raise KPUError("a program begins with: program version=1 instructions=N prerequisites=P")
    head = {name: int(_whole(name, given[name])) for name in names}
    if head["version"] > VERSION:
        raise KPUError(f"written by a newer kpu_jax: version {head['version']}, this one reads up to {VERSION}")
    if head["instructions"] > 10**8 or head["prerequisites"] > 10**4:
        raise KPUError("more than 100,000,000 instructions or 10,000 prerequisites")
    return head


def _labels(line: str) -> dict[str, int]:
    try:
        names, end = json.JSONDecoder().raw_decode(line, line.index("["))
    except (ValueError, RecursionError):
        names, end = None, 0
    rest = line[end:].strip()
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or (rest and not rest.startswith("#")):
        raise KPUError('labels are a JSON list of texts, such as ["load A", "move A"]')
    if len(set(names)) != len(names):
        raise KPUError("a label stands there twice")
    return {name: i for i, name in enumerate(names)}


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise KPUError(f"{word!r}: expected name=value")
    return name, value


def _pairs(words: list[str]) -> dict[str, str]:
    pairs = [_pair(word) for word in words]
    _check_once(name for name, _ in pairs)
    return dict(pairs)


def _check_once(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise KPUError(f"{name} stands there twice")
        seen.add(name)


def _number(name: str, text: str) -> float:
    try:
        return float(_digits(text))
    except ValueError:
        raise KPUError(f"{name}={text}: not a number") from None


def _digits(text: str) -> str:
    """The text of a number, if it has none of what Python takes besides: 1_28, digits of other scripts."""
    if "_" in text or not text.isascii():
        raise ValueError
    return text


def _whole(name: str, text: str, low: int = 0) -> int:
    try:
        value = int(_digits(text))
    except ValueError:
        raise KPUError(f"{name}={text}: not an integer") from None
    if not low <= value < 2**31:
        raise KPUError(f"{name}={text}: must be at least {low} and below 2^31")
    return value


def _code(kind: Any, word: str) -> int:
    if word in kind.__members__:
        return int(kind[word])
    if word.isascii() and word.isdigit():
        return _whole(kind.__name__.lower(), word)
    raise KPUError(f"{word!r} is no {kind.__name__.lower()}: {nearest(word, kind.__members__)}")


def _read_instruction(words: list[str], i: int, columns: dict[str, np.ndarray], labels: dict[str, int]) -> None:
    if words[0] != str(i):
        raise KPUError(f"expected instruction {i}")
    if i >= len(columns["opcode"]):
        raise KPUError(f"more than the {i} instructions that the first line says")
    if len(words) < 3:
        raise KPUError("expected number, opcode, operand")
    opcode = _code(Opcode, words[1])
    columns["opcode"][i], columns["operand"][i] = opcode, _code(Operand, words[2])
    values: dict[str, float] = dict(_engine_of(opcode)) if opcode in INSTRUCTIONS else {}
    _check_once("label" if word.startswith('"') else word.partition("=")[0] for word in words[3:])
    for word in words[3:]:
        if word.startswith('"'):
            columns["label"][i] = _label(word, labels)
            continue
        name, text = _pair(word)
        if name in _AXES:
            indices = [NO_BLOCK if part == "-" else _whole(name, part) for part in text.split(".")]
            if len(indices) > 3:
                raise KPUError(f"{word}: a block has an index in L3, in L2 and in the pass, at most")
            columns["tile"][i, : len(indices), _AXES.index(name)] = indices
        elif name == "needs":
            _read_needs(text, i, columns)
        elif name in _NUMBERS or name == "label":
            integer = np.issubdtype(COLUMNS[name], np.integer)
            values[name] = _whole(name, text, -(2**31)) if integer else _number(name, text)
        else:
            raise KPUError(f"{name!r} is unknown: {nearest(name, (*_NUMBERS, *_AXES, 'needs', 'label'))}")
    for name in _NUMBERS:
        if name in values:
            columns[name][i] = values[name]
        elif name in _USUAL:
            columns[name][i] = columns[_USUAL[name]][i]
    if "label" in values:
        columns["label"][i] = values["label"]


def _label(word: str, labels: dict[str, int]) -> int:
    try:
        label = json.loads(word)
    except ValueError:
        raise KPUError(f"{word}: not a text in quotes") from None
    return labels.setdefault(label, len(labels))


def _read_needs(text: str, i: int, columns: dict[str, np.ndarray]) -> None:
    words = text.split(",")
    if len(words) > columns["needs"].shape[1]:
        raise KPUError(f"needs={text}: more than the {columns['needs'].shape[1]} prerequisites that the first line says")
    for place, word in enumerate(words):
        if word == "-":
            continue
        need, _, kind = word.partition(":")
        columns["needs"][i, place] = _whole("needs", need)
        columns["need_kind"][i, place] = _code(Need, kind.upper())
