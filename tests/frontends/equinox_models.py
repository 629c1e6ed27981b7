"""ResNet-50, BERT-base and a Llama block as equinox modules, written for one sample and vmapped."""

import equinox as eqx
import jax
import jax.numpy as jnp
from plain_models import STAGES, rotary


class Block(eqx.Module):
    a: eqx.nn.Conv2d
    b: eqx.nn.Conv2d
    c: eqx.nn.Conv2d
    project: eqx.nn.Conv2d | None

    def __init__(self, c_in, inner, outer, stride, key):
        def conv(i, o, kernel, s):
            return eqx.nn.Conv2d(i, o, kernel, s, kernel // 2, use_bias=False, key=key)

        self.a, self.b, self.c = conv(c_in, inner, 1, 1), conv(inner, inner, 3, stride), conv(inner, outer, 1, 1)
        self.project = conv(c_in, outer, 1, stride) if c_in != outer or stride != 1 else None

    def __call__(self, x):
        y = self.c(jax.nn.relu(self.b(jax.nn.relu(self.a(x)))))
        return jax.nn.relu(y + (x if self.project is None else self.project(x)))


class ResNet50(eqx.Module):
    stem: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d
    blocks: list
    head: eqx.nn.Linear

    def __init__(self, key):
        self.stem = eqx.nn.Conv2d(3, 64, 7, 2, 3, use_bias=False, key=key)
        self.pool = eqx.nn.MaxPool2d(3, 2, 1)
        self.blocks, channels = [], 64
        for stage, (count, inner, outer) in enumerate(STAGES):
            for block in range(count):
                self.blocks.append(Block(channels, inner, outer, 2 if stage and not block else 1, key))
                channels = outer
        self.head = eqx.nn.Linear(2048, 1000, key=key)

    def __call__(self, x):
        """x [channel, height, width]."""
        x = self.pool(jax.nn.relu(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


class BertLayer(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    norms: list

    def __init__(self, key, hidden=768, heads=12, ffn=3072):
        self.attention = eqx.nn.MultiheadAttention(heads, hidden, inference=True, key=key)
        self.up, self.down = eqx.nn.Linear(hidden, ffn, key=key), eqx.nn.Linear(ffn, hidden, key=key)
        self.norms = [eqx.nn.LayerNorm(hidden), eqx.nn.LayerNorm(hidden)]

    def __call__(self, x):
        x = jax.vmap(self.norms[0])(x + self.attention(x, x, x))
        return jax.vmap(self.norms[1])(x + jax.vmap(lambda t: self.down(jax.nn.gelu(self.up(t))))(x))


class Bert(eqx.Module):
    layers: list

    def __init__(self, key):
        self.layers = [BertLayer(key) for _ in range(12)]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class LlamaBlock(eqx.Module):
    q: eqx.nn.Linear
    k: eqx.nn.Linear
    v: eqx.nn.Linear
    o: eqx.nn.Linear
    gate: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    norms: list

    def __init__(self, key, hidden=4096, kv=1024, ffn=14336):
        sizes = {"q": hidden, "k": kv, "v": kv, "o": hidden, "gate": ffn, "up": ffn}
        for name, n in sizes.items():
            setattr(self, name, eqx.nn.Linear(hidden, n, use_bias=False, key=key, dtype=jnp.bfloat16))
        self.down = eqx.nn.Linear(ffn, hidden, use_bias=False, key=key, dtype=jnp.bfloat16)
        self.norms = [eqx.nn.RMSNorm(hidden, dtype=jnp.bfloat16) for _ in range(2)]

    def __call__(self, x):
        tokens, hidden = x.shape
        y = jax.vmap(self.norms[0])(x)
        q, k, v = (jax.vmap(p)(y).reshape(1, tokens, -1, 128) for p in (self.q, self.k, self.v))
        mixed = jax.nn.dot_product_attention(rotary(q), rotary(k), v, is_causal=True)
        x = x + jax.vmap(self.o)(mixed.reshape(tokens, hidden))
        y = jax.vmap(self.norms[1])(x)
        return x + jax.vmap(lambda t: self.down(jax.nn.silu(self.gate(t)) * self.up(t)))(y)


def abstract(build):
    """The module with shapes for parameters."""
    return eqx.filter_eval_shape(build, jax.random.key(0))
