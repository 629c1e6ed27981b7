"""Traced models against `kpu.networks`, the chain rule and XLA."""

import time

import equinox_models
import flax_models
import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain_models
import pytest
from plain_models import shape

import kpu_jax as kpu
from kpu_jax.workload import networks

IMAGE = shape(1, 224, 224, 3)
TEXT = shape(1, 128, 768)
TOKENS = shape(1, 128, 4096, dtype=jnp.bfloat16)
RESNET = networks.resnet50().macs.sum()
BERT = networks.bert_base().macs.sum()
LLAMA_LAYER = networks.TransformerSpec(1, 4096, 32, 14336, kv_heads=8, gated=True)
LLAMA = networks.transformer(LLAMA_LAYER, new_tokens=128).macs.sum()


def plain_resnet():
    parameters, strides = plain_models.resnet50_parameters()
    return plain_models.resnet50(strides), parameters


def apply(model, x):
    return model(x)


def apply_vmapped(model, x):
    return jax.vmap(model)(x)


def flax_resnet():
    model = flax_models.abstract(flax_models.ResNet50)
    model.eval()
    return model


MODELS = {
    "plain resnet": (RESNET, lambda: (*plain_resnet(), IMAGE)),
    "plain bert": (BERT, lambda: (plain_models.bert, plain_models.bert_parameters(), TEXT)),
    "plain llama": (LLAMA, lambda: (plain_models.llama_block, plain_models.llama_parameters(), TOKENS)),
    "flax resnet": (RESNET, lambda: (flax_resnet(), IMAGE)),
    "flax bert": (BERT, lambda: (apply, flax_models.abstract(flax_models.Bert), TEXT)),
    "flax llama": (LLAMA, lambda: (apply, flax_models.abstract(flax_models.LlamaBlock), TOKENS)),
    "equinox resnet": (RESNET, lambda: (apply_vmapped, equinox_models.abstract(equinox_models.ResNet50), shape(1, 3, 224, 224))),
    "equinox bert": (BERT, lambda: (apply_vmapped, equinox_models.abstract(equinox_models.Bert), TEXT)),
    "equinox llama": (LLAMA, lambda: (apply_vmapped, equinox_models.abstract(equinox_models.LlamaBlock), TOKENS)),
}


OFTEN = ("plain resnet", "plain bert", "plain llama", "flax resnet", "flax bert", "equinox bert", "equinox llama")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in OFTEN else pytest.mark.long) for n in MODELS])
def test_models_cost_what_the_networks_say(name):
    macs, build = MODELS[name]
    fn, *args = build()
    net = kpu.trace(fn)(*args)
    assert net.macs.sum() == macs
    assert not net.host_work and len(net.origins) == len(net)
    assert all(o.source for o in net.origins) and len(set(net.names)) == len(net)


def test_resnet_layer_by_layer():
    fn, parameters = plain_resnet()
    traced = kpu.trace(fn, dtype="int8")(parameters, IMAGE).gemm_work()
    fields = ("kind", "m", "n", "k", "batch", "in_h", "out_h", "kernel_h", "stride_h", "pad_top", "channels", "a_bits")
    sizes = [sorted(tuple(float(getattr(op, x)) for x in fields) for _, op in net) for net in (traced, networks.resnet50())]
    assert sizes[0] == sizes[1]


def data_macs(net):
    return (net.macs - net.zero_macs).sum()


def test_the_gradient_of_convolutions_costs_the_chain_rule():
    fn, parameters = plain_resnet()
    forward = kpu.trace(fn)(parameters, IMAGE)
    both = kpu.trace(jax.value_and_grad(lambda p, x: fn(p, x).sum()))(parameters, IMAGE)
    first = forward.macs[0] - forward.zero_macs[0]
    assert forward.names[0].endswith("conv") and first > 0
    assert data_macs(both) == 3 * data_macs(forward) - first  # the image needs no gradient
    assert both.macs.sum() > 3 * forward.macs.sum() - forward.macs[0]  # strides put zeros in: dense products are more


def test_the_gradient_of_products_costs_the_chain_rule():
    parameters = plain_models.llama_parameters()

    def loss(p, x):
        return plain_models.llama_block(p, x).astype(jnp.float32).sum()

    forward = kpu.trace(loss)(parameters, TOKENS)
    assert kpu.trace(jax.value_and_grad(loss, argnums=(0, 1)))(parameters, TOKENS).macs.sum() == 3 * forward.macs.sum()
    mlp = [shape(20, 30), shape(30, 10)]

    def perceptron(p, x):
        return jnp.sum(jnp.tanh(x @ p[0]) @ p[1])

    forward = kpu.trace(perceptron)(mlp, shape(8, 20))
    both = kpu.trace(jax.value_and_grad(perceptron))(mlp, shape(8, 20))
    assert forward.macs.sum() == 8 * (600 + 300) and both.macs.sum() == 3 * forward.macs.sum() - 8 * 600


