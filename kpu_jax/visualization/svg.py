"""A plot as SVG text, for pages that hold everything they show."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
from matplotlib import rc_context
from matplotlib.axes import Axes

from kpu_jax.base.validation import check_type


def svg_of(ax: Axes) -> str:
    """The figure of `ax` as SVG, the same text for the same plot; closes the figure. `KPUError` for anything but Axes."""
    check_type("ax", ax, Axes, "give what a plot_... function returns")
    figure, out = ax.get_figure(), io.StringIO()
    with rc_context({"svg.hashsalt": "kpu", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})  # type: ignore[union-attr]
    plt.close(figure)  # type: ignore[arg-type]
    return out.getvalue()
