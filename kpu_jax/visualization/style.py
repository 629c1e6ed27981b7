"""One look for all plots: colours that colour-blind people tell apart, and hatches, markers and lines for grey print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from kpu_jax.base.errors import KPUError, check_number
from kpu_jax.base.validation import check_type
from kpu_jax.model.bound import ENGINES

# Okabe and Ito, "Color Universal Design" (2008), in an order in which neighbours differ by an eighth of the way from black to white.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#999999")
# Each in directions of its own, all straight: circles make SVG files ten times larger.
HATCHES = ("", "///", "---", "xxx", "\\\\\\", "|||", "+++", "\\\\||")
LIGHTER = 0.5  # of a colour's way to white, at each turn
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
SEQUENTIAL = "cividis"  # rises evenly in lightness, so it reads the same in grey
VERMILION = OKABE_ITO[4]  # of the best, which stands out on the blues and yellows of the scale
INK, FAINT = "#222222", "#BBBBBB"
LARGEST = 1e100  # what matplotlib places without an overflow
MOST_BARS = 40  # beyond, labels would overlap: the rest is summed up or shown as a curve


class Look(NamedTuple):
    """How one category is drawn, in colour and without."""

    colour: str
    hatch: str
    marker: str
    line: Any

    @property
    def bar(self) -> dict[str, Any]:
        """Arguments of a filled patch."""
        return {"facecolor": self.colour, "hatch": self.hatch, "edgecolor": INK, "linewidth": 0.4}


def look(number: int) -> Look:
    """The look of category `number`: the eight first differ in everything, then colours are lighter and hatches move on against them."""
    n, turn = number % 8, number // 8
    red, green, blue = (1 - (1 - part) * LIGHTER**turn for part in to_rgb(OKABE_ITO[n]))
    colour = to_hex((red, green, blue))
    return Look(colour, HATCHES[(n + 2 * turn) % 8], MARKERS[(n + 2 * turn) % 8], LINES[(n + 2 * turn) % 8])


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, in order."""
    return {name: look(i) for i, name in enumerate(names)}


ENGINE_LOOKS = looks(ENGINES)


def new_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """`ax`, or the axes of a new figure of this size [inch] that makes room for its labels."""
    if ax is None:
        return plt.subplots(figsize=(width, height), layout="constrained")[1]
    check_type("ax", ax, Axes, "give one of those that plt.subplots() makes, or leave it out")
    return ax


def check_drawable(field: str, value: Any, unit: str, *, low: float = 0.0) -> float:
    """A number of a size that an axis can hold: finite, at least `low`, at most 1e100 and, if it is not 0, at least 1e-100 from it."""
    number = check_number(field, value, unit, low=low, high=LARGEST)
    if 0 < abs(number) < 1 / LARGEST:
        raise KPUError(f"{field} must be 0, or at least {1 / LARGEST:g} [{unit}], to be drawn, got {number:g}")
    return number


def short(text: str, most: int = 26) -> str:
    """Text of at most `most` characters: its beginning and its end."""
    text = " ".join(str(text).split())
    text = text if len(text) <= most else f"{text[: most - most // 2 - 1]}…{text[-(most // 2) :]}"
    return text.replace("$", r"\$")


def titled(ax: Axes, title: str, *notes: str) -> None:
    """A title, and what a reader must know beside it, smaller, on a line of its own."""
    shown = [note for note in notes if note]
    ax.set_title(title, fontsize=10, pad=18 if shown else 6)
    if shown:
        ax.annotate(
            "; ".join(shown), (0.5, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", ha="center", va="bottom",
            fontsize=7.5, color="#444444", annotation_clip=False,
        )  # fmt: skip


def legend_of(ax: Axes, entries: dict[str, Look], *, columns: int = 1, outside: bool = True) -> None:
    """A legend of filled patches, right of the axes by default, where it hides nothing."""
    handles = [Patch(label=name, **each.bar) for name, each in entries.items()]
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0} if outside else {"loc": "best"}
    ax.legend(handles=handles, fontsize=8, ncols=columns, handlelength=2.2, handleheight=1.2, **place)


def plain_log_ticks(axis: Axis, low: float, high: float) -> None:
    """Few labels, written out, on a logarithmic axis from `low` to `high`."""
    decades = math.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
    axis.set_major_formatter("{x:g}" if decades < 6 else LogFormatterSciNotation())
    axis.set_minor_formatter(NullFormatter())


def thinned(count: int, most: int, keep: Sequence[int] | np.ndarray = ()) -> np.ndarray:
    """At most `most` of `count` indices, evenly spread, ascending, with all of `keep`."""
    if count <= most:
        return np.arange(count)
    spread = np.linspace(0, count - 1, max(most - len(keep), 2)).astype(int)
    return np.unique(np.concatenate([spread, np.asarray(keep, int)]))
