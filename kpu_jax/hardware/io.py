"""Configuration files: YAML and JSON with the fields of `KPUConfig`, exact in both directions."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from kpu_jax.base.errors import KPUError
from kpu_jax.hardware.config import KPUConfig, config_from_dict, config_to_dict
from kpu_jax.hardware.fields import FieldError

SUFFIXES = (".yaml", ".yml", ".json")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that also reads 1e9 and 1.5e3 as numbers, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise KPUError(f"{path}: a configuration file ends in {', '.join(SUFFIXES)}, got {path.suffix!r}")
    return suffix


def _key_lines(node: yaml.Node, file: str, prefix: str = "", depth: int = 0) -> dict[str, int]:
    """Dotted path -> line of its key; a key given twice is a `KPUError`."""
    lines: dict[str, int] = {}
    if not isinstance(node, yaml.MappingNode) or depth > 4:
        return lines
    for key, value in node.value:
        line = key.start_mark.line + 1
        path = f"{prefix}{key.value}"
        if path in lines:
            raise KPUError(f"{file}, line {line}: {path} is given twice, first in line {lines[path]}")
        lines[path] = line
        lines.update(_key_lines(value, file, f"{path}.", depth + 1))
    return lines


def _parse_yaml(text: str, file: str) -> tuple[Any, dict[str, int]]:
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines = {} if node is None else _key_lines(node, file)
            return None if node is None else loader.construct_document(node), lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise KPUError(f"{file}{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError:
        raise KPUError(f"{file}: not a text file, it holds control characters") from None
    except ValueError as error:
        if isinstance(error, KPUError):
            raise
        raise KPUError(f"{file}: not valid YAML: {error}") from None


def _parse_json(text: str, file: str) -> Any:
    def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise KPUError(f"{file}: {key} is given twice in one section")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise KPUError(f"{file}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except ValueError as error:
        if isinstance(error, KPUError):
            raise
        raise KPUError(f"{file}: not valid JSON: {error}") from None


def load_config(path: str | os.PathLike[str]) -> KPUConfig:
    """The chip that a YAML or JSON file describes.

    Raises one `KPUError` naming the file, the line where it is known, and the field, value, unit and remedy.
    """
    file = Path(path)
    suffix = _suffix(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise KPUError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise KPUError(f"{file}: not a text file (UTF-8)") from None
    if not text.strip():
        raise KPUError(f"{file}: the file is empty")
    lines: dict[str, int] = {}
    try:
        if suffix == ".json":
            values = _parse_json(text, str(file))
        else:
            values, lines = _parse_yaml(text, str(file))
    except RecursionError:
        raise KPUError(f"{file}: sections are nested too deeply") from None
    if not isinstance(values, dict):
        what = "nothing" if values is None else f"a {type(values).__name__}"
        raise KPUError(f"{file}: a configuration is a mapping of sections, the file holds {what}")
    try:
        return config_from_dict(values)
    except FieldError as error:
        raise KPUError(f"{file}{_line(error.path, lines)}: {error}") from None


def _line(path: str, lines: dict[str, int]) -> str:
    """`, line N` of a field, or of the nearest section around it that the file has."""
    while path:
        if path in lines:
            return f", line {lines[path]}"
        path = path.rpartition(".")[0]
    return ""


def save_config(
    cfg: KPUConfig,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    description: str | None = None,
) -> None:
    """Write a chip to a YAML or JSON file; `load_config` gives it back bit for bit.

    The file appears complete or not at all. Raises `KPUError` for a traced or stacked configuration, for a value
    that could not be loaded again, and for a file that cannot be written.
    """
    file = Path(path)
    suffix = _suffix(file)
    try:
        values = {k: v for k, v in (("name", name), ("description", description)) if v is not None}
        values.update(config_to_dict(cfg))
        config_from_dict(values)
    except FieldError as error:
        raise KPUError(f"{file}: cannot save: {error}") from None
    if suffix == ".json":
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    else:
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=False)
    _write(file, text)


def _write(file: Path, text: str) -> None:
    """Write a temporary file beside the target and move it there; the temporary file never stays."""
    target = Path(os.path.realpath(file))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise KPUError(f"{file}: cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
