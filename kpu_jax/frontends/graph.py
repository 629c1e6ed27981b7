"""The flat program as a `Workload`: groups become operations with all that is known of their arrays, the rest host work."""

from __future__ import annotations

import dataclasses

from kpu_jax.base.errors import KPUError
from kpu_jax.frontends.fabric import fabric_work
from kpu_jax.frontends.flat import Array, Flat, Step
from kpu_jax.frontends.formats import Formats
from kpu_jax.frontends.fusion import Fusion, is_fabric, is_vector
from kpu_jax.frontends.primitives import HOST, REFUSED, UPDATES
from kpu_jax.frontends.vector import label, vector_op
from kpu_jax.workload import HostWork, Node, Op, Origin, Tensor, Workload

_POWERS = ("integer_pow", "square", "pow")


def workload_of(flat: Flat, formats: Formats) -> Workload:
    """The operations of a program in execution order. Raises `KPUError` where the chip has nothing to do."""
    return _Graph(flat, formats).build()


class _Graph:
    def __init__(self, flat: Flat, formats: Formats) -> None:
        self._formats = formats
        self._groups = Fusion(flat.steps, formats).groups
        self._group_of = {id(step): g for g, group in enumerate(self._groups) for step in group}
        self._results = {id(root) for a in flat.results for root, _ in a.roots()}
        self._leaving = {
            id(root)
            for g, group in enumerate(self._groups)
            for step in group
            for array in step.reads
            for root, carried in array.roots()
            if root.maker is not None and (carried or self._group_of[id(root.maker)] != g)
        }
        self._taken: dict[str, int] = {}
        self._node_of: dict[int, int] = {}  # group -> operation
        self._host_of: dict[int, int] = {}  # group -> host work

    def build(self) -> Workload:
        made: list[tuple[int, Op | str, float]] = []
        for g, group in enumerate(self._groups):
            op, zeros = self._operation(group)
            table = self._host_of if isinstance(op, str) else self._node_of
            table[g] = len(table)
            made.append((g, op, zeros))
        nodes: list[Node] = []
        host: list[HostWork] = []
        behind: list[set[int]] = []  # host work -> operations whose results it stems from
        readers: list[set[int]] = []
        for g, op, zeros in made:
            group = self._groups[g]
            origin = dataclasses.replace(self._origin(g, group), zero_macs=zeros)
            direct = {p for t in origin.reads if not t.carried for p in t.producers}
            through = {h for t in origin.reads if not t.carried for h in t.host if h < len(host)}
            sources = direct.union(*(behind[h] for h in through))
            if isinstance(op, str):
                function = str(group[0].params.get("operator", group[0].primitive))
                host.append(HostWork(self._name(group, function), function, op, group[0].repeats, origin))
                behind.append(sources)
                readers.append(set())
                continue
            for h in through:
                readers[h].add(len(nodes))
            earlier = tuple(sorted(p for p in sources if p < len(nodes)))
            nodes.append(Node(self._name(group, self._label(group)), op, earlier, group[0].repeats, origin))
        listed = [dataclasses.replace(h, readers=tuple(sorted(r))) for h, r in zip(host, readers, strict=True)]
        if not nodes:
            what = f"all its work is the host's ({', '.join(h.name for h in listed)})" if listed else "it computes nothing"
            raise KPUError(f"the function gives the chip nothing to do: {what}")
        return Workload.from_graph(nodes, listed)

    def _operation(self, group: list[Step]) -> tuple[Op | str, float]:
        """(operation, its zero multiply-accumulates), or (why the host must do it, 0)."""
        step = group[0]
        if is_fabric(step):
            work = fabric_work(step, self._formats)
            return (work, 0.0) if isinstance(work, str) else (work.op.plain(), work.zero_macs)
        if is_vector(step, self._formats):
            reads = sum(t.bytes for t in self._reads(group))
            return vector_op(group, reads, sum(t.bytes for t in self._writes(group)), self._formats), 0.0
        if step.primitive in HOST:
            return HOST[step.primitive], 0.0
        if step.primitive in REFUSED:
            return REFUSED[step.primitive], 0.0
        wide = next((a.dtype for a in (*step.reads, *step.writes) if not self._formats.runs_on_vector_engine(a.dtype)), None)
        return (f"{wide} is no number format of the KPU" if wide else "the front end does not know it"), 0.0

    def _label(self, group: list[Step]) -> str:
        return {"dot_general": "dot", "ragged_dot_general": "dot", "conv_general_dilated": "conv"}.get(group[0].primitive) or label(group)

    def _name(self, group: list[Step], what: str) -> str:
        """The scope and what is done there, numbered where it occurs again."""
        scope = group[-1].scope
        name = f"{scope}/{what}" if scope else what
        seen = self._taken.get(name, 0)
        self._taken[name] = seen + 1
        return f"{name}_{seen}" if seen else name

    # -- arrays

    def _origin(self, g: int, group: list[Step]) -> Origin:
        last = group[-1]
        return Origin(
            source=last.source,
            scope=last.scope,
            primitives=tuple(s.primitive for s in group),
            loops=tuple(loop.name for loop in last.loops),
            reads=tuple(self._reads(group)),
            writes=tuple(self._writes(group)),
            meets_itself=_meetings(group),
        )

    def _reads(self, group: list[Step]) -> list[Tensor]:
        """Arrays from outside the group, each once: of views of one array their sum, at most the array.

        Where a single part of an array is read (a layer's share of stacked weights), the shape is that part's.
        """
        inside = {id(step) for step in group}
        sizes: dict[int, tuple[Array, dict[tuple, float]]] = {}
        parts: dict[int, dict[int, Array]] = {}  # base -> what of it is read
        for step in group:
            for position, array in enumerate(step.reads):
                base = array.base
                if base.constant or (base.maker is not None and id(base.maker) in inside):
                    continue
                views = sizes.setdefault(id(base), (base, {}))[1]
                part = array.narrowest
                views[id(part) if part is not base else 0, position] = _read(step, position, array)
                parts.setdefault(id(base), {})[id(part)] = part
        read = []
        for key, (base, views) in sizes.items():
            part, *others = parts[key].values()
            shape = base.shape if others else part.shape
            read.append(self._tensor(base, shape, min(float(base.size), sum(views.values()))))
        return read

    def _tensor(self, base: Array, shape: tuple[int, ...], elements: float) -> Tensor:
        made = [(self._group_of[id(root.maker)], carried) for root, carried in base.roots() if root.maker is not None]
        names = [root.name for root, _ in base.roots() if root.maker is None and root.name]
        carried = any(c for _, c in made)
        groups = dict.fromkeys(g for g, _ in made)
        return Tensor(
            shape,
            base.dtype,
            elements * self._formats.bits(base.dtype) / 8,
            tuple(self._node_of[g] for g in groups if g in self._node_of),
            tuple(self._host_of[g] for g in groups if g in self._host_of),
            carried,
            name=names[0] if names else "",
        )

    def _writes(self, group: list[Step]) -> list[Tensor]:
        """Arrays that someone outside the group reads, or the caller."""
        written = []
        for step in group:
            for array in step.writes:
                result = id(array) in self._results
                if result or id(array) in self._leaving:
                    size = _written(step, array) * self._formats.bits(array.dtype) / 8
                    written.append(Tensor(array.shape, array.dtype, size, result=result))
        return written


