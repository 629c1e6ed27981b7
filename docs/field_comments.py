"""For the reference: the comment behind a field or constant is its description, as it is for who reads the source."""

from __future__ import annotations

import io
import tokenize
from functools import cache
from pathlib import Path
from typing import Any

import griffe


@cache
def _comments(path: Path) -> dict[int, tuple[str, bool]]:
    """Line -> (its comment, whether it stands alone on the line)."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    found = [(t.start[0], t.string.lstrip("# "), not t.line[: t.start[1]].strip()) for t in tokens if t.type == tokenize.COMMENT]
    return {line: (text, alone) for line, text, alone in found if not text.startswith(("type:", "fmt:", "noqa"))}


def _comment_of(path: Path, first: int, last: int) -> str:
    """What describes the assignment on these lines: the comment behind it, or those right above it; "" without any."""
    comments = _comments(path)
    for line in (last, first):
        if line in comments and not comments[line][1]:
            return comments[line][0]
    above: list[str] = []
    while first - 1 in comments and comments[first - 1][1]:
        first -= 1
        above.insert(0, comments[first][0])
    return " ".join(above)


class FieldComments(griffe.Extension):
    """Fields become a list at the end of their class's docstring, constants get a docstring, each with its comment."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called by griffe when a package is read whole, its dataclasses worked out."""
        _describe(pkg)


def _describe(scope: griffe.Module | griffe.Class) -> None:
    for member in list(scope.members.values()):
        if isinstance(member, griffe.Class):
            _list_fields(member)
        elif isinstance(member, griffe.Attribute) and not member.docstring and (text := _text(member)):
            member.docstring = griffe.Docstring(text[0].upper() + text[1:], parent=member)
        if isinstance(member, griffe.Module | griffe.Class):
            _describe(member)


def _list_fields(cls: griffe.Class) -> None:
    """The list says what a made-up constructor over many fields would say; one that is written stays."""
    fields = {
        name: _text(field) for name, field in cls.attributes.items()
        if isinstance(field, griffe.Attribute) and not name.startswith("_") and not field.docstring and "property" not in field.labels
    }  # fmt: skip
    if not fields:
        return
    own = cls.docstring.value if cls.docstring else ""
    lines = [f"- `{name}`: {text}" if text else f"- `{name}`" for name, text in fields.items()]
    cls.docstring = griffe.Docstring("\n\n".join([own, "Fields:", "\n".join(lines)]).strip(), parent=cls)
    for name in fields:
        del cls.members[name]
    if "__init__" in cls.members and not cls.members["__init__"].docstring:
        del cls.members["__init__"]


def _text(attribute: griffe.Attribute) -> str:
    path, first = attribute.filepath, attribute.lineno
    return _comment_of(path, first, attribute.endlineno or first) if isinstance(path, Path) and first else ""
