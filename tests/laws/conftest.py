"""The large sets of random triples that most laws are tried on: one in CI, a million triples in the long mode."""

from __future__ import annotations

import pytest
from law_cases import Case, drawn

MILLION = [pytest.param((seed, 100_000), marks=pytest.mark.long, id=f"100000-{seed}") for seed in range(100, 110)]


@pytest.fixture(scope="session", params=[pytest.param((7, 3000), id="3000"), *MILLION])
def large(request: pytest.FixtureRequest) -> Case:
    """Triples of any size, their reports by the bound, and which fit; all laws see one set before the next is drawn."""
    return drawn(*request.param)
