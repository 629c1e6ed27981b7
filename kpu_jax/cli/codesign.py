"""`kpu-jax codesign`: a chip of a space by gradients."""

from __future__ import annotations

import argparse
from typing import Any

from kpu_jax.base.errors import check_number
from kpu_jax.base.outputs import new_files
from kpu_jax.cli.arguments import add_study, raw, study_of
from kpu_jax.explore.codesign import codesign
from kpu_jax.hardware import save_config

EXAMPLES = """Takes the study file of `kpu-jax sweep`. Descends from many starts at once in the logarithm of the hardware, with the
best mappings inside; then rounds, and improves by steps on the space's grid, decided by exact time. The answer's value is
exact; that nothing else in the space is better is what `kpu-jax sweep` certifies. Writes best_chip.yaml."""


def add(commands: Any) -> None:
    """Add the command and its arguments."""
    study = commands.add_parser(
        "codesign", help="a good chip of a large space by gradients", formatter_class=raw, epilog=EXAMPLES
    )
    add_study(study)
    study.add_argument("--starts", metavar="N", type=int, default=8, help="points that descend at once (default 8)")
    study.add_argument("--steps", metavar="N", type=int, default=32, help="steps of each (default 32)")
    study.add_argument("--seed", metavar="N", type=int, default=0, help="of the starting points (default 0)")
    study.set_defaults(command=_codesign)


def _codesign(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    study = study_of(args)
    for name, low in (("starts", 1), ("steps", 1), ("seed", 0)):
        check_number(f"--{name}", getattr(args, name), "count", low=low, integer=True)
    with new_files(args.output) as folder, tqdm(total=args.steps, unit="step", desc="descent") as bar:
        found = codesign(
            study.space, study.workload, objective=study.objective, constraints=study.constraints,
            starts=args.starts, steps=args.steps, seed=args.seed, progress=bar.update,
        )  # fmt: skip
        save_config(found.chip, folder / "best_chip.yaml")
    print(f"{found}\n{found.evaluations:,} evaluations by the bound, {found.timed} chips timed exactly")
    print(f"wrote best_chip.yaml to {args.output}/")
