"""A whole network on the chip: epilogues, results that stay in L3, attention on the chip, host work, pipeline, paths."""

from kpu_jax.graph.paths import NetworkPath
from kpu_jax.graph.pipeline import Pipeline, Stage
from kpu_jax.graph.plan import POLICIES, plan_network
from kpu_jax.graph.report import NetworkReport

__all__ = ["POLICIES", "NetworkPath", "NetworkReport", "Pipeline", "Stage", "plan_network"]
