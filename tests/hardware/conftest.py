"""Fixtures: the published configurations as nested mappings."""

from __future__ import annotations

from typing import Any

import pytest
from hardware_tables import COLUMNS, PUBLISHED, nested


@pytest.fixture
def published() -> dict[str, dict[str, Any]]:
    """Name -> nested mapping of each published configuration."""
    return {
        name: {"name": name, "description": "published", **nested(dict(zip(COLUMNS, row, strict=True)))}
        for name, row in PUBLISHED.items()
    }


@pytest.fixture
def edge(published) -> dict[str, Any]:
    """The published edge_ai."""
    return published["edge_ai"]
