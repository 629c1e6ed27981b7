"""Puts this folder on the import path, for the generators and helpers that several test folders share; plots draw no windows."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
