"""Attention by blocks of query rows, whose scores never leave the chip.

Q K^T, what is done to the scores (softmax), and the product with V are cut into blocks of some heads and some rows of
Q. A block's scores are written to L3, made into probabilities there and multiplied by V from there; every row of scores
is whole, so that its softmax is the ordinary one. Q is read once and the result written once, in parts. K and V of the
heads at hand come in with the first block of rows and stay in L3 for the others; of a mask every block copies its rows.

Every step is an operation with operands in L3, priced by the exact model. The model's part is their sequence: one after
the other, nothing overlapping between steps (an upper bound on the time of this schedule). While K and V come in, their
space is held whole besides the places that they stream through.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kpu_jax.graph.epilogue import without
from kpu_jax.graph.pieces import EXTERNAL, Beside, Piece, Places, Single, Step, changed, fetch, placed, readers_of
from kpu_jax.workload import GEMM, VECTOR, Op

MOST_MIDDLE = 3  # vector operations between the two products
FILLED = (0.25, 0.5, 0.8)  # of L3 by a block's scores and probabilities: what is tried
FEW_HEADS = 5  # numbers of heads at once that are tried
# Primitives after which a row of scores may hold what another held: scans, shifts, choices.
_ACROSS_ROWS = frozenset("cumsum cumprod cummax cummin cumlogsumexp pad concatenate gather dynamic_slice".split())


class Block(NamedTuple):
    """How much is done at once."""

    heads: int  # products of the batch, a divisor of all
    rows: int  # of Q, per head


@dataclasses.dataclass(frozen=True)
class RowBlocks:
    """The work of one attention. Q is A of `scores`, or B where `transposed` (the scores then are K Q^T)."""

    scores: Op
    middle: tuple[Single, ...]
    mix: Op
    transposed: bool
    values_first: bool  # V is A of `mix`, the probabilities are B
    names: tuple[str, ...]  # of the steps
    block: Block

    @property
    def heads(self) -> int:
        return int(self.scores.batch)

    @property
    def rows(self) -> int:
        """Rows of Q per head."""
        return int(self.scores.n if self.transposed else self.scores.m)

    @property
    def keys(self) -> int:
        return int(self.mix.k)

    @property
    def macs(self) -> float:
        return float(self.scores.macs) + float(self.mix.macs)

    def held_bytes(self, operand: str) -> float:
        """Of Q ("A"), of K and V together ("B"), of the result ("C")."""
        if operand == "A":
            return _bytes(self.scores, "B" if self.transposed else "A")
        if operand == "B":
            return _bytes(self.scores, "A" if self.transposed else "B") + _bytes(self.mix, "A" if self.values_first else "B")
        return _bytes(self.mix, "C")

    def score_bytes(self, block: Block) -> float:
        """Bytes of the scores of a block as its fullest step holds them: those it reads and those it writes."""
        fullest = max(float(work.op.a_bits + work.op.c_bits) for work in self.middle)
        return block.heads * block.rows * self.keys * fullest / 8

    def steps(self, name: str, places: Places) -> tuple[Step, ...]:
        """Per block of rows: the scores, what is done to them, the mix. The first block brings K and V in."""
        groups = self.heads / self.block.heads
        full, rest = divmod(self.rows, self.block.rows)
        several = full + (rest > 0) > 1
        kinds = [
            (name, self.block.rows, places.b, 1),
            (f"{name} (next rows)", self.block.rows, True, full - 1),
            (f"{name} (last rows)", rest, True, 1),
        ]
        return tuple(
            step._replace(times=times * groups)
            for title, rows, keys_there, times in kinds
            if rows and times
            for step in self._block(title, rows, places, keys_there, several)
        )

    def _block(self, title: str, rows: int, places: Places, keys_there: bool, keys_stay: bool) -> list[Step]:
        """The steps of one block of `rows`: besides its own operands each leaves room for what the others keep in L3."""
        scores = changed(self.scores, batch=self.block.heads, **{"n" if self.transposed else "m": rows})
        mix = changed(self.mix, batch=self.block.heads, **{"n" if self.values_first else "m": rows})
        query, key = "BA" if self.transposed else "AB"
        value, weights = "AB" if self.values_first else "BA"
        held = places.reserved + sum(self.held_bytes(x) for x, kept in zip("ABC", places[:3], strict=True) if kept)
        if keys_stay and not places.b:
            held += _bytes(scores, key) + _bytes(mix, value)
        read = {query: places.a, key: keys_there}, {value: keys_there, "C": places.c}
        first, *middle, last = self.names
        steps = [Step(f"{title}/{first}", _there(scores, read[0], {"C"}, held), 1.0)]
        for part, work in zip(middle, self.middle, strict=True):
            steps += self._between(f"{title}/{part}", work, rows, held)
        return [*steps, Step(f"{title}/{last}", _there(mix, read[1], {weights}, held), 1.0)]

    def _between(self, name: str, work: Single, rows: int, held: float) -> list[Step]:
        """What is done to the scores of a block, after its share of the arrays besides them was copied to L3."""
        elements = float(self.block.heads * rows * self.keys)
        besides = tuple(self._share(array, rows) for array in work.beside)
        scores = work.held_bytes("A") * elements / float(work.op.m)
        a_bits = 8 * (scores + sum(b.bytes for b in besides)) / elements
        op = _there(changed(work.op, m=elements, a_bits=a_bits), {}, {"A", "C"}, held)
        return [*([fetch(f"{name}/besides", work.op, besides, held + scores)] if besides else []), Step(name, op, 1.0)]

    def _share(self, array: Beside, rows: int) -> Beside:
        """What a block needs of a mask or a bias: of one that the heads share its rows, of one without rows the whole."""
        part = 1.0
        if array.elements % (self.rows * self.keys) == 0:
            part = rows / self.rows
        if array.elements == self.heads * self.rows * self.keys:
            part *= self.block.heads / self.heads
        return Beside(array.elements * part, array.bytes * part)


def _bytes(op: Op, operand: str) -> float:
    return Single(op).held_bytes(operand)


def _there(op: Op, kept: dict[str, bool], block: set[str], held: float) -> Op:
    """`op` with the operands `kept` in L3, which are part of what is `held` there, and those of this `block`, which are not."""
    own = {x for x, there in kept.items() if there}
    a, b, c = (x in own | block for x in "ABC")
    return placed(op, Places(a, b, c, held - sum(_bytes(op, x) for x in own)))


@dataclasses.dataclass(frozen=True)
class Site:
    """Where attention may run by blocks: positions of its pieces."""

    scores: int
    middle: tuple[int, ...]
    mix: int
    whole: RowBlocks  # all at once
    reads: dict[str, tuple[int, ...]]

    @property
    def inside(self) -> set[int]:
        """Positions of all of its pieces."""
        return {self.scores, *self.middle, self.mix}

    def piece(self, pieces: Sequence[Piece], block: Block) -> Piece:
        """The attention as one piece that stands where `mix` did."""
        parts = [pieces[i] for i in (self.scores, *self.middle, self.mix)]
        inside = {self.scores, *self.middle}
        return dataclasses.replace(
            parts[-1],
            work=dataclasses.replace(self.whole, block=block),
            reads=tuple(dict.fromkeys(p for part in parts for p in part.reads if p not in inside)),
            operands=self.reads,
            parts=tuple(i for part in parts for i in part.parts),
        )

    def replace(self, pieces: Sequence[Piece], block: Block) -> list[Piece]:
        """The graph with this site as one piece."""
        return without(pieces, {self.mix: self.piece(pieces, block)}, {self.scores, *self.middle})


def find_sites(pieces: Sequence[Piece]) -> list[Site]:
    """Every product whose result only vector operations of its size and then one other product read.

    These must run in the same iterations and batches, and none of their results may leave. Arrays besides the scores (a
    mask, a bias of positions) come from external memory, block by block; that of another product is none.
    """
    readers = readers_of(pieces)
    sites: list[Site] = []
    taken: set[int] = set()
    for i in range(len(pieces)):
        site = _site(pieces, readers, i)
        if site is not None and taken.isdisjoint(site.inside):
            sites.append(site)
            taken |= site.inside
    return sites


def _site(pieces: Sequence[Piece], readers: Sequence[list[int]], first: int) -> Site | None:
    scores = pieces[first].op
    if scores is None or scores.kind != GEMM or scores.has_bias or scores.activation:
        return None
    chain, size = [first], _bytes(scores, "C")
    between: list[Single] = []
    elements = float(scores.batch * scores.m * scores.n)
    while True:
        last = pieces[chain[-1]]
        if last.leaves or len(readers[chain[-1]]) != 1:
            return None
        following = readers[chain[-1]][0]
        op = pieces[following].op
        if op is None or not pieces[following].runs_with(last):
            return None
        if op.kind != VECTOR:
            break
        work = _on_scores(pieces, following, chain[-1])
        whole = work is not None and op.m == elements and math.isclose(work.held_bytes("A"), size, rel_tol=1e-9)
        if work is None or not whole or op.c_bits % 1 or len(chain) > MOST_MIDDLE:
            return None
        chain.append(following)
        between.append(work)
        size = _bytes(op, "C")
    mix, middle = op, chain[1:]
    reads = pieces[following].operands
    values_first = reads.get("B") == (chain[-1],)
    if not middle or mix.kind != GEMM or mix.batch != scores.batch or (chain[-1],) not in (reads.get("A"), reads.get("B")):
        return None
    rows, keys = (mix.n if values_first else mix.m), mix.k
    if (scores.m, scores.n) != (rows, keys) and (scores.n, scores.m) != (rows, keys):
        return None
    if any(op.loc_a != EXTERNAL or op.loc_b != EXTERNAL for op in (scores, mix)):
        return None
    transposed = (scores.m, scores.n) != (rows, keys)
    names = tuple(pieces[i].name for i in (*chain, following))
    whole = RowBlocks(scores, tuple(between), mix, transposed, values_first, names, Block(int(mix.batch), int(rows)))
    query, key = "BA" if transposed else "AB"
    own = pieces[first].operands
    made = {"A": own.get(query), "B": own.get(key) and reads.get("A" if values_first else "B")}
    if own.get(key) and made["B"]:
        made["B"] = (*own[key], *made["B"])
    return Site(first, tuple(middle), following, whole, {x: p for x, p in made.items() if p})


def _on_scores(pieces: Sequence[Piece], position: int, scores: int) -> Single | None:
    """A vector operation as work on the `scores`, what other vector operations made of its A beside them; None for other work."""
    piece = pieces[position]
    made = piece.operands.get("A", ())
    if made.count(scores) != 1 or not isinstance(piece.work, Single) or not _ACROSS_ROWS.isdisjoint(piece.origin.primitives):
        return None
    others = [p for p in made if p != scores]
    if any((op := pieces[p].op) is None or op.kind != VECTOR for p in others):
        return None
    parts = {part: p for p in others for part in pieces[p].parts}
    arrays = [t for t in piece.origin.reads if len(t.producers) == 1 and t.producers[0] in parts]
    if len(arrays) != len(others):
        return None
    return Single(piece.work.op, (*piece.work.beside, *(Beside(float(math.prod(t.shape)), t.bytes) for t in arrays)))


def blocks_of(whole: RowBlocks, l3_bytes: float, array_rows: int) -> list[Block]:
    """Blocks to try: some divisors of the heads, and as many rows as fill a part of L3, in whole passes of the array."""
    divisors = [g for g in range(1, whole.heads + 1) if whole.heads % g == 0]
    picked = {divisors[round(i)] for i in np.linspace(0, len(divisors) - 1, min(FEW_HEADS, len(divisors)))}
    per_row = whole.score_bytes(Block(1, 1))
    blocks: dict[Block, None] = {}
    for heads in sorted(picked):
        for share in FILLED:
            most = int(min(whole.rows, share * l3_bytes // (per_row * heads)))
            if most >= array_rows:
                most -= most % array_rows if most < whole.rows else 0
            if most >= 1:
                rows = math.ceil(whole.rows / math.ceil(whole.rows / most))
                rounded = math.ceil(rows / array_rows) * array_rows
                blocks[Block(heads, rounded if rounded <= most else rows)] = None
    return list(blocks)
