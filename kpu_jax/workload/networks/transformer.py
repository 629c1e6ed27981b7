"""One builder for transformers: encoders, decoders in prefill and decode, grouped-query and gated variants."""

from __future__ import annotations

import dataclasses
from typing import Any

from kpu_jax.base.errors import KPUError, check_choice
from kpu_jax.workload.gemm import Gemm
from kpu_jax.workload.networks.graph import Graph, flag, size
from kpu_jax.workload.op import ACTIVATIONS
from kpu_jax.workload.vector import VectorOp

NORMS = ("layernorm", "rmsnorm")
_UNITS = {
    "layers": "layers",
    "hidden": "elements",
    "heads": "heads",
    "ffn": "elements",
    "kv_heads": "heads",
    "vocabulary": "tokens",
}


@dataclasses.dataclass(frozen=True)
class TransformerSpec:
    """The sizes that make a transformer; `vocabulary` 0 means no output head."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    kv_heads: int = 0  # 0: as many as heads
    vocabulary: int = 0
    gated: bool = False  # SwiGLU: down(silu(gate(x)) * up(x))
    activation: str = "gelu"
    bias: bool = True
    norm: str = "layernorm"
    norm_first: bool = True  # False: BERT's post-norm
    rotary: bool = False

    def __post_init__(self) -> None:
        """Checks: sizes are positive integers, heads divide, names are known. `KPUError` otherwise."""
        for name in ("layers", "hidden", "heads", "ffn"):
            object.__setattr__(self, name, size(f"TransformerSpec.{name}", getattr(self, name), _UNITS[name]))
        for name in ("kv_heads", "vocabulary"):
            object.__setattr__(self, name, size(f"TransformerSpec.{name}", getattr(self, name), _UNITS[name], low=0))
        for name in ("gated", "bias", "norm_first", "rotary"):
            flag(f"TransformerSpec.{name}", getattr(self, name))
        check_choice("TransformerSpec.activation", self.activation, ACTIVATIONS)
        check_choice("TransformerSpec.norm", self.norm, NORMS)
        if self.hidden % self.heads or self.heads % self.key_heads:
            raise KPUError(
                f"TransformerSpec.heads = {self.heads} must divide hidden = {self.hidden} "
                f"and be a multiple of kv_heads = {self.kv_heads}"
            )

    @property
    def key_heads(self) -> int:
        """Heads of K and V."""
        return self.kv_heads or self.heads

    @property
    def head_size(self) -> int:
        """Elements per head."""
        return self.hidden // self.heads


def add_transformer(
    graph: Graph,
    spec: TransformerSpec,
    source: str | None,
    *,
    batch: int,
    new_tokens: int,
    context: int,
    dtype: Any,
    vector_ops: bool,
) -> str | None:
    """Append the layers of `spec` to `graph`, reading `source`; returns the name of the last result.

    Weight GEMMs have m = batch * new_tokens. Attention is one operation per layer with batch = heads * batch:
    attn_qk [new_tokens, context] over the head size, attn_pv back; grouped queries are counted per query head.
    `context` includes the new tokens. Nothing is saved by the causal mask. Without `vector_ops`, o_proj and
    ffn_down read the residual.
    """
    x = source
    for layer in range(spec.layers):
        x = _Layer(graph, spec, f"layer{layer}", batch, new_tokens, context, dtype, vector_ops).build(x)
    if vector_ops and spec.norm_first:
        x = graph.add("final_norm", VectorOp(batch * new_tokens * spec.hidden, function=spec.norm, dtype=dtype), x)
    if spec.vocabulary:
        x = graph.add("lm_head", Gemm(batch * new_tokens, spec.vocabulary, spec.hidden, dtype=dtype), x)
    return x


@dataclasses.dataclass(frozen=True)
class _Layer:
    graph: Graph
    spec: TransformerSpec
    name: str
    batch: int
    new_tokens: int
    context: int
    dtype: Any
    vector_ops: bool

    def build(self, x: str | None) -> str:
        y = self._attention(x)
        return self._feed_forward(y)

    def _linear(self, op: str, n: int, k: int, *reads: str | None, activation: str = "none") -> str:
        gemm = Gemm(self._tokens, n, k, dtype=self.dtype, bias=self.spec.bias, activation=activation)
        return self.graph.add(f"{self.name}.{op}", gemm, *reads)

    def _vector(self, op: str, elements: int, function: str, *reads: str | None) -> str:
        work = VectorOp(elements, function=function, dtype=self.dtype)
        return self.graph.add(f"{self.name}.{op}", work, *reads)

    @property
    def _tokens(self) -> int:
        return self.batch * self.new_tokens

    def _norm(self, op: str, x: str | None) -> str | None:
        return self._vector(op, self._tokens * self.spec.hidden, self.spec.norm, x) if self.vector_ops else x

    def _close(self, op: str, last: str, x: str | None) -> str:
        """The residual addition (and a post-norm) after `last`, as vector work if asked for."""
        if not self.vector_ops:
            return last
        total = self._vector(f"{op}_add", self._tokens * self.spec.hidden, "add", last, x)
        return total if self.spec.norm_first else self._norm(f"{op}_norm", total) or total

    def _attention(self, x: str | None) -> str:
        spec, queries = self.spec, self.batch * self.spec.heads
        inner, keys = spec.heads * spec.head_size, spec.key_heads * spec.head_size
        source = self._norm("attn_norm", x) if spec.norm_first else x
        q = self._linear("q_proj", inner, spec.hidden, source)
        k = self._linear("k_proj", keys, spec.hidden, source)
        v = self._linear("v_proj", keys, spec.hidden, source)
        if self.vector_ops and spec.rotary:
            q = self._vector("q_rotary", self._tokens * inner, "rotary", q)
            k = self._vector("k_rotary", self._tokens * keys, "rotary", k)
        scores = Gemm(self.new_tokens, self.context, spec.head_size, batch=queries, dtype=self.dtype)
        s = self.graph.add(f"{self.name}.attn_qk", scores, q, k)
        if self.vector_ops:
            s = self._vector("softmax", queries * self.new_tokens * self.context, "softmax", s)
        mixed = Gemm(self.new_tokens, spec.head_size, self.context, batch=queries, dtype=self.dtype)
        y = self.graph.add(f"{self.name}.attn_pv", mixed, s, v)
        o = self._linear("o_proj", spec.hidden, inner, y, None if self.vector_ops else x)
        return self._close("attn", o, x)

    def _feed_forward(self, x: str) -> str:
        spec = self.spec
        source = self._norm("ffn_norm", x) if spec.norm_first else x
        reads = [
            self._linear("ffn_up", spec.ffn, spec.hidden, source, activation="none" if spec.gated else spec.activation)
        ]
        if spec.gated:
            reads.append(self._linear("ffn_gate", spec.ffn, spec.hidden, source, activation=spec.activation))
            if self.vector_ops:
                reads = [self._vector("ffn_mul", self._tokens * spec.ffn, "mul", *reads)]
        y = self._linear("ffn_down", spec.hidden, spec.ffn, *reads, None if self.vector_ops else x)
        return self._close("ffn", y, x)
