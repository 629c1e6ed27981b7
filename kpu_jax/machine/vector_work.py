"""Vector operations: chains of element-wise functions, normalisations and one reduction, on the vector engine.

All-integer chains of `INTEGER` functions are computed in int32 (modulo 2^32), all others in float32. A reduction adds
in ascending order to one accumulator per row and carries it from block to block; functions of whole rows need them whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.base.errors import DtypeError, KPUError, ShapeError, check_choice, is_number, shown
from kpu_jax.machine.fabric import elementwise
from kpu_jax.machine.formats import as_array
from kpu_jax.machine.places import MachineError
from kpu_jax.machine.state import Bag, Instruction, State, Sum
from kpu_jax.machine.vector_engine import FUNCTIONS as ACTIVATED
from kpu_jax.program.blocks import OPERAND_AXES
from kpu_jax.workload.op import ACTIVATIONS

EPSILON = 1e-5  # of the normalisations, added to the mean square
ROTARY_BASE = 10_000.0
OF_TWO: dict[str, Callable[[Any, Any], Any]] = {
    "add": jnp.add, "sub": jnp.subtract, "mul": jnp.multiply, "div": jnp.divide, "max": jnp.maximum, "min": jnp.minimum,
    "add_relu": lambda x, y: jnp.maximum(x + y, 0),
}  # fmt: skip
OF_ONE: dict[str, Callable[[Any], Any]] = {
    "copy": lambda x: x,
    "exp": jnp.exp,
    "rsqrt": jax.lax.rsqrt,
    **{name: ACTIVATED[name] for name in ACTIVATIONS[1:]},
    "relu": lambda x: jnp.maximum(x, 0),
}
REDUCTIONS: dict[str, np.ufunc] = {"sum": np.add, "average": np.add, "max_reduce": np.maximum}


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _layernorm(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return _rmsnorm(centred)


def _rmsnorm(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(EPSILON))


def _rotary(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Elements i and i + half of a row turned by position / ROTARY_BASE^(i / half) [rad] (Su et al., arXiv:2104.09864)."""
    half = x.shape[-1] // 2
    angles = positions[:, None] * ROTARY_BASE ** (-np.arange(half) / half)
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    low, high = x[:, :half], x[:, half:]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=1)


OF_ROWS: dict[str, Callable[..., np.ndarray]] = {
    "softmax": _softmax, "layernorm": _layernorm, "rmsnorm": _rmsnorm, "rotary": _rotary,
}  # fmt: skip
FUNCTIONS = (*OF_TWO, *OF_ONE, "scale", *OF_ROWS, *REDUCTIONS)
INTEGER = ("add", "sub", "mul", "max", "min", "add_relu", "copy", "relu", "sum", "max_reduce")


