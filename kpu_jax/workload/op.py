"""One operation as a record of numbers: a row of the op table, and, with stacked leaves, the table itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.pytree import build, is_traced, record
from kpu_jax.workload.dtypes import MAC_FORMATS

KINDS: tuple[str, ...] = ("gemm", "conv", "vector")  # names of the codes in `Op.kind`
GEMM = 0  # `Op.kind` of a matrix product
CONV = 1  # `Op.kind` of a convolution
VECTOR = 2  # `Op.kind` of element-wise work

ACTIVATIONS: tuple[str, ...] = ("none", "relu", "gelu", "sigmoid", "tanh", "silu", "leaky_relu")
"""Names of the activation codes."""

LOCATIONS: tuple[str, ...] = ("host", "external", "l3")
"""Names of the location codes: host memory, external memory (DRAM), L3."""


Leaf = Any  # a NumPy float64 on the host, an array or a tracer under JAX's transformations


@record
class Op:
    """One operation; every field is a numeric leaf (np.float64 on the host), all of one shape: () or [op].

    A GEMM is C[m,n] = A[m,k] B[k,n], `batch` times. A convolution is one too, with m = (image, p, q), q fastest,
    and k = (r, s, channel), channel fastest; groups are the batch. A vector operation has m = elements, n = k = 1.
    Window fields are neutral (1, padding 0) where `kind` is not conv: read them only under `kind == CONV`.
    """

    kind: Leaf  # index into KINDS
    m: Leaf  # rows of A and C [elements]
    n: Leaf  # columns of B and C [elements]
    k: Leaf  # columns of A, rows of B [elements]
    batch: Leaf  # independent products of this shape inside one operation
    count: Leaf  # how often the whole operation occurs; 0 in padded rows
    a_bits: Leaf  # [bit/element]; vector: all inputs of one element together
    b_bits: Leaf  # [bit/element]; vector: 0
    c_bits: Leaf  # [bit/element]; vector: output bits per input element, fractional for reductions
    acc_bits: Leaf  # partial sums [bit/element]
    mac_format: Leaf  # index into MAC_FORMATS
    has_bias: Leaf  # 0 or 1
    activation: Leaf  # index into ACTIVATIONS
    density_a: Leaf  # stored fraction of A (block-sparse), (0, 1]
    density_b: Leaf  # stored fraction of B, (0, 1]
    zero_gating: Leaf  # fraction of MACs that switch, (0, 1]; energy only
    loc_a: Leaf  # index into LOCATIONS: where A starts
    loc_b: Leaf  # where B starts
    loc_c: Leaf  # where C ends
    reserved_l3_bytes: Leaf  # L3 that other data occupies meanwhile [byte]; operands in L3 count by themselves
    images: Leaf
    in_h: Leaf  # [pixels], unpadded
    in_w: Leaf
    out_h: Leaf  # [pixels]
    out_w: Leaf
    kernel_h: Leaf
    kernel_w: Leaf
    channels: Leaf  # input channels per group
    stride_h: Leaf
    stride_w: Leaf
    pad_top: Leaf  # [pixels]; bottom and right follow from in, out, kernel, stride, dilation
    pad_left: Leaf
    dilation_h: Leaf
    dilation_w: Leaf
    vector_simple: Leaf  # vector-engine primitives per element: additions, products, comparisons, moves
    vector_exp: Leaf  # exponentials per element
    vector_div: Leaf  # divisions per element
    vector_sqrt: Leaf  # square roots per element

    @property
    def macs(self) -> Any:
        """Multiply-accumulates of one instance, batch * m * n * k (0 for vector work; `count` not included).

        np.float64 (exact to 2^53) for concrete leaves, in the ambient precision when traced.
        """
        factors = (self.kind, self.batch, self.m, self.n, self.k)
        if is_traced(factors):
            kind, batch, m, n, k = factors
            return jnp.where(kind == VECTOR, 0.0, batch * m * n * k)  # type: ignore[operator]
        kind, batch, m, n, k = (np.asarray(x, np.float64) for x in factors)
        return np.where(kind == VECTOR, 0.0, batch * m * n * k)[()]

    def plain(self) -> Op:
        """The same leaves as a bare `Op`, so that compiled functions meet a single type."""
        return self if type(self) is Op else build(Op, **leaves(self))

    def __repr__(self) -> str:
        title = type(self).__name__
        if is_traced(self) or any(np.ndim(x) or not _is_number(x) for x in leaves(self).values()):
            shapes = {np.shape(x) for x in leaves(self).values() if _is_number(x) or hasattr(x, "shape")}
            return f"{title} of leaves {', '.join(map(str, sorted(shapes)))}"
        kind = int(self.kind)
        words = [title if title != "Op" else f"Op {KINDS[kind]}"]
        if kind == CONV:
            stride = (
                f"/{self.stride_h:g}" if self.stride_h == self.stride_w else f"/{self.stride_h:g}x{self.stride_w:g}"
            )
            words.append(f"{self.in_h:g}x{self.in_w:g} window {self.kernel_h:g}x{self.kernel_w:g}{stride}")
        words += [f"m={_whole(self.m)}"] if kind == VECTOR else [f"{x}={_whole(getattr(self, x))}" for x in "mnk"]
        words += [f"{x}={_whole(getattr(self, x))}" for x in ("batch", "count") if getattr(self, x) != 1]
        words += [ACTIVATIONS[int(self.activation)]] if self.activation else []
        return " ".join([*words, MAC_FORMATS[int(self.mac_format)], *self._options()])

    def _options(self) -> list[str]:
        """What differs from a dense operation of one format on data in external memory."""
        words = ["bias"] if self.has_bias else []
        bits = (self.a_bits, self.b_bits, self.c_bits)
        if self.kind != VECTOR and len(set(bits)) > 1:
            words.append("A,B,C of " + ",".join(map(_whole, bits)) + " bits")
        if self.kind != VECTOR and self.acc_bits != 32:
            words.append(f"accumulated in {_whole(self.acc_bits)} bits")
        words += [f"{x}={_whole(getattr(self, x))}" for x in ("density_a", "density_b", "zero_gating") if getattr(self, x) != 1]
        places = [LOCATIONS[int(code)] for code in (self.loc_a, self.loc_b, self.loc_c)]
        if set(places) != {"external"}:
            words.append("A,B,C on " + ",".join(places))
        if self.reserved_l3_bytes:
            words.append(f"reserved_l3_bytes={_whole(self.reserved_l3_bytes)}")
        return words


FIELDS: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(Op))
"""Leaf names of `Op`, in order."""

NEUTRAL_WINDOW: dict[str, float] = {
    **dict.fromkeys(FIELDS[FIELDS.index("images") : FIELDS.index("pad_top")], 1.0),
    "pad_top": 0.0,
    "pad_left": 0.0,
    "dilation_h": 1.0,
    "dilation_w": 1.0,
}
"""Window fields of an operation that is not a convolution."""


def leaves(op: Op) -> dict[str, Any]:
    """Field name -> leaf."""
    return {name: getattr(op, name) for name in FIELDS}


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, np.number, np.ndarray, jax.Array))


def _whole(x: Any) -> str:
    return str(int(x)) if float(x).is_integer() else f"{float(x):g}"
