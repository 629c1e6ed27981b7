"""Other people's models as workloads: JAX functions, ONNX files, topology tables."""

from kpu_jax.frontends.topology import load_topology
from kpu_jax.frontends.trace import trace

__all__ = ["load_topology", "trace"]
