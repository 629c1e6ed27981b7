"""kpu_jax: a differentiable, vectorised simulator of the Stillwater Knowledge Processing Unit."""

from kpu_jax import analysis, explore, frontends, hardware, machine, mapping, model, program, utilities, workload
from kpu_jax.analysis.critical_path import critical_path
from kpu_jax.base.errors import (
    AddressError,
    ClosedError,
    DtypeError,
    InfeasibleError,
    KPUError,
    MemoryFullError,
    QuantisationError,
    ShapeError,
)
from kpu_jax.base.pytree import replace_path
from kpu_jax.core import (
    Comparison,
    compare,
    dtype_size,
    gflops,
    matmul_error_bound,
    matmul_flops,
    matmul_memory,
    matmul_shape,
)
from kpu_jax.explore.calibrate import Calibration, calibrate
from kpu_jax.explore.codesign import Codesign, codesign
from kpu_jax.explore.every_chip import sweep_dataset
from kpu_jax.explore.mapping_rules import MappingRules
from kpu_jax.explore.mapping_search import best_mapping
from kpu_jax.explore.measurements import Measurements, load_measurements
from kpu_jax.explore.optimal.search import search_mapping
from kpu_jax.explore.space import Space, load_space
from kpu_jax.explore.study import Study, load_study
from kpu_jax.explore.sweep import sweep
from kpu_jax.frontends import load_topology, trace
from kpu_jax.graph import NetworkReport, plan_network
from kpu_jax.hardware import KPUConfig, Technology, load_config, preset, presets, save_config, technology
from kpu_jax.mapping import Mapping
from kpu_jax.model.costs import area_mm2
from kpu_jax.model.report import Report
from kpu_jax.simulator import KPUSimulator, Simulator, simulate
from kpu_jax.version import __version__
from kpu_jax.workload import Conv, Gemm, VectorOp, Workload, network, networks


def __getattr__(name: str) -> object:
    import importlib

    if name == "visualization":  # imports matplotlib
        return importlib.import_module("kpu_jax.visualization")
    if name in ("load_onnx", "onnx_function"):  # two hundred operators that most programs never need
        return getattr(importlib.import_module("kpu_jax.frontends.onnx.load"), name)
    raise AttributeError(f"module 'kpu_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "load_onnx", "onnx_function", "visualization"})


__all__ = [
    "AddressError",
    "Calibration",
    "ClosedError",
    "Codesign",
    "Comparison",
    "Conv",
    "DtypeError",
    "Gemm",
    "InfeasibleError",
    "KPUConfig",
    "KPUError",
    "KPUSimulator",
    "Mapping",
    "MappingRules",
    "Measurements",
    "MemoryFullError",
    "NetworkReport",
    "QuantisationError",
    "Report",
    "ShapeError",
    "Simulator",
    "Space",
    "Study",
    "Technology",
    "VectorOp",
    "Workload",
    "__version__",
    "analysis",
    "area_mm2",
    "best_mapping",
    "calibrate",
    "codesign",
    "compare",
    "critical_path",
    "dtype_size",
    "explore",
    "frontends",
    "gflops",
    "hardware",
    "load_config",
    "load_measurements",
    "load_onnx",
    "load_space",
    "load_study",
    "load_topology",
    "machine",
    "mapping",
    "matmul_error_bound",
    "matmul_flops",
    "matmul_memory",
    "matmul_shape",
    "model",
    "network",
    "networks",
    "onnx_function",
    "plan_network",
    "preset",
    "presets",
    "program",
    "replace_path",
    "save_config",
    "search_mapping",
    "simulate",
    "sweep",
    "sweep_dataset",
    "technology",
    "trace",
    "utilities",
    "workload",
]
