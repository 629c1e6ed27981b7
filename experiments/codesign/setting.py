"""What all searches share: the space of chips and the limits."""

from pathlib import Path

SPACE = Path(__file__).parents[1] / "which_kpu" / "space.toml"
LIMITS = {"area_mm2": 20.0, "power_w": 5.0}
