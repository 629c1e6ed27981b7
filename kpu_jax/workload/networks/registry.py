"""Networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from kpu_jax.base.errors import KPUError, check_choice, nearest, shown
from kpu_jax.workload.networks import language, mobilenet, perceptron, resnet, vit
from kpu_jax.workload.table import Workload

_NETWORKS: dict[str, Callable[..., Workload]] = {
    f.__name__: f
    for f in (
        resnet.resnet50,
        mobilenet.mobilenet_v2,
        vit.vit_b16,
        vit.vit_l16,
        language.bert_base,
        language.bert_large,
        language.gpt2,
        language.gpt2_xl,
        language.gpt3_6_7b,
        language.gpt3_175b,
        language.llama2_7b,
        language.llama3_8b,
        language.llama3_70b,
        perceptron.mlp,
        perceptron.dlrm,
    )
}

NETWORK_NAMES: tuple[str, ...] = tuple(_NETWORKS)
"""Names that `network` knows; each is a function of this package too."""


def network(name: str, /, **arguments: Any) -> Workload:
    """The network called `name` with its arguments. Raises `KPUError` for unknown names of either."""
    builder = _NETWORKS[check_choice("network", name, NETWORK_NAMES)]
    known = inspect.signature(builder).parameters
    for argument in arguments:
        if argument not in known:
            raise KPUError(f"network {name!r} has no argument {shown(argument)}: {nearest(argument, known)}")
    return builder(**arguments)
