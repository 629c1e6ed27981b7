"""A JAX function run with its products computed by the machine."""

from kpu_jax.execution.interpreter import Product, on_machine
from kpu_jax.execution.machine_product import machine_product

__all__ = ["Product", "machine_product", "on_machine"]
