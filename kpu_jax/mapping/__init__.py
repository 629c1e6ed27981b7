"""How a workload is laid out on the chip: tiles, loop orders, dataflow, buffering, partition."""

from kpu_jax.mapping.mapping import BUFFERINGS, DATAFLOWS, ORDERS, PASS_ORDERS, Mapping, check_mapping

__all__ = ["BUFFERINGS", "DATAFLOWS", "ORDERS", "PASS_ORDERS", "Mapping", "check_mapping"]
