"""Numbers from reports and sweeps: tables, no plots."""

from kpu_jax.analysis.bounds import Bounds, bounds
from kpu_jax.analysis.pareto import ParetoFront, front_ranks, hypervolume, pareto_front
from kpu_jax.analysis.performance_analyzer import Analysis, PerformanceAnalyzer, compare_reports, what_if
from kpu_jax.analysis.roofline import Roofline, roofline
from kpu_jax.analysis.tables import layer_table, short_names, sweep_table, text_table, write_csv

__all__ = [
    "Analysis",
    "Bounds",
    "ParetoFront",
    "PerformanceAnalyzer",
    "Roofline",
    "bounds",
    "compare_reports",
    "front_ranks",
    "hypervolume",
    "layer_table",
    "pareto_front",
    "roofline",
    "short_names",
    "sweep_table",
    "text_table",
    "what_if",
    "write_csv",
]
