"""Networks as workloads; each returns a `Workload` of its fabric operations."""

from kpu_jax.workload.networks.language import (
    bert_base,
    bert_large,
    gpt2,
    gpt2_xl,
    gpt3_6_7b,
    gpt3_175b,
    llama2_7b,
    llama3_8b,
    llama3_70b,
    transformer,
)
from kpu_jax.workload.networks.mobilenet import mobilenet_v2
from kpu_jax.workload.networks.perceptron import dlrm, mlp
from kpu_jax.workload.networks.registry import NETWORK_NAMES, network
from kpu_jax.workload.networks.resnet import resnet50
from kpu_jax.workload.networks.transformer import TransformerSpec
from kpu_jax.workload.networks.vit import vit_b16, vit_l16

__all__ = [
    "NETWORK_NAMES",
    "TransformerSpec",
    "bert_base",
    "bert_large",
    "dlrm",
    "gpt2",
    "gpt2_xl",
    "gpt3_6_7b",
    "gpt3_175b",
    "llama2_7b",
    "llama3_8b",
    "llama3_70b",
    "mlp",
    "mobilenet_v2",
    "network",
    "resnet50",
    "transformer",
    "vit_b16",
    "vit_l16",
]
