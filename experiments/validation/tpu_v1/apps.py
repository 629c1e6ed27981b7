"""The applications of the TPU v1 paper as layers, and how the chip computes them.

The paper gives layers, weights and batch of each application, not its shapes. Assumed: the layers of a kind are alike;
fully connected ones are square; activations stay in the unified buffer. CNN0 has 2888 = 8 x 361 multiply-adds per weight
at batch 8, so every layer is a 19 x 19 board: one 5 x 5 layer of 48 planes, fourteen 3 x 3 layers of 256 filters and
one 1 x 1 layer to a single plane (8.6 million weights), the published architecture of its kind (Silver et al., Nature
2016). LSTM0's 34 vector layers are one sigmoid each over its batch and width.

A convolution is the product over its taps: the weight tile of 256 channels at tap (r, s) meets the input shifted by
(r, s), which is in the unified buffer once. `Gemm` reserves L3 for every shifted copy, more than the hardware needs, and
moves none of them there.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import NamedTuple

import kpu_jax as kpu
from kpu_jax.workload.op import Op

SIDE = 256  # of the array and of a weight tile


class Layer(NamedTuple):
    """A kind of layer: C[m,n] = A[m,k] B[k,n] with weights B, or m elements of a vector operation (n = 0)."""

    m: int
    n: int
    k: int
    count: int
    activation: str = "relu"

    def op(self, layers: int) -> Op:
        """So many of them at once; they share nothing but the engines."""
        if self.n == 0:
            return kpu.VectorOp(self.m * layers, function=self.activation, data_on="l3")
        return kpu.Gemm(self.m, self.n, self.k, batch=layers, activation=self.activation, data_on={"A": "l3", "C": "l3"})


def _square(weights: float, layers: int) -> int:
    return round(math.sqrt(weights / layers))


def _connected(weights: float, layers: int, batch: int) -> Layer:
    side = _square(weights, layers)
    return Layer(batch, side, side, layers)


BOARD = 8 * 19 * 19  # positions of a batch
APPS: dict[str, tuple[Layer, ...]] = {
    "MLP0": (_connected(20e6, 5, 200),),
    "MLP1": (_connected(5e6, 4, 168),),
    "LSTM0": (
        _connected(52e6, 24, 64)._replace(activation="none"),
        Layer(64 * _square(52e6, 24), 0, 0, 34, "sigmoid"),
    ),
    "CNN0": (Layer(BOARD, 256, 5 * 5 * 48, 1), Layer(BOARD, 256, 3 * 3 * 256, 14), Layer(BOARD, 1, 256, 1)),
}


@functools.cache
def chip() -> kpu.KPUConfig:
    return kpu.load_config(Path(__file__).with_name("chip.yaml"))


def mapping_of(op: Op) -> kpu.Mapping:
    """Weight tiles of 256 x 256 stay in the array while the whole batch streams past; columns of tiles one by one."""
    rows = int(op.m)
    if int(op.n) == int(op.k) == 1:  # elements: as many at once as the accumulators hold
        return kpu.Mapping(l3_tile=(rows, 1, 1), l2_tile=(min(rows, SIDE * 4096), 1, 1))
    tile = (rows, SIDE, SIDE)
    return kpu.Mapping(dataflow="weight_stationary", l3_tile=tile, l2_tile=tile, l3_order="nmk", l2_order="nmk")
