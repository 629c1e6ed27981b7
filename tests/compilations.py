"""What XLA compiles while a block runs."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

import jax

LOGGERS = ("jax._src.interpreters.pxla", "jax._src.dispatch")


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of the functions compiled inside the block, in order; single primitives are left out."""
    names: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found = re.match(r"Compiling (\S+) with global shapes", record.getMessage())
            if found:
                names.append(found[1])

    handler = Collect()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with jax.log_compiles(True):
            yield names
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
