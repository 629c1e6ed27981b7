"""The schedule of one operation, move by move, in plain Python.

It is the oracle of `model/traffic` (sum the bytes) and of `model/timing` (play the moves on in-order
engines), and what a program is built from. Written for clarity, meant for small sizes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from kpu_jax.program.blocks import AXES, IRRELEVANT_AXIS, OPERAND_AXES, Blocks, Step, input_rows

HOST, DRAM, L3 = 0, 1, 2  # operand locations, as in the op table


@dataclass
class Move:
    """One gang operation: an engine class moves (or the fabric computes) one block of one operand."""

    engine: str  # host, dma, block_mover, streamer, fabric
    operand: str  # A, B, C, bias; "" for a pass
    reads: dict[str, float] = field(default_factory=dict)  # bytes per memory level
    writes: dict[str, float] = field(default_factory=dict)
    gang_bytes: float = 0.0  # what the engines of the class carry together, padding included
    needs: list[int] = field(default_factory=list)  # moves that must be complete before this one starts
    stages: list[float] = field(default_factory=list)  # further gang_bytes, each after the one before is complete
    stream: int = 0  # passes: elements that stream through the array
    bias_lanes: float = 0.0  # elements per vector lane that get a bias on the way out
    activation_lanes: float = 0.0  # elements per vector lane that get an activation on the way out
    macs: int = 0
    complete: bool = True  # C only: all of K is summed


class Schedule:
    """The moves of one operation in program order, with their dependencies."""

    def __init__(self, op: Any, mapping: Any, *, rows: int, cols: int, macs_per_pe: int, burst: int) -> None:
        """Expand `op` under `mapping` on an array of rows x cols PEs at `macs_per_pe` MACs per cycle.

        `burst` is the external memory's burst [byte].
        """
        self.op, self.burst = op, burst
        self.blocks = Blocks(op, mapping, rows=rows, cols=cols, macs_per_pe=macs_per_pe)
        self.double = {3: bool(mapping.double_l3), 2: bool(mapping.double_l2), 1: bool(mapping.double_l1)}
        self.location = {"A": int(op.loc_a), "B": int(op.loc_b), "C": int(op.loc_c), "bias": DRAM}
        self.steps = list(self.blocks.steps())
        self.moves: list[Move] = []
        self._stays = {(lv, x): _Stays(self.steps, lv, x) for lv in (3, 2, 1) for x in "ABC"}
        self._ready: dict[tuple[int, str], list[int]] = defaultdict(list)
        self._readers: dict[tuple[int, str], list[list[int]]] = defaultdict(lambda: [[], []])
        self._place: dict[tuple[int, str], int] = defaultdict(int)
        self._last_out: dict[int, list[int]] = {3: [], 2: [], 1: []}
        self._last_pass: list[int] = []
        self._expand()

    # -- walking the steps ------------------------------------------------------------------------

    def _expand(self) -> None:
        for s, step in enumerate(self.steps):
            before = self.steps[s - 1] if s else None
            early: dict[int, bool] = {}
            for level, above in ((3, None), (2, 3), (1, 2)):
                moved = before is None or (above is not None and before.position(above) != step.position(above))
                early[level] = self.double[level] and (not moved or above is None or early[above])
            for level in (3, 2, 1):
                if early[level]:
                    self._move_in(level, s)
            if before is not None:
                self._move_out(s - 1, lambda level, s=s: self._changes(level, "C", s))
            for level in (3, 2, 1):
                if not early[level]:
                    self._move_in(level, s)
            self._pass(s)
        self._move_out(len(self.steps) - 1, lambda level: True)

    def _changes(self, level: int, operand: str, s: int) -> bool:
        """Does a new block of the operand become resident at step s?"""
        return self._stays[level, operand].span[s][0] == s

    def _stay(self, level: int, operand: str, s: int) -> list[Step]:
        """The steps during which the block of `operand` that is resident at step s stays."""
        start, stop = self._stays[level, operand].span[s]
        return self.steps[start:stop]

    def _first_ever(self, level: int, s: int) -> bool:
        """Is this the first time that C's block at step s is at this level?"""
        stays = self._stays[level, "C"]
        return stays.first[stays.block[s]] == stays.span[s][0]

    def _last_ever(self, level: int, s: int) -> bool:
        stays = self._stays[level, "C"]
        return stays.last[stays.block[s]] == s

    def _parts_of_k(self, level: int, s: int) -> int:
        """Compute tiles along K that take part in the present stay of C at a level."""
        return max(self.blocks.active(level, "k", st) for st in self._stay(level, "C", s))

    # -- moves in ---------------------------------------------------------------------------------

    def _move_in(self, level: int, s: int) -> None:
        for x in "ABC":
            if not self._changes(level, x, s):
                continue
            if self.double[level]:
                self._place[level, x] ^= 1
            waits = list(self._readers[level, x][self._place[level, x]])
            self._readers[level, x][self._place[level, x]] = []
            self._ready[level, x] = []
            move = {3: self._load_l3, 2: self._load_l2, 1: self._load_l1}[level](x, s)
            if move is not None:
                move.needs = move.needs + waits
                self._ready[level, x] = [self._add(move)]
                if level < 3 and x != "C":
                    self._readers[level + 1, x][self._place[level + 1, x]] += self._ready[level, x]
            elif x == "C":
                self._readers[level, x][self._place[level, x]] = waits  # the first write still waits for the place

    def _load_l3(self, x: str, s: int) -> Move | None:
        step, groups = self.steps[s], self.blocks.groups(self.steps[s].batch)
        if x == "C":
            n = self.blocks.l3_size("n", step.l3["n"])
            if not self._first_ever(3, s):
                if self.location["C"] == L3:
                    return None
                size, padded = self._external("C", step, complete=False)
                return Move("dma", "C", {"dram": size}, {"l3": size}, padded, list(self._last_out[3]))
            if not int(self.op.has_bias):
                return None
            size = groups * n * self.blocks.acc_bytes
            padded = groups * _bursts(1, n * self.blocks.acc_bytes, True, self.burst)
            return Move("dma", "bias", {"dram": size}, {"l3": size}, padded)
        size, padded = self._external(x, step)
        if self.location[x] == L3 or size == 0:
            return None
        needs = []
        if self.location[x] == HOST and step.l3[IRRELEVANT_AXIS[x]] == 0:
            fresh = size if x == "B" or self.blocks.kind != 1 else self._fresh_input(step)
            needs = [self._add(Move("host", x, {"host": fresh}, {"dram": fresh}, fresh))]
        return Move("dma", x, {"dram": size}, {"l3": size}, padded, needs)

    def _load_l2(self, x: str, s: int) -> Move | None:
        step, b = self.steps[s], self.blocks
        groups = b.groups(step.batch)
        if x == "C":
            if not self._first_ever(2, s):
                size = groups * self._distinct(2, "C", step) * b.acc_bytes
                return Move("block_mover", "C", {"l3": size}, {"l2": size}, size, self._ready[3, "C"] + self._last_out[2])
            if not int(self.op.has_bias):
                return None
            size = groups * sum(b.extent(2, "n", step, t) for t in range(b.parts["n"])) * b.acc_bytes
            return Move("block_mover", "bias", {"l3": size}, {"l2": size * b.active(2, "m", step)}, size, self._ready[3, "C"])
        size = groups * self._distinct(2, x, step) * b.bytes[x]
        if size == 0:
            return None
        receivers = max(b.active(2, IRRELEVANT_AXIS[x], st) for st in self._stay(2, x, s))
        return Move("block_mover", x, {"l3": size}, {"l2": size * receivers}, size, list(self._ready[3, x]))

    def _load_l1(self, x: str, s: int) -> Move | None:
        step, b = self.steps[s], self.blocks
        groups = b.groups(step.batch)
        if x == "C":
            size = groups * b.acc_bytes * self._returning(s)
            if size:
                return Move("streamer", "C", {"l2": size}, {"l1": size}, size, self._ready[2, "C"] + self._last_out[1])
            if self._first_ever(1, s) and int(self.op.has_bias):
                tiles = [t for t in b.tiles() if t["k"] == 0 and b.extent(1, "m", step, t["m"]) > 0]
                size = groups * sum(b.extent(1, "n", step, t["n"]) for t in tiles) * b.acc_bytes
                return Move("streamer", "bias", {"l2": size}, {"l1": size}, size, list(self._ready[2, "C"]))
            return None
        receivers = max(b.active(1, IRRELEVANT_AXIS[x], st) for st in self._stay(1, x, s))
        size = groups * self._distinct(1, x, step) * b.bytes[x] * receivers
        return Move("streamer", x, {"l2": size}, {"l1": size}, size, list(self._ready[2, x])) if size else None

    def _returning(self, s: int) -> int:
        """Elements of C that come back from L2 to L1: partial sums that these tiles had begun before."""
        step, b = self.steps[s], self.blocks
        took_part = [t for t in range(b.parts["k"]) if any(b.extent(1, "k", st, t) for st in self._stay(1, "C", s))]
        return sum(self._begun(s, t) for t in took_part) * self._distinct(1, "C", step)

    def _begun(self, start: int, tile: int) -> bool:
        """Had compute tile `tile` along K a partial sum of this C block when its L1 visit began at `start`?"""
        if tile == 0:
            return not self._first_ever(1, start)
        begun_in_l2 = self._stays[2, "C"].span[start][0]  # the other tiles start afresh in every stay in L2
        block, steps = self._stays[1, "C"].block, range(begun_in_l2, start)
        return any(block[s] == block[start] and self.blocks.extent(1, "k", self.steps[s], tile) for s in steps)

    # -- the pass ---------------------------------------------------------------------------------

    def _pass(self, s: int) -> None:
        step, b = self.steps[s], self.blocks
        groups, acc = b.groups(step.batch), b.acc_bytes
        move = Move("fabric", "", needs=self._ready[1, "A"] + self._ready[1, "B"] + self._ready[1, "C"])
        move.needs += self._readers[1, "C"][self._place[1, "C"]]
        stationary = "CBA"[b.dataflow]
        for x in "AB":
            if x != stationary or self._changes(1, x, s):
                size = groups * self._distinct(1, x, step) * b.bytes[x] * b.active(1, IRRELEVANT_AXIS[x], step)
                if x == stationary:
                    size = groups * self._distinct(1, x, step) * b.bytes[x]
                    size *= max(b.active(1, IRRELEVANT_AXIS[x], st) for st in self._stay(1, x, s))
                _count(move, "l1", "pe", x, size)
        elements = groups * self._distinct(1, "C", step)
        if stationary == "C":
            if self._changes(1, "C", s):
                _count(move, "l1", "pe", "C", groups * self._returning(s) * acc)
            if self._stays[1, "C"].span[s][1] == s + 1:
                _count(move, "pe", "l1", "C", elements * self._parts_of_k(1, s) * acc)
        else:
            parts = b.active(1, "k", step)
            _count(move, "pe", "l1", "C", elements * parts * acc)
            _count(move, "l1", "", "C", groups * self._accumulating(s) * acc)
        if b.kind == 2:
            move.stream = -(-b.extent(1, "m", step, 0) // b.cols)
        else:
            axis = ("k", "m", "n")[b.dataflow]
            move.stream = b.extent(1, axis, step, 0)
            if axis == "k":
                move.stream = -(-move.stream // b.rate)
            extents = [[b.extent(1, a, step, t[a]) for a in AXES] for t in b.tiles()]
            move.macs = groups * sum(m * n * k for m, n, k in extents)
        self._last_pass = [self._add(move)]
        for x in "AB":
            self._readers[1, x][self._place[1, x]] += self._last_pass

    def _accumulating(self, s: int) -> int:
        """Weight- and input-stationary: elements of C that the leaving stream adds to what L1 already holds."""
        step, b = self.steps[s], self.blocks
        start = self._stays[1, "C"].span[s][0]
        total = 0
        for t in range(b.parts["k"]):
            if b.extent(1, "k", step, t) > 0:
                worked = any(b.extent(1, "k", st, t) > 0 for st in self.steps[start:s])
                total += (worked or self._begun(start, t)) * self._distinct(1, "C", step)
        return total

    # -- moves out --------------------------------------------------------------------------------

    def _move_out(self, s: int, leaves: Any) -> None:
        """Move C out of every level that it leaves after step s."""
        if leaves(1):
            self._drain(s)
        if leaves(2):
            self._write_back(s)
        if leaves(3) and self.location["C"] != L3:
            self._store(s)

    def _occupant(self, level: int, s: int) -> int:
        """The place that C's visit at step s has at a level (the next visit may have begun already)."""
        return self._stays[level, "C"].visit[s] % 2 if self.double[level] else 0

    def _release(self, level: int, s: int, done: int) -> None:
        self._readers[level, "C"][self._occupant(level, s)] = [done]
        self._last_out[level] = [done]

    def _drain(self, s: int) -> None:
        step, b = self.steps[s], self.blocks
        parts = self._parts_of_k(1, s)
        complete = self._last_ever(1, s) and self._parts_of_k(2, s) == 1
        elements = b.groups(step.batch) * self._distinct(1, "C", step) * parts
        out = elements * (b.bytes["C"] if complete else b.acc_bytes)
        move = Move("streamer", "C", {"l1": elements * b.acc_bytes}, {"l2": out}, out, list(self._last_pass), complete=complete)
        lanes = -(-b.extent(1, "m", step, 0) * b.extent(1, "n", step, 0) // b.cols)
        move.activation_lanes = lanes if complete else 0
        if self._last_ever(1, s) and int(self.op.has_bias):  # the first compute tile along K adds it
            tiles = [t for t in b.tiles() if t["k"] == 0 and b.extent(1, "m", step, t["m"]) > 0]
            bias = sum(b.extent(1, "n", step, t["n"]) for t in tiles)
            move.reads["l1_bias"] = b.groups(step.batch) * bias * b.acc_bytes
            move.bias_lanes = lanes
        move.needs += self._readers[2, "C"][self._occupant(2, s)]
        self._release(1, s, self._add(move))

    def _write_back(self, s: int) -> None:
        step, b = self.steps[s], self.blocks
        parts = self._parts_of_k(2, s)
        complete = self._last_ever(2, s)
        elements = b.groups(step.batch) * self._distinct(2, "C", step)
        full, last = elements * b.acc_bytes, elements * (b.bytes["C"] if complete else b.acc_bytes)
        first_read = last if parts == 1 else full
        move = Move("block_mover", "C", complete=complete)
        move.reads = {"l2": first_read + (parts - 1) * full, "l3": (parts - 1) * full}
        move.writes = {"l3": (parts - 1) * full + last}
        # The first part of K is written; each further one reads the sum so far, adds, and writes it back.
        move.gang_bytes = full if parts > 1 else last
        move.stages = [2 * full] * (parts - 2) + [full + last] * (parts > 1)
        move.needs = self._last_out[1] + self._readers[3, "C"][self._occupant(3, s)]
        if complete and parts > 1:
            move.activation_lanes = -(-b.extent(2, "m", step, 0) * b.extent(2, "n", step, 0) // b.cols)
        self._release(2, s, self._add(move))

    def _store(self, s: int) -> None:
        step = self.steps[s]
        complete = self._last_ever(3, s)
        size, padded = self._external("C", step, complete=complete)
        done = self._add(Move("dma", "C", {"l3": size}, {"dram": size}, padded, list(self._last_out[2]), complete=complete))
        self._release(3, s, done)
        if complete and self.location["C"] == HOST:
            self._add(Move("host", "C", {"dram": size}, {"host": size}, size, [done]))

    # -- sizes ------------------------------------------------------------------------------------

    def _distinct(self, level: int, operand: str, step: Step) -> int:
        """Elements of the operand that the compute tiles of one batch group hold, each block once."""
        b = self.blocks
        total = 1
        for a in OPERAND_AXES[operand]:
            total *= sum(b.extent(level, a, step, t) for t in range(b.parts[a]))
        return total

    def _external(self, x: str, step: Step, complete: bool = True) -> tuple[float, float]:
        """Bytes of an L3 block and the bytes of the bursts that carry it, for all batch groups."""
        b, groups = self.blocks, self.blocks.groups(step.batch)
        rows_axis, cols_axis = {"A": ("m", "k"), "B": ("k", "n"), "C": ("m", "n")}[x]
        h, w = b.l3_size(rows_axis, step.l3[rows_axis]), b.l3_size(cols_axis, step.l3[cols_axis])
        width = b.bytes[x] if complete or x != "C" else b.acc_bytes
        if x == "A" and b.kind == 1:
            op = self.op
            channels = w // (int(op.kernel_h) * int(op.kernel_w))
            rows, line = self._input_rows(step), int(op.in_w) * channels * width
            if channels == int(op.channels):
                padded = rows * _bursts(1, line, True, self.burst)
            else:
                padded = _bursts(rows * int(op.in_w), channels * width, False, self.burst)
            return groups * rows * line, groups * padded
        contiguous = w == b.size[cols_axis]
        return groups * h * w * width, groups * _bursts(h, w * width, contiguous, self.burst)

    def _output_rows(self, step: Step) -> tuple[int, int]:
        """(first output row within its image, output rows) of a convolution's L3 block."""
        b, out_w = self.blocks, int(self.op.out_w)
        per_unit = -(-b.unit["m"] // b.tile3["m"])
        first = (step.l3["m"] % per_unit) * b.tile3["m"] // out_w
        return first % int(self.op.out_h), b.l3_size("m", step.l3["m"]) // out_w

    def _input_rows(self, step: Step) -> int:
        op, out_h = self.op, int(self.op.out_h)
        first, count = self._output_rows(step)
        if count > out_h:
            return (count // out_h) * len(input_rows(op, 0, out_h))
        return len(input_rows(op, first, count))

    def _fresh_input(self, step: Step) -> float:
        """Bytes of the input rows that no earlier block along M has brought from the host."""
        b, op = self.blocks, self.op
        first, count = self._output_rows(step)
        rows = self._input_rows(step)
        if count <= int(op.out_h):
            rows = len(input_rows(op, first, count) - input_rows(op, 0, first))
        channels = b.l3_size("k", step.l3["k"]) // (int(op.kernel_h) * int(op.kernel_w))
        return b.groups(step.batch) * rows * int(op.in_w) * channels * b.bytes["A"]

    def _add(self, move: Move) -> int:
        self.moves.append(move)
        return len(self.moves) - 1

    # -- reading it -------------------------------------------------------------------------------

    def traffic(self) -> dict[tuple[str, str, str], float]:
        """Bytes by ("read" or "write", memory level, operand)."""
        total: dict[tuple[str, str, str], float] = defaultdict(float)
        for move in self.moves:
            for kind, side in (("read", move.reads), ("write", move.writes)):
                for where, size in side.items():
                    level, _, operand = where.partition("_")
                    total[kind, level, operand or move.operand] += size
        return dict(total)


def expand(op: Any, mapping: Any, *, rows: int, cols: int, macs_per_pe: int, burst: int = 64) -> Schedule:
    """The schedule of `op` under `mapping`, every move of it (small sizes: the list is explicit)."""
    return Schedule(op, mapping, rows=rows, cols=cols, macs_per_pe=macs_per_pe, burst=burst)


class _Stays:
    """The stays of one operand's blocks at one level."""

    def __init__(self, steps: list[Step], level: int, operand: str) -> None:
        self.block = [step.block(level, operand) for step in steps]
        starts = [s for s, block in enumerate(self.block) if s == 0 or self.block[s - 1] != block]
        self.span: list[tuple[int, int]] = []  # per step: [start, stop) of the stay it belongs to
        self.visit: list[int] = []  # per step: which stay it is, from 1
        for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(steps)], strict=True), 1):
            self.span += [(start, stop)] * (stop - start)
            self.visit += [number] * (stop - start)
        self.last = {block: s for s, block in enumerate(self.block)}  # last step of each block
        self.first = {block: s for s, block in reversed(list(enumerate(self.block)))}


def _bursts(h: float, w: float, contiguous: bool, burst: int) -> float:
    """Bytes of the bursts that carry h rows of w bytes."""
    return -(-h * w // burst) * burst if contiguous else h * -(-w // burst) * burst


def _count(move: Move, source: str, target: str, operand: str, size: float) -> None:
    if size:
        move.reads[f"{source}_{operand}"] = move.reads.get(f"{source}_{operand}", 0.0) + size
        if target:
            move.writes[f"{target}_{operand}"] = move.writes.get(f"{target}_{operand}", 0.0) + size
