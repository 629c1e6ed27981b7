"""Which results stay in L3 until they are read: dynamic programming over the results that are there.

Of every result there are three things to do: write it to external memory; keep it in L3 only, until its last reader is
done; or, if it leaves or has several readers, write it and keep it for the first of these. A reader takes an operand
from L3 if all results that make it up are there. What is there takes its whole bytes away from the other operations.

Operations run in the given order, so before each of them the past matters only through the set of results that are in
L3. Cheapest first, at most `BEAM` such sets are followed. On a chain there are two (the last result, or nothing), so
that the answer is the best of all 2^n; on any graph it is the best for its order of execution and for space rounded up
to parts of L3 (`prices.LEVELS`) as long as no set was dropped, which `optimal` says. Beyond that it is a heuristic.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kpu_jax.graph.pieces import Piece, Places, readers_of

BEAM = 64
ROUNDING = 2.0**-20  # bytes: less is no part of an array, but the rounding of a sum

Cost = Callable[[Sequence[tuple[int, Places]]], Sequence[float]]  # (position, places) -> cost, repeats included; infinite: does not fit


class Kept(NamedTuple):
    """A result that stays in L3."""

    piece: int
    until: int  # its last reader from there
    written: bool  # also to external memory


class Residency(NamedTuple):
    """Where everything lives."""

    places: list[Places]  # per piece
    kept: list[Kept]
    cost: float
    optimal: bool  # no set of results was dropped


class _There(NamedTuple):
    """A result that is in L3."""

    piece: int
    written: bool


class _Path(NamedTuple):
    cost: float
    before: _Path | None
    places: Places
    there: frozenset[_There]  # after the operation


def nothing_stays(pieces: Sequence[Piece], cost: Cost) -> Residency:
    """Everything goes through external memory."""
    places = [Places()] * len(pieces)
    return Residency(places, [], math.fsum(cost(list(enumerate(places)))), True)


def keep_results(pieces: Sequence[Piece], cost: Cost, rounded: Callable[[float], float], beam: int = BEAM) -> Residency:
    """The cheapest places of all results. `cost` is asked for many operations at once, and again for those with others about;
    `rounded` maps the bytes that other results occupy to what is reserved for them."""
    life = _Lives(pieces)
    paths = [_Path(0.0, None, Places(), frozenset())]
    optimal = True
    for i in range(len(pieces)):
        steps = [(path, *step) for path in paths for step in life.steps(i, path.there, rounded)]
        asked = list(dict.fromkeys((i, places) for _, places, _ in steps))
        price = dict(zip(asked, cost(asked), strict=True))
        best: dict[frozenset[_There], _Path] = {}
        for path, places, after in steps:
            total = path.cost + price[i, places]
            if math.isfinite(total) and (after not in best or total < best[after].cost):
                best[after] = _Path(total, path, places, after)
        ranked = sorted(best.values(), key=lambda p: p.cost)
        optimal &= len(ranked) <= beam
        paths = [p for rank, p in enumerate(ranked) if rank < beam or not p.there]  # the empty set always has a way on
        if not paths:
            return Residency([], [], math.inf, optimal)
    trail: list[_Path] = []
    at = paths[0]
    while at.before is not None:
        trail.append(at)
        at = at.before
    trail.reverse()
    return Residency([p.places for p in trail], _kept(trail, life), paths[0].cost, optimal)


def _kept(trail: Sequence[_Path], life: _Lives) -> list[Kept]:
    kept = []
    for i in range(len(trail)):
        own = [t for t in trail[i].there if t.piece == i]
        if own:
            gone = next(j for j in range(i + 1, len(trail)) if own[0] not in trail[j].there)
            kept.append(Kept(i, gone, own[0].written))
    return kept


class _Lives:
    """Who may read what from L3."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._readers = readers_of(pieces)
        self._from_l3 = [
            [r for r in readers if any(i in made for made in pieces[r].operands.values()) and _all_operands(pieces[r], i)]
            for i, readers in enumerate(self._readers)
        ]

    def steps(
        self, i: int, there: frozenset[_There], rounded: Callable[[float], float]
    ) -> list[tuple[Places, frozenset[_There]]]:
        """What may happen at operation `i` with those results in L3: (its places, what is in L3 afterwards)."""
        piece = self._pieces[i]
        names = {t.piece for t in there}
        taken = {x: made for x, made in piece.operands.items() if all(p in names for p in made)}
        read = {p for made in taken.values() for p in made}
        if any(t.piece in piece.reads and t.piece not in read and not t.written for t in there):
            return []
        size = {p: self._pieces[p].result_bytes for p in names}
        others = math.fsum(size[p] for p in names - read)
        # A result that is more than the operand (a slice is read) is there whole.
        held = {made: sum(piece.work.held_bytes(x) for x, own in taken.items() if own == made) for made in taken.values()}
        unread = [sum(size[p] for p in made) - own for made, own in held.items()]
        others += math.fsum(more for more in unread if more > ROUNDING)
        remaining = [_remaining(t, i, self._from_l3[t.piece]) for t in there]
        options: list[tuple[Places, frozenset[_There]]] = []
        for own in self._results(i):
            beside = others + (piece.result_bytes if own and own.written else 0.0)
            inside = bool(own and not own.written)
            places = Places("A" in taken, "B" in taken, inside, rounded(beside) if beside else 0.0)
            for choice in itertools.product(*remaining):
                after = frozenset(t for t in (*choice, own) if t is not None)
                options.append((places, after))
        return options

    def _results(self, i: int) -> list[_There | None]:
        """What may become of the result of `i`: written (None), kept, or both."""
        piece, readers, near = self._pieces[i], self._readers[i], self._from_l3[i]
        options: list[_There | None] = [None]
        if near and near == readers and not piece.leaves:
            options.append(_There(i, written=False))
        if near and (piece.leaves or len(readers) > 1):
            options.append(_There(i, written=True))
        return options


def _all_operands(reader: Piece, source: int) -> bool:
    """Whether `reader` takes `source` as operands only, and not also in a way that needs it in external memory."""
    return reader.reads.count(source) <= sum(made.count(source) for made in reader.operands.values())


def _remaining(t: _There, i: int, near: Sequence[int]) -> list[_There | None]:
    """What may become of a result in L3 after operation `i`: it stays, or its space is free."""
    if i >= near[-1]:
        return [None]
    return [t, None] if t.written and i in near else [t]
