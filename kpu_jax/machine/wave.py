"""The wave of operands through the PE grid in one pass, cycle by cycle: for looking at."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.errors import check_choice, check_number
from kpu_jax.machine.arithmetic import arithmetic
from kpu_jax.machine.formats import number_format
from kpu_jax.machine.grid import Activity, step_pass
from kpu_jax.mapping import DATAFLOWS

MOST = 512  # [PEs, elements] along a side: the activity has rows x cols numbers per cycle


def wave(m: int, n: int, k: int, *, rows: int, cols: int, dataflow: str = "output_stationary", macs_per_pe: int = 1) -> Activity:
    """Which PEs fire when, in one pass of C[m, n] = A[m, k] B[k, n] on an array of `rows` x `cols` PEs.

    Steps the array of `kpu.machine.run`, with operands that are nowhere zero. `fired` [cycle, rows, cols] counts
    multiply-adds; NumPy arrays, exact. The block must fit the array: output-stationary m <= rows, n <= cols;
    weight-stationary k <= rows macs_per_pe, n <= cols; input-stationary k <= rows macs_per_pe, m <= cols. Raises
    `KPUError` naming the side that does not fit.
    """
    flow = list(DATAFLOWS).index(check_choice("dataflow", dataflow, DATAFLOWS))
    height, width = (int(check_number(name, v, "PEs", low=1, high=MOST, integer=True)) for name, v in (("rows", rows), ("cols", cols)))
    rate = int(check_number("macs_per_pe", macs_per_pe, "multiply-adds per cycle", low=1, high=64, integer=True))
    deep = height * rate
    most = {
        "output_stationary": {"m": height, "n": width, "k": MOST * rate},
        "weight_stationary": {"m": MOST, "n": width, "k": deep},
        "input_stationary": {"m": width, "n": MOST, "k": deep},
    }[dataflow]
    given = {"m": m, "n": n, "k": k}
    sizes = {x: int(check_number(x, given[x], f"elements, of one {dataflow} pass", low=1, high=most[x], integer=True)) for x in "mnk"}
    stream = {"output_stationary": "k", "weight_stationary": "m", "input_stationary": "n"}[dataflow]
    padded = most | {stream: sizes[stream] if stream != "k" else -(-sizes["k"] // rate) * rate}
    how = arithmetic(number_format("dtype", "int8"), number_format("dtype", "int8"))
    a, b = jnp.ones((padded["m"], padded["k"]), how.dtype), jnp.ones((padded["k"], padded["n"]), how.dtype)
    acc = jnp.zeros((padded["m"], padded["n"]), how.dtype)
    extents = jnp.array([sizes["m"], sizes["n"], sizes["k"]])
    step = jax.jit(functools.partial(step_pass, how, flow, rate))
    return jax.tree.map(np.asarray, step(a, b, acc, extents)[1])
