"""Multi-layer perceptrons, and the recommender built of two (DLRM, Naumov et al., arXiv 1906.00091)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from kpu_jax.base.errors import KPUError
from kpu_jax.workload.gemm import Gemm
from kpu_jax.workload.networks.graph import Graph, size
from kpu_jax.workload.table import Workload


def _sizes(field: str, sizes: Any, fewest: int) -> tuple[int, ...]:
    if isinstance(sizes, (str, bytes)) or not isinstance(sizes, Sequence) or len(sizes) < fewest:
        raise KPUError(f"{field} = {sizes!r} must be a sequence of at least {fewest} layer sizes [elements]")
    return tuple(size(f"{field}[{i}]", s, "elements") for i, s in enumerate(sizes))


def _add_layers(
    graph: Graph, prefix: str, batch: int, widths: Sequence[int], *reads: str | None, inner: str, last: str, dtype: Any
) -> tuple[str, ...]:
    """Layers `prefix0`, `prefix1`, ... through `widths`, the first reading `reads`; returns the last one's name.

    `inner` is the activation between layers, `last` the one at the end.
    """
    for i, (k, n) in enumerate(itertools.pairwise(widths)):
        activation = last if i == len(widths) - 2 else inner
        reads = (graph.add(f"{prefix}{i}", Gemm(batch, n, k, bias=True, activation=activation, dtype=dtype), *reads),)
    return reads  # type: ignore[return-value]


def mlp(
    batch: int = 1, sizes: Sequence[int] = (784, 512, 256, 10), dtype: Any = "int8", *, activation: str = "relu"
) -> Workload:
    """A perceptron through `sizes` [elements], input first; `activation` between layers, none at the end.

    Raises `KPUError` for fewer than two sizes, sizes that are not positive integers, and unknown names.
    """
    batch = size("mlp.batch", batch, "rows")
    widths = _sizes("mlp.sizes", sizes, 2)
    graph = Graph()
    _add_layers(graph, "fc", batch, widths, inner=activation, last="none", dtype=dtype)
    return graph.workload()


def dlrm(
    batch: int = 1,
    dtype: Any = "int8",
    *,
    bottom: Sequence[int] = (13, 512, 256, 128),
    top: Sequence[int] = (1024, 1024, 512, 256, 1),
    tables: int = 26,
) -> Workload:
    """DLRM as in MLPerf: bottom MLP, pairwise dot products of `tables` + 1 vectors, top MLP (sizes without input).

    The embedding look-ups do no multiplications and are not listed; `bottom[-1]` is the embedding size. The full
    square of dot products is computed; the top MLP reads the half below the diagonal and the bottom's output.

    Raises `KPUError` for sizes that are not positive integers.
    """
    batch, tables = size("dlrm.batch", batch, "samples"), size("dlrm.tables", tables, "tables")
    low, high = _sizes("dlrm.bottom", bottom, 2), _sizes("dlrm.top", top, 1)
    vectors, width = tables + 1, low[-1]
    graph = Graph()
    (dense,) = _add_layers(graph, "bottom", batch, low, inner="relu", last="relu", dtype=dtype)
    dots = graph.add("interaction", Gemm(vectors, vectors, width, batch=batch, dtype=dtype), dense)
    features = vectors * tables // 2 + width
    _add_layers(graph, "top", batch, (features, *high), dots, dense, inner="relu", last="sigmoid", dtype=dtype)
    return graph.workload()
