"""Numbers from reports, programs and sweeps: tables, no plots."""

from kpu_jax.analysis.bounds import Bounds, bounds
from kpu_jax.analysis.breakdown import compare_reports, time_terms
from kpu_jax.analysis.chrome_trace import write_chrome_trace
from kpu_jax.analysis.effects import MorrisEffects, SobolIndices, morris_effects, sobol_indices
from kpu_jax.analysis.findings import Analysis
from kpu_jax.analysis.pareto import ParetoFront, front_ranks, hypervolume, pareto_front
from kpu_jax.analysis.performance_analyzer import PerformanceAnalyzer
from kpu_jax.analysis.roofline import Roofline, roofline
from kpu_jax.analysis.sensitivity import FieldSensitivity, Sensitivity, sensitivity
from kpu_jax.analysis.space_effects import morris, sobol
from kpu_jax.analysis.tables import layer_table, write_csv
from kpu_jax.analysis.what_if import what_if
from kpu_jax.base.tables import text_table
from kpu_jax.explore.sweep_table import short_names, sweep_table

__all__ = [
    "Analysis",
    "Bounds",
    "FieldSensitivity",
    "MorrisEffects",
    "ParetoFront",
    "PerformanceAnalyzer",
    "Roofline",
    "Sensitivity",
    "SobolIndices",
    "bounds",
    "compare_reports",
    "front_ranks",
    "hypervolume",
    "layer_table",
    "morris",
    "morris_effects",
    "pareto_front",
    "roofline",
    "sensitivity",
    "short_names",
    "sobol",
    "sobol_indices",
    "sweep_table",
    "text_table",
    "time_terms",
    "what_if",
    "write_chrome_trace",
    "write_csv",
]
