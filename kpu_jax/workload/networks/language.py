"""Language models: BERT, GPT-2, GPT-3 and Llama."""

from __future__ import annotations

from typing import Any

from kpu_jax.base.errors import KPUError, check_choice
from kpu_jax.base.validation import check_type
from kpu_jax.workload.networks.graph import Graph, flag, size
from kpu_jax.workload.networks.transformer import TransformerSpec, add_transformer
from kpu_jax.workload.table import Workload

MODES: tuple[str, ...] = ("prefill", "decode")

BERT_BASE = TransformerSpec(12, 768, 12, 3072, norm_first=False)
BERT_LARGE = TransformerSpec(24, 1024, 16, 4096, norm_first=False)
GPT2 = TransformerSpec(12, 768, 12, 3072, vocabulary=50257)
GPT2_XL = TransformerSpec(48, 1600, 25, 6400, vocabulary=50257)
GPT3_6_7B = TransformerSpec(32, 4096, 32, 16384, vocabulary=50257)
GPT3_175B = TransformerSpec(96, 12288, 96, 49152, vocabulary=50257)
_LLAMA: dict[str, Any] = {"gated": True, "activation": "silu", "bias": False, "norm": "rmsnorm", "rotary": True}
LLAMA2_7B = TransformerSpec(32, 4096, 32, 11008, vocabulary=32000, **_LLAMA)
LLAMA3_8B = TransformerSpec(32, 4096, 32, 14336, kv_heads=8, vocabulary=128256, **_LLAMA)
LLAMA3_70B = TransformerSpec(80, 8192, 64, 28672, kv_heads=8, vocabulary=128256, **_LLAMA)


def transformer(
    spec: TransformerSpec,
    *,
    batch: int = 1,
    new_tokens: int,
    context: int | None = None,
    dtype: Any = "int8",
    vector_ops: bool = False,
) -> Workload:
    """Any transformer: `new_tokens` computed per sequence, attending to `context` tokens (these included).

    Raises `KPUError` for sizes that are not positive integers, and a context shorter than the new tokens.
    """
    check_type("spec", spec, TransformerSpec, "build one with networks.TransformerSpec(layers, hidden, heads, ffn)")
    batch, new_tokens = size("batch", batch, "sequences"), size("new_tokens", new_tokens, "tokens")
    context = new_tokens if context is None else size("context", context, "tokens")
    if context < new_tokens:
        raise KPUError(f"context = {context} [tokens] is shorter than new_tokens = {new_tokens}, which it must include")
    graph = Graph()
    sizes = {"batch": batch, "new_tokens": new_tokens, "context": context}
    add_transformer(graph, spec, None, **sizes, dtype=dtype, vector_ops=flag("vector_ops", vector_ops))
    return graph.workload()


def _encoder(spec: TransformerSpec, batch: int, sequence: int, dtype: Any, vector_ops: bool) -> Workload:
    tokens = size("sequence", sequence, "tokens")
    return transformer(spec, batch=batch, new_tokens=tokens, dtype=dtype, vector_ops=vector_ops)


def _gpt(spec: TransformerSpec, batch: int, sequence: int, mode: str, dtype: Any, vector_ops: bool) -> Workload:
    context = size("sequence", sequence, "tokens")
    new = context if check_choice("mode", mode, MODES) == "prefill" else 1
    return transformer(spec, batch=batch, new_tokens=new, context=context, dtype=dtype, vector_ops=vector_ops)


def _llama(
    spec: TransformerSpec,
    mode: str,
    batch: int,
    new_tokens: int | None,
    context: int | None,
    dtype: Any,
    vector_ops: bool,
) -> Workload:
    if check_choice("mode", mode, MODES) == "prefill":
        new = new_tokens if new_tokens is not None else 2048 if context is None else context
        total = new if context is None else context
    else:
        new, total = 1 if new_tokens is None else new_tokens, 2048 if context is None else context
    return transformer(spec, batch=batch, new_tokens=new, context=total, dtype=dtype, vector_ops=vector_ops)


def bert_base(batch: int = 1, sequence: int = 128, dtype: Any = "int8", *, vector_ops: bool = False) -> Workload:
    """BERT-base encoder (12 layers, 768): 8 operations per layer, no embedding and no pooler."""
    return _encoder(BERT_BASE, batch, sequence, dtype, vector_ops)


def bert_large(batch: int = 1, sequence: int = 384, dtype: Any = "int8", *, vector_ops: bool = False) -> Workload:
    """BERT-large encoder (24 layers, 1024), by default at MLPerf's 384 tokens."""
    return _encoder(BERT_LARGE, batch, sequence, dtype, vector_ops)


def gpt2(
    batch: int = 1, sequence: int = 1024, dtype: Any = "int8", *, mode: str = "prefill", vector_ops: bool = False
) -> Workload:
    """GPT-2 small with its output head over all new tokens; `mode="decode"` computes the last of `sequence` tokens."""
    return _gpt(GPT2, batch, sequence, mode, dtype, vector_ops)


def gpt2_xl(
    batch: int = 1, sequence: int = 1024, dtype: Any = "int8", *, mode: str = "prefill", vector_ops: bool = False
) -> Workload:
    """GPT-2 XL (48 layers, 1600); arguments as `gpt2`."""
    return _gpt(GPT2_XL, batch, sequence, mode, dtype, vector_ops)


def gpt3_6_7b(
    batch: int = 1, sequence: int = 2048, dtype: Any = "int8", *, mode: str = "prefill", vector_ops: bool = False
) -> Workload:
    """GPT-3 6.7B (32 layers, 4096); arguments as `gpt2`."""
    return _gpt(GPT3_6_7B, batch, sequence, mode, dtype, vector_ops)


def gpt3_175b(
    batch: int = 1, sequence: int = 2048, dtype: Any = "int8", *, mode: str = "prefill", vector_ops: bool = False
) -> Workload:
    """GPT-3 175B (96 layers, 12288); arguments as `gpt2`."""
    return _gpt(GPT3_175B, batch, sequence, mode, dtype, vector_ops)


def llama2_7b(
    mode: str = "prefill",
    batch: int = 1,
    new_tokens: int | None = None,
    context: int | None = None,
    dtype: Any = "int8",
    *,
    vector_ops: bool = False,
) -> Workload:
    """Llama-2 7B. `context` includes the new tokens; defaults: prefill 2048 of 2048, decode 1 of 2048.

    Raises `KPUError` for an unknown mode, sizes that are not positive integers, and context < new_tokens.
    """
    return _llama(LLAMA2_7B, mode, batch, new_tokens, context, dtype, vector_ops)


def llama3_8b(
    mode: str = "prefill",
    batch: int = 1,
    new_tokens: int | None = None,
    context: int | None = None,
    dtype: Any = "int8",
    *,
    vector_ops: bool = False,
) -> Workload:
    """Llama-3 8B (8 key/value heads for 32 query heads); arguments as `llama2_7b`."""
    return _llama(LLAMA3_8B, mode, batch, new_tokens, context, dtype, vector_ops)


def llama3_70b(
    mode: str = "prefill",
    batch: int = 1,
    new_tokens: int | None = None,
    context: int | None = None,
    dtype: Any = "int8",
    *,
    vector_ops: bool = False,
) -> Workload:
    """Llama-3 70B (8 key/value heads for 64 query heads); arguments as `llama2_7b`."""
    return _llama(LLAMA3_70B, mode, batch, new_tokens, context, dtype, vector_ops)
