"""Conversions to and from the forms of other tools."""

from kpu_jax.utilities import data_converter

__all__ = ["data_converter"]