class VectorWork:
    """What a program's vector passes compute of rows of `row` elements, and the reductions that they have begun."""

    def __init__(self, chain: tuple[str, ...], row: int, scale: Any, positions: np.ndarray) -> None:
        """`chain`: names of `FUNCTIONS`, in the order in which they apply; `scale` is the factor of "scale".

        `positions` [row]: where each row stands in its sequence, for "rotary".
        """
        self.chain, self.row, self.scale, self.positions = chain, row, scale, positions
        self.reduces = bool({*chain} & {*REDUCTIONS})
        self._carried: dict[int, Any] = {}  # element -> accumulator of the row that goes on there

    def compute(self, state: State, ins: Instruction) -> None:
        """Carry out a FABRIC_PASS of a vector operation: every compute tile's elements through the chain."""
        fed, move = state.at[1, "A"].get(ins.key(1, OPERAND_AXES["A"])), state.counters.move
        key = ins.key(1, OPERAND_AXES["C"])
        m3, m2, m1 = ins.along("m")
        elements = state.geometry.l3_indices("m", m3)
        of_tile = {p.tile: p.span for p in state.geometry.l2_parts("m", m3, m2)}
        done, most = Bag(), 0
        for group in state.geometry.groups(ins.batch):
            for part in state.geometry.pass_parts("m", m3, m2, m1):
                records = fed.values[group, part.tile, 0]
                move("A", "l1", "pe", records.size * state.blocks.bytes["A"])
                first = int(elements[of_tile[part.tile]][part.span][0])
                done[group, part.tile, 0, 0] = Sum(self._values(records.ravel(), first)[:, None], 1)
                most = max(most, records.size)
        state.fabric_cycles += -(-most // state.blocks.cols)
        if state.blocks.dataflow == 0:
            state.accumulating = key, done
            return
        sums = state.bag(1, key)
        for tile, piece in done.items():
            move("C", "pe", "l1", state.piece_bytes(piece))
            state.set_piece(1, sums, tile, piece)

    def shaped(self, c: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The results [1, elements, 1] in the shape of A, less its last axis after a reduction."""
        return c.reshape(-1, self.row)[:, -1].reshape(shape[:-1]) if self.reduces else c.reshape(shape)

    def _values(self, records: np.ndarray, first: int) -> np.ndarray:
        """The chain applied to elements `first` on; after a reduction a row's last element holds its result."""
        inputs = [np.ascontiguousarray(records[name]) for name in records.dtype.names or ()]
        x, others = inputs[0], inputs[1:]
        for name in self.chain:
            if name in OF_TWO:
                x = elementwise(OF_TWO[name], x, *others)
            elif name == "scale":
                x = elementwise(jnp.multiply, x, np.full(x.shape, self.scale, np.float32))
            elif name in OF_ONE:
                x = elementwise(OF_ONE[name], x)
            elif name in OF_ROWS:
                if first % self.row or len(x) % self.row:
                    raise MachineError(
                        f"{name} works on whole rows of {self.row} elements, and a pass covers elements {first} to {first + len(x) - 1}: "
                        "take tiles, and shares of the compute tiles, of whole rows"
                    )
                rows = x.reshape(-1, self.row)
                own = (self.positions[first // self.row :][: len(rows)],) if name == "rotary" else ()
                x = OF_ROWS[name](rows, *own).ravel()
            else:
                x = self._reduced(name, x, first)
        return x

    def _reduced(self, name: str, x: np.ndarray, first: int) -> np.ndarray:
        """Running sums or maxima along each row, carried on from the block before; a mean where a row ends."""
        combine, out, at = REDUCTIONS[name], np.empty_like(x), 0
        while at < len(x):
            start = (first + at) % self.row
            end = min(at + self.row - start, len(x))
            values = x[at:end]
            if start:
                if first + at not in self._carried:
                    raise MachineError(
                        f"{name} reduces rows of {self.row} elements, and a compute tile begins at element {first + at}, within one: "
                        "take shares of the compute tiles of whole rows"
                    )
                values = np.concatenate([[self._carried.pop(first + at)], values]).astype(x.dtype)
            running = combine.accumulate(values)[-(end - at) :]
            if start + end - at < self.row:
                self._carried[first + end] = running[-1]
            out[at:end] = running / np.float32(self.row) if name == "average" else running
            at = end
        return out


def chain_of(op: Any, function: Any) -> tuple[str, ...]:
    """The functions that a vector program is to compute; `KPUError` for a chain that the engine cannot run.

    `function`: a name, several in order, or None for the activation that the operation itself is.
    """
    own = ACTIVATIONS[int(op.activation)]
    if function is None and int(op.activation) == 0:
        raise KPUError(
            "a vector operation's program says what moves, not which function it computes: "
            f"give function=, a name or several in order; valid: {', '.join(FUNCTIONS)}"
        )
    names = (own,) if function is None else (function,) if isinstance(function, str) else tuple(function)
    for name in names:
        check_choice("function", name, FUNCTIONS)
    if not names:
        raise KPUError("function must name at least one function of the vector engine, got none")
    if int(op.activation) and own not in names:
        raise KPUError(f"function = {', '.join(names)}: the program's operation is {own}")
    if any(name in OF_TWO for name in names[1:]):
        raise KPUError(f"function = {', '.join(names)}: a function of two operands can only come first")
    reduced = [i for i, name in enumerate(names) if name in REDUCTIONS]
    if len(reduced) > 1 or (reduced and any(name in OF_ROWS for name in names[reduced[0] :])):
        raise KPUError(f"function = {', '.join(names)}: there is one reduction at most, and no function of whole rows after it")
    return names


def positions_of(chain: tuple[str, ...], shape: tuple[int, ...], given: Any) -> np.ndarray:
    """[row] float64: where each row of A stands in its sequence; `given` broadcast to A's leading axes.

    None: 0, 1, 2, ... along the last of these. Raises `KPUError` where there is nothing to turn, or no pairs.
    """
    if "rotary" not in chain:
        if given is not None:
            raise KPUError(f'positions are those of "rotary", which is not among {", ".join(chain)}')
        return np.zeros(0)
    if shape[-1] % 2:
        raise ShapeError(f"rotary turns pairs of elements: rows must have an even number, got {shape[-1]}")
    if given is None:
        given = np.arange(shape[-2]) if len(shape) > 1 else 0
    places = as_array("positions", given)
    if not is_number(places):
        raise DtypeError(f"positions must be numbers, got {shown(given)}")
    try:
        return np.broadcast_to(np.asarray(places, np.float64), shape[:-1]).ravel()
    except ValueError:
        raise ShapeError(f"positions of shape {places.shape} do not broadcast to A's leading axes {shape[:-1]}") from None


def records_of(op: Any, arrays: dict[str, np.ndarray], dtypes: dict[str, Any]) -> np.ndarray:
    """[elements, 1] records of the operands of each element, "A" and "B" if there are two; B broadcasts to A's shape."""
    a = arrays["A"]
    if a.size != int(op.m) or not a.ndim:
        raise ShapeError(f"arrays['A'] must have the {int(op.m)} elements of this program, got shape {a.shape}")
    records = np.zeros((a.size, 1), [(name, dtypes[name]) for name in sorted(arrays)])
    for name, values in arrays.items():
        try:
            records[name][:, 0] = np.broadcast_to(values.astype(dtypes[name]), a.shape).ravel()
        except ValueError:
            raise ShapeError(f"arrays[{name!r}] of shape {values.shape} does not broadcast to A's shape {a.shape}") from None
    return records
