"""Puts this folder on the import path, for the generators and helpers that several test folders share; plots draw no windows."""

import os

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def swept():
    """The result of a small sweep, which plots, pages and analyses are made of."""
    import kpu_jax as kpu

    fields = {"compute.tile_count": [1, 2, 4], "clocks.fabric_mhz": [500, 1000]}
    return kpu.sweep(fields, kpu.networks.mlp(batch=4), constraints={"area_mm2": 60}, retime_chips=6)
