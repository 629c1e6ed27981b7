"""Counts the inputs that a fuzz really made, and prints them at the end of a long run."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from kpu_jax.base.errors import KPUError

TALLIES: dict[str, Counter[str]] = {}


class Tally:
    """Runs what may only work or raise a `KPUError` of one line, and counts both."""

    def __init__(self, name: str) -> None:
        self.counts = TALLIES.setdefault(name, Counter())

    @contextlib.contextmanager
    def __call__(self, mention: str = "") -> Iterator[None]:
        """`mention`: what the message must name, such as the file."""
        try:
            yield
        except KPUError as error:
            text = str(error)
            assert mention in text and len(text) < 20_000 and "\n" not in text, text
            text.encode()  # can be printed
            self.counts["refused"] += 1
        else:
            self.counts["accepted"] += 1

    @property
    def inputs(self) -> int:
        return sum(self.counts.values())


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[[], Tally]:
    """A counter named like the test."""
    return lambda: Tally(request.node.name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    total = sum(sum(counts.values()) for counts in TALLIES.values())
    if total > 50_000:
        terminalreporter.section("fuzz")
        for name, counts in TALLIES.items():
            terminalreporter.line(f"{sum(counts.values()):>8,} inputs, {counts['accepted']:>7,} accepted  {name}")
        terminalreporter.line(f"{total:>8,} inputs in all")
