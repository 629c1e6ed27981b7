"""What the commands share: values, chips and files named on the command line."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kpu_jax.base.errors import KPUError
from kpu_jax.base.text import number_or_text
from kpu_jax.explore.limits import OBJECTIVES, limits_of
from kpu_jax.explore.study import Study, load_study
from kpu_jax.hardware import KPUConfig, load_config, preset
from kpu_jax.hardware.io import SUFFIXES
from kpu_jax.hardware.presets import PRESET_NAMES
from kpu_jax.workload import Gemm, Workload, network
from kpu_jax.workload.networks import NETWORK_NAMES

PICTURES = (".png", ".pdf", ".svg")
raw = argparse.RawDescriptionHelpFormatter  # examples keep their lines


def pairs_of(option: str, given: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE words as a dict; numbers and true/false become such."""
    pairs: dict[str, Any] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise KPUError(f"{option} {word!r}: write NAME=VALUE")
        pairs[name] = value_of(value)
    return pairs


def value_of(text: str) -> Any:
    """A number, true or false, a list separated by commas, or text."""
    if "," in text:
        return [value_of(part) for part in text.split(",")]
    if text in ("true", "false"):
        return text == "true"
    return number_or_text(text)


def add_study(command: argparse.ArgumentParser) -> None:
    """The study file, what may stand in place of its entries, and the folder of the results."""
    command.add_argument("study", metavar="FILE.toml", type=Path, help="space, workload, objective and constraints")
    command.add_argument("--objective", choices=OBJECTIVES, help="in place of the file's")
    command.add_argument("--limit", metavar="NAME=VALUE", action="append", default=[], help="a constraint, such as area_mm2=40")
    command.add_argument("--output", metavar="FOLDER", type=Path, default=Path("results"), help="default: results")


def study_of(args: argparse.Namespace) -> Study:
    """The study of `add_study`'s arguments."""
    study = load_study(args.study)
    limits = {**study.constraints, **limits_of(pairs_of("--limit", args.limit))}
    return dataclasses.replace(study, objective=args.objective or study.objective, constraints=limits)


def chip_of(name: str) -> KPUConfig:
    if name in PRESET_NAMES:
        return preset(name)
    if Path(name).suffix.lower() in SUFFIXES:
        return load_config(name)
    if "." in name or "/" in name:
        raise KPUError(f"{name}: a configuration file ends in {', '.join(SUFFIXES)}")
    return preset(name)  # raises, with the nearest names


def add_workload(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """The arguments that say what runs on a chip, and how the chip differs from its file."""
    what = parser.add_mutually_exclusive_group(required=required)
    what.add_argument("--matmul", metavar="MxNxK", help="C[m,n] = A[m,k] B[k,n]")
    what.add_argument("--network", metavar="NAME", help=", ".join(NETWORK_NAMES))
    parser.add_argument("--option", metavar="NAME=VALUE", action="append", default=[], help="option of the network, such as batch=8")
    parser.add_argument("--dtype", help="number format (default int8)")
    parser.add_argument("--set", metavar="FIELD=VALUE", action="append", default=[], help="change a field of the chip")
    parser.add_argument("--objective", choices=OBJECTIVES, default="edp", help="what the mappings minimise (default edp)")


def chip_and_workload(args: argparse.Namespace) -> tuple[KPUConfig, Workload]:
    """What the arguments of `add_workload`, and `args.chip`, name."""
    chip = chip_of(args.chip)
    changes = pairs_of("--set", args.set)
    chip = chip.replace(changes) if changes else chip
    options = pairs_of("--option", args.option)
    if args.dtype and "dtype" in options:
        raise KPUError("--dtype and --option dtype=... are the same: give one")
    options |= {"dtype": args.dtype} if args.dtype else {}
    if args.matmul is None:
        return chip, network(args.network, **options)
    if set(options) - {"dtype"}:
        raise KPUError("--option is for networks; a matmul has only --dtype")
    return chip, Workload.from_ops([("matmul", matmul_of(args.matmul, args.dtype))])


def matmul_of(text: str, dtype: str | None) -> Gemm:
    try:
        m, n, k = (int(p) for p in text.lower().split("x"))
    except ValueError:
        raise KPUError(f"--matmul {text!r}: write three integers M x N x K, such as 128x768x768") from None
    return Gemm(m=m, n=n, k=k, dtype=dtype or "int8")


def check_target(option: str, path: Path | None) -> None:
    """Notice a file that cannot be written before the work, not after it."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise KPUError(f"{option} {path}: " + ("is a folder; name a file" if path.is_dir() else f"there is no folder {path.parent}"))
    if option == "--plot" and path is not None and path.suffix.lower() not in PICTURES:
        raise KPUError(f"{option} {path}: the name must end in {', '.join(PICTURES)}")


def save_plot(ax: Any, path: Path) -> None:
    try:
        ax.get_figure().savefig(path, dpi=150, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise KPUError(f"{path}: cannot be written: {error}") from None