def _meetings(group: list[Step]) -> tuple[str, ...]:
    """Primitives of a group's full size that take the same array from outside by more than one way, or to a power."""
    inside = {id(step) for step in group}
    full = max((a.size for step in group for a in step.writes), default=0)
    stems: dict[int, frozenset[int]] = {}  # array made inside -> arrays from outside that it stems from
    found = []
    for step in group:
        bases = [a.base for a in step.reads if not a.base.constant]
        each = [stems[id(b)] if b.maker is not None and id(b.maker) in inside else frozenset({id(b)}) for b in bases]
        own = frozenset().union(*each)
        if (sum(map(len, each)) > len(own) or step.primitive in _POWERS) and step.writes[0].size == full:
            found.append(step.primitive)
        stems.update((id(a), own) for a in step.writes)
    return tuple(found)


def _read(step: Step, position: int, array: Array) -> float:
    """Elements that a step takes of one operand: of a gather the gathered, of an update in place the touched."""
    name = step.primitive
    if position == 0 and name in ("gather", "dynamic_slice"):
        return float(step.writes[0].size)
    if position == 0 and name in UPDATES:
        return 0.0 if name in ("scatter", "dynamic_update_slice") else float(_update(step).size)
    return float(array.narrowest.size)


def _written(step: Step, array: Array) -> float:
    """Elements that a step writes: of an array updated in place the touched; one that was a constant is written whole."""
    in_place = step.primitive in UPDATES and not step.reads[0].constant
    return float(_update(step).size if in_place else array.size)


def _update(step: Step) -> Array:
    return step.reads[1] if step.primitive == "dynamic_update_slice" else step.reads[2]
