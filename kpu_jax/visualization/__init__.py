"""Plots: every function takes data and optional Axes, and returns Axes. The only place that imports matplotlib.

One style for all (`style`): colours that colour-blind people tell apart, with hatches, markers and lines for grey print.
"""

from kpu_jax.visualization.energy import plot_energy_breakdown
from kpu_jax.visualization.graph import plot_graph
from kpu_jax.visualization.heatmap import animate_wave, plot_memory_heatmap, plot_pe_activity
from kpu_jax.visualization.pareto import plot_pareto
from kpu_jax.visualization.performance_plot import plot_performance
from kpu_jax.visualization.roofline_plot import plot_roofline
from kpu_jax.visualization.svg import svg_of
from kpu_jax.visualization.sweep_plot import plot_sweep
from kpu_jax.visualization.timeline import plot_timeline

__all__ = [
    "animate_wave",
    "plot_energy_breakdown",
    "plot_graph",
    "plot_memory_heatmap",
    "plot_pareto",
    "plot_pe_activity",
    "plot_performance",
    "plot_roofline",
    "plot_sweep",
    "plot_timeline",
    "svg_of",
]
