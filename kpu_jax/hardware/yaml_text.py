"""The part of YAML that configurations use: mappings of plain values, as YAML 1.2 reads them.

Anchors, aliases, merge keys and tags are refused: they can say in a few bytes what takes forever to read. Numbers
of YAML 1.1 that look like others are text here: 1:30 (sexagesimal 90), 010 (octal 8), and dates.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from kpu_jax.base.errors import KPUError, word
from kpu_jax.base.files import check_digits

MAX_DEPTH = 8  # sections are nested 3 deep


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that a configuration does not take."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without what the module's docstring names."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        refused = ""
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            refused = "anchors and aliases (& and *) are not supported: write the value out"
        elif getattr(event, "tag", None) is not None:
            refused = f"tags are not supported: write the value without {event.tag.replace('tag:yaml.org,2002:', '!!'):.40}"
        elif self.depth == MAX_DEPTH:
            refused = "sections are nested too deeply"
        if refused:
            raise _Refused(problem=refused, problem_mark=event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_DECIMAL = r"[-+]?(0|[1-9][0-9_]*)"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", list("yYnNtTfFoO")),
    ("int", rf"{_DECIMAL}|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        rf"{_DECIMAL}(\.[0-9_]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9]+([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), _first)


def _key_lines(node: yaml.Node, file: Path, prefix: str = "") -> dict[str, int]:
    """Dotted path -> line of its key; a key given twice, a merge key or one that is no name is a `KPUError`."""
    lines: dict[str, int] = {}
    if not isinstance(node, yaml.MappingNode):
        return lines
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise KPUError(f"{file}, line {line}: a field's name must be a word")
        if key.value == "<<":
            raise KPUError(f"{file}, line {line}: merge keys (<<) are not supported: write the values out")
        path = f"{prefix}{key.value}"
        if path in lines:
            raise KPUError(f"{file}, line {line}: {word(path)} is given twice, first in line {lines[path]}")
        lines[path] = line
        lines.update(_key_lines(value, file, f"{path}."))
    return lines


def _check_integers(node: yaml.Node, file: Path) -> None:
    if isinstance(node, yaml.ScalarNode):
        if node.tag.endswith(":int"):
            check_digits(file, node.value)
        return
    for child in node.value:
        for part in child if isinstance(child, tuple) else (child,):
            _check_integers(part, file)


def parse_yaml(text: str, file: Path) -> tuple[Any, dict[str, int]]:
    """The value that the text holds (None: nothing), and the line of every dotted path.

    Raises `KPUError` naming the file, the line where it is known, and what is wrong.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, {}
            lines = _key_lines(node, file)
            _check_integers(node, file)
            return loader.construct_document(node), lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        kind = "" if isinstance(error, _Refused) else "not valid YAML: "
        raise KPUError(f"{file}{where}: {kind}{(error.problem or error.context or '')[:200]}") from None
    except yaml.YAMLError:
        raise KPUError(f"{file}: not a text file, it holds control characters") from None
