"""The engine classes of the chip: how long each takes for what it is asked."""

from kpu_jax.engines.rates import Gang, Rates, rates_of

__all__ = ["Gang", "Rates", "rates_of"]
