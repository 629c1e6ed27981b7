"""Closed forms of the schedule: traffic, time, energy, area. Pure, traceable, any size."""
