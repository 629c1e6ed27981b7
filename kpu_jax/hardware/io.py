"""Configuration files: YAML and JSON with the fields of `KPUConfig`, exact in both directions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from kpu_jax.base.errors import KPUError, word
from kpu_jax.base.files import check_digits, file_path, read_text
from kpu_jax.base.outputs import write_whole
from kpu_jax.hardware.config import KPUConfig
from kpu_jax.hardware.dictionary import config_from_dict, config_to_dict
from kpu_jax.hardware.fields import FieldError
from kpu_jax.hardware.yaml_text import parse_yaml

SUFFIXES = (".yaml", ".yml", ".json")


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise KPUError(f"{path}: a configuration file ends in {', '.join(SUFFIXES)}, got {path.suffix!r}")
    return suffix


def _parse_json(text: str, file: Path) -> Any:
    def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise KPUError(f"{file}: {word(key)} is given twice in one section")
            found[key] = value
        return found

    def integer(digits: str) -> int:
        check_digits(file, digits)
        return int(digits)

    try:
        return json.loads(text, object_pairs_hook=unique, parse_int=integer)
    except json.JSONDecodeError as error:
        raise KPUError(f"{file}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise KPUError(f"{file}: sections are nested too deeply") from None


def load_config(path: str | os.PathLike[str]) -> KPUConfig:
    """The chip that a YAML or JSON file describes.

    Raises one `KPUError` naming the file, the line where it is known, and the field, value, unit and remedy.
    """
    file = file_path(path)
    suffix = _suffix(file)
    text = read_text(file)
    values, lines = (_parse_json(text, file), {}) if suffix == ".json" else parse_yaml(text, file)
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

    The file appears complete or not at all. Raises `KPUError` for what is no configuration, for a traced or stacked
    one, for a value that could not be loaded again, and for a file that cannot be written.
    """
    file = file_path(path)
    suffix = _suffix(file)
    try:
        values = {k: v for k, v in (("name", name), ("description", description)) if v is not None}
        values.update(config_to_dict(cfg))
        config_from_dict(values)
    except KPUError as error:
        raise KPUError(f"{file}: cannot save: {error}") from None
    if suffix == ".json":
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    else:
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=False)
    write_whole(file, text)
