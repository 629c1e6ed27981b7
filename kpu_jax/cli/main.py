"""The entry point: which command, and errors as one line."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from kpu_jax.base.errors import KPUError
from kpu_jax.cli import codesign, report, run, sweep
from kpu_jax.cli.arguments import raw
from kpu_jax.explore.processes import leave
from kpu_jax.explore.watched import AGAIN, ProcessLostError, report_to_parent
from kpu_jax.version import __version__

COMMANDS = (run, sweep, codesign, report)

EXAMPLES = """examples:
  kpu-jax run edge_ai --matmul 128x768x768           one GEMM on a preset: cycles, energy, traffic, mapping
  kpu-jax run edge_ai --network resnet50 --layers    a network, layer by layer
  kpu-jax sweep space.toml                           which of many chips is best within a budget
  kpu-jax codesign space.toml                        one good chip of it by gradients, where it is too large to sweep
  kpu-jax report edge_ai --network resnet50          one page with tables and plots, for a browser
kpu-jax COMMAND --help explains each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 2 for wrong input, 75 where the same command may succeed again."""
    report_to_parent()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold what the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    args = parser().parse_args(arguments)
    args.words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return args.command(args) or 0
    except KPUError as error:
        print("kpu-jax: error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return leave(AGAIN if isinstance(error, ProcessLostError) else 2)
    except KeyboardInterrupt:
        print("kpu-jax: interrupted", file=sys.stderr)
        return leave(130)


def parser() -> argparse.ArgumentParser:
    """All commands with their arguments."""
    top = argparse.ArgumentParser(
        prog="kpu-jax", description="Simulate the Stillwater Knowledge Processing Unit.", formatter_class=raw, epilog=EXAMPLES
    )
    top.add_argument("--version", action="version", version=f"kpu-jax {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top
