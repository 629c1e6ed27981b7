"""Puts this folder on the import path, for the generators and helpers that several test folders share."""
