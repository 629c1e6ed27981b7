"""ResNet-50, BERT-base and a Llama block in plain JAX, with parameters as shapes only."""

import jax
import jax.numpy as jnp

STAGES = ((3, 64, 256), (4, 128, 512), (6, 256, 1024), (3, 512, 2048))


def shape(*size, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(size, dtype)


def conv(x, w, stride=1):
    pad = w.shape[0] // 2
    return jax.lax.conv_general_dilated(x, w, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def resnet50_parameters():
    blocks, channels = [], 64
    for stage, (count, inner, outer) in enumerate(STAGES):
        for block in range(count):
            block_parameters = {"a": shape(1, 1, channels, inner), "b": shape(3, 3, inner, inner), "c": shape(1, 1, inner, outer)}
            if block == 0:
                block_parameters["project"] = shape(1, 1, channels, outer)
            blocks.append((2 if block == 0 and stage > 0 else 1, block_parameters))
            channels = outer
    return {"stem": shape(7, 7, 3, 64), "blocks": [b for _, b in blocks], "head": shape(2048, 1000)}, [s for s, _ in blocks]


def resnet50(strides):
    def apply(p, x):
        x = jax.nn.relu(conv(x, p["stem"], 2))
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), [(0, 0), (1, 1), (1, 1), (0, 0)])
        for stride, b in zip(strides, p["blocks"], strict=True):
            y = jax.nn.relu(conv(x, b["a"]))
            y = conv(jax.nn.relu(conv(y, b["b"], stride)), b["c"])
            x = jax.nn.relu(y + (conv(x, b["project"], stride) if "project" in b else x))
        return x.mean((1, 2)) @ p["head"]

    return apply


def bert_parameters(layers=12, hidden=768, ffn=3072):
    layer = {"qkv": (3, hidden, hidden), "o": (hidden, hidden), "up": (hidden, ffn), "down": (ffn, hidden)}
    return {name: shape(layers, *size) for name, size in layer.items()}


def norm(x):
    return (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)


def bert(p, x, heads=12):
    """x [batch, token, hidden], the layers scanned."""

    def layer(x, w):
        split = (*x.shape[:2], heads, x.shape[-1] // heads)
        q, k, v = (jnp.dot(x, w["qkv"][i]).reshape(split) for i in range(3))
        scores = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 8.0)
        y = jnp.einsum("bhqk,bkhd->bqhd", scores, v).reshape(x.shape)
        x = norm(x + y @ w["o"])
        return norm(x + jax.nn.gelu(x @ w["up"]) @ w["down"]), None

    return jax.lax.scan(layer, x, p)[0]


def llama_parameters(hidden=4096, heads=32, kv_heads=8, ffn=14336):
    d = hidden // heads
    sizes = {"q": hidden, "k": kv_heads * d, "v": kv_heads * d, "o": hidden, "gate": ffn, "up": ffn}
    return {**{k: shape(hidden, n, dtype=jnp.bfloat16) for k, n in sizes.items()}, "down": shape(ffn, hidden, dtype=jnp.bfloat16)}


def rotary(x):
    angle = jnp.arange(x.shape[1])[:, None, None] * jnp.exp(-jnp.arange(x.shape[-1] // 2) / 10.0)
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def rms(x):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def llama_block(p, x, heads=32, kv_heads=8):
    """One layer on x [batch, token, hidden], grouped queries, causal mask."""
    batch, tokens, hidden = x.shape
    d = hidden // heads
    y = rms(x)
    with jax.named_scope("attention"):
        q = rotary((y @ p["q"]).reshape(batch, tokens, heads, d)).reshape(batch, tokens, kv_heads, heads // kv_heads, d)
        k = rotary((y @ p["k"]).reshape(batch, tokens, kv_heads, d))
        v = (y @ p["v"]).reshape(batch, tokens, kv_heads, d)
        scores = jnp.einsum("bqghd,bkgd->bghqk", q, k)
        scores = jnp.where(jnp.tril(jnp.ones((tokens, tokens), bool)), scores, -1e9)
        mixed = jnp.einsum("bghqk,bkgd->bqghd", jax.nn.softmax(scores), v)
        x = x + mixed.reshape(batch, tokens, hidden) @ p["o"]
    with jax.named_scope("feed_forward"):
        y = rms(x)
        return x + (jax.nn.silu(y @ p["gate"]) * (y @ p["up"])) @ p["down"]
