"""Plots: every function takes and returns matplotlib Axes. The only place that imports matplotlib."""

from kpu_jax.visualization.pareto import plot_pareto
from kpu_jax.visualization.performance_plot import plot_performance

__all__ = ["plot_pareto", "plot_performance"]
