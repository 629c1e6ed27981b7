"""Numbers from reports and sweeps: tables, no plots."""

from kpu_jax.analysis.tables import layer_table, short_names, sweep_table, text_table, write_csv

__all__ = ["layer_table", "short_names", "sweep_table", "text_table", "write_csv"]
