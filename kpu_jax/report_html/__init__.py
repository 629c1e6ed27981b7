"""One HTML page that holds all it shows: a run, or a sweep's folder, for people without the program."""

from kpu_jax.report_html.page import Page
from kpu_jax.report_html.run_page import run_page
from kpu_jax.report_html.sweep_page import sweep_page

__all__ = ["Page", "run_page", "sweep_page"]
