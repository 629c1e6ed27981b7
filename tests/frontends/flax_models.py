"""ResNet-50, BERT-base and a Llama block as flax.nnx modules."""

import flax.nnx as nnx
import jax
import jax.numpy as jnp
from plain_models import STAGES, rms, rotary


class Unit(nnx.Module):
    """Convolution and batch norm."""

    def __init__(self, c_in, c_out, kernel, stride, rngs):
        pad = kernel // 2
        self.conv = nnx.Conv(c_in, c_out, (kernel, kernel), stride, padding=[(pad, pad)] * 2, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(c_out, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.conv(x))


class Block(nnx.Module):
    def __init__(self, c_in, inner, outer, stride, rngs):
        self.a, self.b = Unit(c_in, inner, 1, 1, rngs), Unit(inner, inner, 3, stride, rngs)
        self.c = Unit(inner, outer, 1, 1, rngs)
        self.project = Unit(c_in, outer, 1, stride, rngs) if c_in != outer or stride != 1 else None

    def __call__(self, x):
        y = self.c(nnx.relu(self.b(nnx.relu(self.a(x)))))
        return nnx.relu(y + (x if self.project is None else self.project(x)))


class ResNet50(nnx.Module):
    def __init__(self, rngs):
        self.stem = Unit(3, 64, 7, 2, rngs)
        blocks, channels = [], 64
        for stage, (count, inner, outer) in enumerate(STAGES):
            for block in range(count):
                blocks.append(Block(channels, inner, outer, 2 if stage and not block else 1, rngs))
                channels = outer
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(2048, 1000, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.stem(x)), (3, 3), (2, 2), ((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


class BertLayer(nnx.Module):
    def __init__(self, rngs, hidden=768, heads=12, ffn=3072):
        self.attention = nnx.MultiHeadAttention(heads, hidden, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(hidden, ffn, rngs=rngs), nnx.Linear(ffn, hidden, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(hidden, rngs=rngs), nnx.LayerNorm(hidden, rngs=rngs)])

    def __call__(self, x):
        x = self.norms[0](x + self.attention(x))
        return self.norms[1](x + self.down(nnx.gelu(self.up(x))))


class Bert(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([BertLayer(rngs) for _ in range(12)])

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class LlamaBlock(nnx.Module):
    def __init__(self, rngs, hidden=4096, heads=32, kv_heads=8, ffn=14336):
        d = hidden // heads
        kw = {"use_bias": False, "dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16, "rngs": rngs}
        self.sizes = heads, kv_heads, d
        self.q, self.o = nnx.Linear(hidden, hidden, **kw), nnx.Linear(hidden, hidden, **kw)
        self.k, self.v = (nnx.LinearGeneral(hidden, (kv_heads, d), **kw) for _ in "kv")
        self.gate, self.up = (nnx.Linear(hidden, ffn, **kw) for _ in "gu")
        self.down = nnx.Linear(ffn, hidden, **kw)

    def __call__(self, x):
        heads, kv_heads, d = self.sizes
        y = rms(x)
        q = rotary(self.q(y).reshape(*x.shape[:2], heads, d))
        mixed = jax.nn.dot_product_attention(q, rotary(self.k(y)), self.v(y), is_causal=True)
        x = x + self.o(mixed.reshape(x.shape))
        y = rms(x)
        return x + self.down(nnx.silu(self.gate(y)) * self.up(y))


def abstract(build):
    """The module with shapes for parameters."""
    return nnx.eval_shape(lambda: build(nnx.Rngs(0)))
