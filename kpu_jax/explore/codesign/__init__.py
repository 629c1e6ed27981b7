"""Co-design: descend in the logarithm of the hardware with the best mappings inside, then finish exactly on the grid."""

from kpu_jax.explore.codesign.design import Codesign, codesign

__all__ = ["Codesign", "codesign"]
