"""The command line `kpu-jax`: one module per command, each with `add` (its arguments) and what it runs."""

from kpu_jax.cli.main import main

__all__ = ["main"]
