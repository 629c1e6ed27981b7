"""Which steps become one operation.

A vector operation is what a compiler would fuse: a connected group of element-wise steps, row-wise reductions and
views between arrays that must exist in memory. Arrays that must exist are: arguments and results, operands and results
of fabric and host work, what gathers and windows read, updates in place, scalars that larger arrays read, what
crosses a loop's or a branch's edge, and reductions that need more than one row (batch statistics, a loss): their
readers make a second pass. Softmax and layer norm over the last axis are hence one operation each, reading once.

Every step has a level. It stays on its producer's where the two may fuse and rises where they may not; only steps of one
level fuse, so that no group waits for itself. Then a group that a single other one reads joins that, where it may.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from kpu_jax.frontends.flat import Array, Loop, Step
from kpu_jax.frontends.formats import Formats
from kpu_jax.frontends.primitives import ELEMENTWISE, FABRIC, REDUCTIONS, UPDATES, WINDOWS
from kpu_jax.frontends.vector import vector_work

_VECTOR = frozenset().union(ELEMENTWISE, REDUCTIONS, WINDOWS, UPDATES)


def is_vector(step: Step, formats: Formats) -> bool:
    """Whether the vector engine runs this step."""
    arrays = (*step.reads, *step.writes)
    return step.primitive in _VECTOR and all(formats.runs_on_vector_engine(a.dtype) for a in arrays)


def is_fabric(step: Step) -> bool:
    """Whether this step is a matrix product or a convolution."""
    return step.primitive in FABRIC


class Fusion:
    """Groups of `steps`, in an order in which every group comes after those that it reads."""

    def __init__(self, steps: list[Step], formats: Formats) -> None:
        self._formats = formats
        self._parent: dict[int, int] = {}
        self._level: list[int] = []
        self._index = {id(step): i for i, step in enumerate(steps)}
        self._steps = steps
        self._floors: dict[int, int] = {}
        self._fusible = [is_vector(step, formats) for step in steps]
        self._works = [vector_work(s) if ok else None for s, ok in zip(steps, self._fusible, strict=True)]
        for i, step in enumerate(steps):
            self._place(i, step)
        self._join_sole_readers()
        self.groups = self._ordered()

    def _find(self, i: int) -> int:
        while self._parent.get(i, i) != i:
            self._parent[i] = self._parent.get(self._parent[i], self._parent[i])
            i = self._parent[i]
        return i

    def _place(self, i: int, step: Step) -> None:
        level = max((self._floor(loop) for loop in step.loops), default=0)
        fusing: list[int] = []
        for position, array in enumerate(step.reads):
            soft = self._soft(i, step, position, array)
            if soft is not None:
                level = max(level, self._level[soft])
                fusing.append(soft)
            else:
                level = max(level, self._behind(array))
        self._level.append(level)
        for other in fusing:
            if self._level[other] == level:
                a, b = self._find(i), self._find(other)
                self._parent[max(a, b)] = min(a, b)

    def _soft(self, i: int, step: Step, position: int, array: Array) -> int | None:
        """The step that makes `array`, if this one may fuse with it."""
        work, maker = self._works[i], array.base.maker
        if work is None or maker is None or (work.whole_input and position == 0):
            return None
        at = self._index[id(maker)]
        made = self._works[at]
        if made is None or made.rows_end or maker.loops != step.loops or maker.repeats != step.repeats:
            return None
        if array.size == 1 and work.elements > 1:
            return None
        return at

    def _behind(self, array: Array) -> int:
        """The first level at which `array` is there."""
        return max((self._level[m] + 1 for m in self._made_here(array)), default=0)

    def _floor(self, loop: Loop) -> int:
        """The level at which a loop can start."""
        if id(loop) not in self._floors:
            self._floors[id(loop)] = max((self._behind(a) for a in loop.inputs), default=0)
        return self._floors[id(loop)]

    def _join_sole_readers(self) -> None:
        """Let each group join the one group that reads it. No path leads from it past its reader, so none can close a cycle."""
        readers: dict[int, list[tuple[int, bool]]] = {}
        for i, step in enumerate(self._steps):
            for position, array in enumerate(step.reads):
                soft = self._soft(i, step, position, array)
                for maker in self._made_here(array):
                    readers.setdefault(maker, []).append((i, maker == soft))
            for loop in step.loops:
                for array in loop.inputs:
                    for maker in self._made_here(array):
                        readers.setdefault(maker, []).append((i, False))
        members: dict[int, list[int]] = {}
        for i in range(len(self._steps)):
            members.setdefault(self._find(i), []).append(i)
        for group in sorted(members, key=lambda g: -self._level[g]):
            outside = [(self._find(i), soft) for m in members[group] for i, soft in readers.get(m, ()) if self._find(i) != group]
            if outside and len({g for g, _ in outside}) == 1 and all(soft for _, soft in outside):
                reader = outside[0][0]
                keep, drop = min(group, reader), max(group, reader)
                self._parent[drop] = keep
                members[keep] = sorted(members[group] + members[reader])

    def _made_here(self, array: Array) -> list[int]:
        """The steps that make `array` in this iteration."""
        return [self._index[id(root.maker)] for root, carried in array.roots() if root.maker is not None and not carried]

    def _ordered(self) -> list[list[Step]]:
        """Groups in program order as far as what they read allows, a loop's together."""
        members: dict[int, list[int]] = {}
        for i in range(len(self._steps)):
            members.setdefault(self._find(i), []).append(i)
        before: dict[int, set[int]] = {group: set() for group in members}
        after: dict[int, set[int]] = {group: set() for group in members}
        entered: dict[int, set[int]] = {}
        for group, steps in members.items():
            sources: set[int] = set()
            for i in steps:
                sources |= self._makers(self._steps[i].reads)
            for loop in self._steps[steps[0]].loops:
                if id(loop) not in entered:
                    entered[id(loop)] = self._makers(loop.inputs)
                sources |= entered[id(loop)]
            for source in sources - {group}:
                before[group].add(source)
                after[source].add(group)
        ready = [(steps[-1], group) for group, steps in members.items() if not before[group]]
        heapq.heapify(ready)
        ordered = []
        while ready:
            _, group = heapq.heappop(ready)
            ordered.append([self._steps[i] for i in members[group]])
            for reader in after[group]:
                before[reader].discard(group)
                if not before[reader]:
                    heapq.heappush(ready, (members[reader][-1], reader))
        assert len(ordered) == len(members), "groups wait for each other"
        return ordered

    def _makers(self, arrays: Iterable[Array]) -> set[int]:
        """Groups that make these arrays in this iteration."""
        return {self._find(maker) for array in arrays for maker in self._made_here(array)}
