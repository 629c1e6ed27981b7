"""Numbers from reports and sweeps: tables, no plots."""

from kpu_jax.analysis.bounds import Bounds, bounds
from kpu_jax.analysis.chrome_trace import write_chrome_trace
from kpu_jax.analysis.pareto import ParetoFront, front_ranks, hypervolume, pareto_front
from kpu_jax.analysis.performance_analyzer import Analysis, PerformanceAnalyzer, compare_reports, what_if
from kpu_jax.analysis.roofline import Roofline, roofline
from kpu_jax.analysis.tables import layer_table, write_csv
from kpu_jax.base.tables import text_table
from kpu_jax.explore.sweep_table import short_names, sweep_table

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
    "write_chrome_trace",
    "write_csv",
]