def test_a_scanned_gradient_costs_the_chain_rule():
    parameters = plain_models.bert_parameters()
    forward = kpu.trace(plain_models.bert)(parameters, TEXT)
    both = kpu.trace(jax.value_and_grad(lambda p, x: plain_models.bert(p, x).sum()))(parameters, TEXT)
    assert set(forward.repeats) == {12} and both.macs.sum() == 3 * forward.macs.sum()


def test_a_whole_optimiser_step():
    fn, parameters = plain_resnet()
    optimiser = optax.adam(1e-3)

    def step(p, state, x):
        value, slope = jax.value_and_grad(lambda p, x: fn(p, x).sum())(p, x)
        updates, state = optimiser.update(slope, state)
        return optax.apply_updates(p, updates), state, value

    net = kpu.trace(step)(parameters, jax.eval_shape(optimiser.init, parameters), IMAGE)
    both = kpu.trace(jax.value_and_grad(lambda p, x: fn(p, x).sum()))(parameters, IMAGE)
    assert net.macs.sum() == both.macs.sum()
    weights = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(parameters))
    written = sum(t.bytes for o in net.origins for t in o.writes if t.result)
    assert written == 4 * (3 * weights + 2)  # weights and two moments; the step and the value


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (lambda a, b, c: a @ b @ c, (shape(256, 384), shape(384, 512), shape(512, 64))),
        (lambda a, b: jnp.einsum("bhqd,bhkd->bhqk", a, b), (shape(2, 4, 64, 32), shape(2, 4, 96, 32))),
        (lambda a, b: jnp.einsum("abcd,dbe->ace", a, b), (shape(16, 8, 32, 24), shape(24, 8, 40))),
        (jax.grad(lambda w, x: jnp.sum((x @ w) ** 2)), (shape(256, 128), shape(512, 256))),
        (lambda x, w: plain_models.conv(x, w), (shape(2, 34, 34, 64), shape(1, 1, 64, 128))),
    ],
)
def test_flops_agree_with_xla(fn, args):
    """XLA counts element-wise work too, which these functions hardly have."""
    flops = jax.jit(fn).lower(*args).compile().cost_analysis()["flops"]
    assert 2 * kpu.trace(fn)(*args).macs.sum() == pytest.approx(flops, rel=0.02)


def test_xla_counts_a_padded_convolution_by_its_data():
    """XLA leaves products with padding out; so do `macs - zero_macs`, exactly."""
    args = shape(1, 15, 17, 8), shape(5, 5, 8, 16)
    flops = jax.jit(lambda x, w: plain_models.conv(x, w, 2)).lower(*args).compile().cost_analysis()["flops"]
    assert 2 * data_macs(kpu.trace(lambda x, w: plain_models.conv(x, w, 2))(*args)) == flops


def test_a_thousand_scanned_layers_stay_one():
    def layers(parameters, x):
        return jax.lax.scan(lambda x, p: (jax.nn.relu(x @ p[0] + p[1]) + x, None), x, parameters)[0]

    def net(count):
        return kpu.trace(layers)((shape(count, 64, 64), shape(count, 64)), shape(8, 64))

    ten = net(10)
    start = time.perf_counter()
    thousand = net(1000)
    print(f"traced 1,000 layers in {time.perf_counter() - start:.3f} s")
    assert thousand.rows == ten.rows and thousand.macs.sum() == 1000 * 8 * 64 * 64 == 100 * ten.macs.sum()
    chip, mapping = kpu.presets.edge_ai(), kpu.Mapping(l3_tile=(8, 64, 64), l2_tile=(8, 16, 64))
    few, many = (kpu.simulate(chip, n, mapping, timing="bound") for n in (ten, thousand))
    assert float(many.cycles) == pytest.approx(100 * float(few.cycles))


def test_gradients_by_the_frameworks_own_functions():
    model = flax_models.abstract(lambda rngs: flax_models.Block(64, 16, 64, 1, rngs))
    x = shape(2, 8, 8, 64)

    def loss(m, x):
        return jnp.sum(m(x) ** 2)  # batch norm in training: its statistics change

    forward = kpu.trace(loss)(model, x)
    both = kpu.trace(lambda m, x: flax_models.nnx.value_and_grad(loss)(m, x))(model, x)
    assert data_macs(both) == 3 * data_macs(forward) - forward.macs[0] > 0
    layer = equinox_models.abstract(lambda key: equinox_models.BertLayer(key, 64, 4, 128))
    forward = kpu.trace(loss)(layer, shape(16, 64))
    both = kpu.trace(equinox_models.eqx.filter_value_and_grad(loss))(layer, shape(16, 64))
    assert both.macs.sum() == 3 * forward.macs.sum() - 3 * 16 * 64 * 64  # x itself needs no gradient, by q, k and v
