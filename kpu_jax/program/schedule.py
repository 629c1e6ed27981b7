"""The schedule of one operation, move by move, in plain Python.

It is what a program is built from: `program.traffic` and the executor, the oracles of `model/traffic` and of
`model/timing`, read it through its program. Moves come out one by one; what is kept in memory is the list of passes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from kpu_jax.base.errors import KPUError, check_number
from kpu_jax.mapping import check_mapping
from kpu_jax.program.blocks import AXES, IRRELEVANT_AXIS, Blocks, Step
from kpu_jax.program.isa import Need, Opcode, Operand
from kpu_jax.program.moves import Move
from kpu_jax.program.outside import Outside
from kpu_jax.program.stays import LEVELS, Stays, changes, index_table
from kpu_jax.workload import check_op

HOST, DRAM, L3 = 0, 1, 2  # operand locations, as in the op table
OPERANDS = {"A": Operand.A, "B": Operand.B, "C": Operand.C}
ON_ROWS = ("A", "A", "B")  # the operand on the array's rows, by dataflow; the others stand on its columns
Needs = list[tuple[int, Need]]


class Schedule:
    """The moves of one operation in program order, with what they need of one another. Iterate over it."""

    def __init__(self, op: Any, mapping: Any, *, rows: int, cols: int, macs_per_pe: int, burst: int, most: float = float("inf")) -> None:
        """Expand `op` under `mapping` on an array of rows x cols PEs at `macs_per_pe` MACs per cycle.

        `burst` is the external memory's burst [byte]. `KPUError` if there are certainly more than `most` moves.
        """
        self.op = op
        self.blocks = Blocks(op, mapping, rows=rows, cols=cols, macs_per_pe=macs_per_pe)
        self.double = {3: bool(mapping.double_l3), 2: bool(mapping.double_l2), 1: bool(mapping.double_l1)}
        self.location = {"A": int(op.loc_a), "B": int(op.loc_b), "C": int(op.loc_c), "bias": DRAM}
        _check_count(3 * self.blocks.passes(), most)  # every pass moves a block of two of its operands
        self.steps = list(self.blocks.steps())
        self._outside = Outside(op, self.blocks, burst)
        table = index_table(self.steps)
        self._stays = {(level, x): Stays(table, level, x) for level in LEVELS for x in "ABC"}
        moved = {level: changes(table[:, : 1 + 3 * (4 - level)]) for level in LEVELS}
        early = {3: np.full(len(self.steps), self.double[3])}  # [step]: moves in before the moves out of the step before
        for level in (2, 1):
            early[level] = self.double[level] & (~moved[level + 1] | early[level + 1])
        self._early = {level: early[level].tobytes() for level in LEVELS}
        carried = sum(len(self._stays[level, x]) for level in LEVELS for x in "ABC" if level < 3 or self.location[x] < L3)
        _check_count(carried + len(self.steps), most)

    def __iter__(self) -> Iterator[Move]:
        """All moves, in program order."""
        self._new: list[Move] = []  # moves of the present step
        self._engines = bytearray()  # of every move so far
        self._ready: dict[tuple[int, str], Needs] = defaultdict(list)  # the block at this level is complete
        self._readers: dict[tuple[int, str], list[Needs]] = defaultdict(lambda: [[], []])  # the place is free again
        self._place: dict[tuple[int, str], int] = defaultdict(int)
        self._last_out: dict[int, Needs] = {level: [] for level in LEVELS}
        self._last_pass: Needs = []
        self._load = {3: self._load_l3, 2: self._load_l2, 1: self._load_l1}
        for s in range(len(self.steps)):
            self._step(s)
            yield from self._new
            self._new.clear()
        self._move_out(len(self.steps) - 1, lambda level: True)
        yield from self._new

    def _step(self, s: int) -> None:
        for level in LEVELS:
            if self._early[level][s]:
                self._move_in(level, s)
        if s:
            self._move_out(s - 1, lambda level: self._stays[level, "C"].changes[s])
        for level in LEVELS:
            if not self._early[level][s]:
                self._move_in(level, s)
        self._pass(s)

    def _parts_of_k(self, level: int, s: int) -> int:
        """Compute tiles along K that take part in the present stay of C at a level."""
        return self._most_active(level, "k", level, "C", s)

    def _most_active(self, level: int, a: str, stay_level: int, x: str, s: int) -> int:
        """The most compute tiles along an axis that work at a level during the present stay of an operand's block."""
        if self.blocks.parts[a] == 1:
            return 1
        return max(self.blocks.active(level, a, self.steps[i]) for i in self._stays[stay_level, x].span(s))

    def _add(self, move: Move, needs: Needs) -> Needs:
        """Append a move; of what it needs only the last per engine counts, since an engine completes in order."""
        number = len(self._engines)
        last: dict[int, tuple[int, Need]] = {}
        for need in needs:
            engine = self._engines[need[0]]
            if engine not in last or need[0] > last[engine][0] or (need[0] == last[engine][0] and need[1] == Need.OPERAND):
                last[engine] = need
        move.needs = sorted(last.values()) if len(last) > 1 else list(last.values())
        self._engines.append(move.engine)
        self._new.append(move)
        return [(number, Need.OPERAND)]

    def _move(self, opcode: Opcode, x: str, level: int, s: int, label: str) -> Move:
        """A move of the operand's block at a level, bytes still to be filled in."""
        step = self.steps[s]
        block = self.blocks.block(level, x, step)
        return Move(opcode, OPERANDS[x], step.batch, block.tile, height=block.height, width=block.width, label=label)

    def _move_bias(self, opcode: Opcode, level: int, s: int, label: str) -> Move:
        """A move of the bias of C's block at a level, one row."""
        move = self._move(opcode, "C", level, s, label)
        move.operand, move.height = Operand.BIAS, 1
        move.tile = tuple(index if i % len(AXES) == AXES.index("n") else -1 for i, index in enumerate(move.tile))
        return move

    # -- moves in ---------------------------------------------------------------------------------

    def _move_in(self, level: int, s: int) -> None:
        for x in "ABC":
            if not self._stays[level, x].changes[s]:
                continue
            if self.double[level]:
                self._place[level, x] ^= 1
            waits = self._readers[level, x][self._place[level, x]]
            self._readers[level, x][self._place[level, x]] = []
            self._ready[level, x] = []
            found = self._load[level](x, s)
            if found is not None:
                move, needs = found
                self._ready[level, x] = self._add(move, needs + waits)
                if level < 3 and x != "C":
                    self._readers[level + 1, x][self._place[level + 1, x]] = _place_of(self._ready[level, x])
            elif x == "C":
                self._readers[level, x][self._place[level, x]] = waits  # the first write still waits for the place

    def _load_l3(self, x: str, s: int) -> tuple[Move, Needs] | None:
        step = self.steps[s]
        opcode = Opcode.DMA_PREFETCH_TILE if s and self._early[3][s] else Opcode.DMA_LOAD_TILE
        if x == "C":
            if not self._stays[3, "C"].first_ever(s):
                if self.location["C"] == L3:
                    return None
                move = self._move(opcode, "C", 3, s, "partial sums return")
                return _sized(move, *self._outside.size("C", step, complete=False)), self._last_out[3]
            if not int(self.op.has_bias):
                return None
            return _sized(self._move_bias(opcode, 3, s, "load bias"), *self._outside.bias(step)), []
        size, padded = self._outside.size(x, step)
        if self.location[x] == L3 or size == 0:
            return None
        needs: Needs = []
        if self.location[x] == HOST and step.l3[IRRELEVANT_AXIS[x]] == 0:
            fresh = size if x == "B" or self.blocks.kind != 1 else self._outside.fresh_input(step)
            needs = self._add(_sized(self._move(Opcode.HOST_LOAD_TILE, x, 3, s, f"fetch {x} from the host"), fresh, fresh), [])
        return _sized(self._move(opcode, x, 3, s, f"load {x}"), size, padded), needs

    def _load_l2(self, x: str, s: int) -> tuple[Move, Needs] | None:
        step, b = self.steps[s], self.blocks
        groups = b.groups(step.batch)
        if x == "C":
            if not self._stays[2, "C"].first_ever(s):
                size = groups * b.block(2, "C", step).elements * b.acc_bytes
                move = self._move(Opcode.BM_MOVE_TILE, "C", 2, s, "partial sums return")
                return _sized(move, size, size), self._ready[3, "C"] + self._last_out[2]
            if not int(self.op.has_bias):
                return None
            size = groups * b.total(2, "n", step) * b.acc_bytes
            move = self._move_bias(Opcode.BM_MOVE_TILE, 2, s, "move bias")
            return _sized(move, size, size, copies=b.active(2, "m", step)), self._ready[3, "C"]
        size = groups * b.block(2, x, step).elements * b.bytes[x]
        if size == 0:
            return None
        opcode = Opcode.BM_MOVE_TILE
        if x == "A" and b.kind != 2:  # the array wants a row of K per PE row, unless C stays in it
            opcode = Opcode.BM_RESHAPE_TILE if b.kind == 1 else (Opcode.BM_TRANSPOSE_TILE if b.dataflow else opcode)
        receivers = self._most_active(2, IRRELEVANT_AXIS[x], 2, x, s)
        return _sized(self._move(opcode, x, 2, s, f"move {x}"), size, size, copies=receivers), self._ready[3, x]

    def _load_l1(self, x: str, s: int) -> tuple[Move, Needs] | None:
        step, b = self.steps[s], self.blocks
        groups = b.groups(step.batch)
        if x == "C":
            size = groups * b.acc_bytes * self._returning(s)
            if size:
                move = self._move(Opcode.STR_FEED_COLS, "C", 1, s, "partial sums return")
                return _sized(move, size, size), self._ready[2, "C"] + self._last_out[1]
            if self._stays[1, "C"].first_ever(s) and int(self.op.has_bias):
                size = groups * self._bias_elements(step) * b.acc_bytes
                return _sized(self._move_bias(Opcode.STR_BROADCAST_COL, 1, s, "feed bias"), size, size), self._ready[2, "C"]
            return None
        receivers = self._most_active(1, IRRELEVANT_AXIS[x], 1, x, s)
        size = groups * b.block(1, x, step).elements * b.bytes[x] * receivers
        opcode = Opcode.STR_FEED_ROWS if x == ON_ROWS[b.dataflow] else Opcode.STR_FEED_COLS
        return (_sized(self._move(opcode, x, 1, s, f"feed {x}"), size, size), self._ready[2, x]) if size else None

    def _bias_elements(self, step: Step) -> int:
        """Elements of bias in L1: every compute tile that begins K has its own."""
        return self.blocks.active(1, "m", step) * self.blocks.total(1, "n", step)

    def _returning(self, s: int) -> int:
        """Elements of C that come back from L2 to L1: partial sums that these tiles had begun before."""
        b, stay = self.blocks, self._stays[1, "C"].span(s)
        took_part = [t for t in range(b.parts["k"]) if any(b.extent(1, "k", self.steps[i], t) for i in stay)]
        return sum(self._begun(s, t) for t in took_part) * b.block(1, "C", self.steps[s]).elements

    def _begun(self, start: int, tile: int) -> bool:
        """Had compute tile `tile` along K a partial sum of this C block when its L1 visit began at `start`?"""
        stays = self._stays[1, "C"]
        if tile == 0:
            return not stays.first_ever(start)
        begun_in_l2 = self._stays[2, "C"].span(start)[0]  # the other tiles start afresh in every stay in L2
        block = stays.block[stays.number[start]]
        steps = (s for s in range(begun_in_l2, start) if stays.block[stays.number[s]] == block)
        return any(self.blocks.extent(1, "k", self.steps[s], tile) for s in steps)

    # -- the pass ---------------------------------------------------------------------------------

    def _pass(self, s: int) -> None:
        step, b = self.steps[s], self.blocks
        groups, acc = b.groups(step.batch), b.acc_bytes
        of_c = b.block(1, "C", step)
        move = Move(Opcode.FABRIC_PASS, Operand.NONE, step.batch, step.indices()[1:], label="compute")
        move.height, move.width = of_c.height, of_c.width
        stationary = "CBA"[b.dataflow]
        for x in "AB":
            size = groups * b.block(1, x, step).elements * b.bytes[x]
            if x != stationary:
                size *= b.active(1, IRRELEVANT_AXIS[x], step)
            else:
                size *= self._most_active(1, IRRELEVANT_AXIS[x], 1, x, s) if self._stays[1, x].changes[s] else 0
            setattr(move, f"pass_{x.lower()}", size)
        elements = groups * of_c.elements
        if stationary == "C":
            if self._stays[1, "C"].changes[s]:
                move.pass_c_in = groups * self._returning(s) * acc
            if self._stays[1, "C"].span(s)[-1] == s:
                move.pass_c_out = elements * self._parts_of_k(1, s) * acc
        else:
            move.pass_c_out = elements * b.active(1, "k", step) * acc
            move.reread = groups * self._accumulating(s) * acc
        if b.kind == 2:
            move.stream = -(-b.extent(1, "m", step, 0) // b.cols)
        else:
            axis = ("k", "m", "n")[b.dataflow]
            move.stream = b.extent(1, axis, step, 0)
            if axis == "k":
                move.stream = -(-move.stream // b.rate)
            move.macs = groups * b.total(1, "m", step) * b.total(1, "n", step) * b.total(1, "k", step)
        needs = self._ready[1, "A"] + self._ready[1, "B"] + self._ready[1, "C"]
        self._last_pass = self._add(move, needs + self._readers[1, "C"][self._place[1, "C"]])
        for x in "AB":
            self._readers[1, x][self._place[1, x]] = _place_of(self._last_pass)

    def _accumulating(self, s: int) -> int:
        """Weight- and input-stationary: elements of C that the leaving stream adds to what L1 already holds."""
        step, b = self.steps[s], self.blocks
        start = self._stays[1, "C"].span(s)[0]
        total = 0
        for t in range(b.parts["k"]):
            if b.extent(1, "k", step, t) > 0:
                worked = any(b.extent(1, "k", self.steps[i], t) > 0 for i in range(start, s))
                total += (worked or self._begun(start, t)) * b.block(1, "C", step).elements
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
        return (self._stays[level, "C"].number[s] + 1) % 2 if self.double[level] else 0

    def _release(self, level: int, s: int, done: Needs) -> None:
        self._readers[level, "C"][self._occupant(level, s)] = _place_of(done)
        self._last_out[level] = done

    def _drain(self, s: int) -> None:
        step, b = self.steps[s], self.blocks
        last = self._stays[1, "C"].last_ever(s)
        complete = last and self._parts_of_k(2, s) == 1
        elements = b.groups(step.batch) * b.block(1, "C", step).elements * self._parts_of_k(1, s)
        out = elements * (b.bytes["C"] if complete else b.acc_bytes)
        move = _sized(self._move(Opcode.STR_DRAIN_OUTPUT, "C", 1, s, "drain C" if complete else "drain partial sums"), out, out)
        move.read = elements * b.acc_bytes
        lanes = -(-b.extent(1, "m", step, 0) * b.extent(1, "n", step, 0) // b.cols)
        move.activation_lanes = lanes if complete else 0
        if last and int(self.op.has_bias):  # the first compute tile along K adds it
            move.bias_read = b.groups(step.batch) * self._bias_elements(step) * b.acc_bytes
            move.bias_lanes = lanes
        self._release(1, s, self._add(move, self._last_pass + self._readers[2, "C"][self._occupant(2, s)]))

    def _write_back(self, s: int) -> None:
        step, b = self.steps[s], self.blocks
        parts = self._parts_of_k(2, s)
        complete = self._stays[2, "C"].last_ever(s)
        elements = b.groups(step.batch) * b.block(2, "C", step).elements
        full, last = elements * b.acc_bytes, elements * (b.bytes["C"] if complete else b.acc_bytes)
        opcode = Opcode.BM_TRANSPOSE_TILE if b.dataflow == 2 and b.kind != 2 else Opcode.BM_WRITEBACK_TILE
        size = last if parts == 1 else full
        move = _sized(self._move(opcode, "C", 2, s, "write C back" if complete else "write partial sums back"), size, size)
        done = self._add(move, self._last_out[1] + self._readers[3, "C"][self._occupant(3, s)])
        for part in range(1, parts):  # each further part of K reads the sum so far, adds, and writes it back
            written = last if part == parts - 1 else full
            move = _sized(self._move(Opcode.BM_ACCUMULATE_TILE, "C", 2, s, f"add part {part + 1} of K"), full + written, full + written)
            move.read, move.reread, move.written = full, full, written
            if complete and part == parts - 1:
                move.activation_lanes = -(-b.extent(2, "m", step, 0) * b.extent(2, "n", step, 0) // b.cols)
            done = self._add(move, done)
        self._release(2, s, done)

    def _store(self, s: int) -> None:
        complete = self._stays[3, "C"].last_ever(s)
        label = "store C" if complete else "spill partial sums"
        move = _sized(self._move(Opcode.DMA_STORE_TILE, "C", 3, s, label), *self._outside.size("C", self.steps[s], complete=complete))
        done = self._add(move, self._last_out[2])
        self._release(3, s, done)
        if complete and self.location["C"] == HOST:
            self._add(_sized(self._move(Opcode.HOST_STORE_TILE, "C", 3, s, "send C to the host"), move.bytes, move.bytes), done)


def expand(op: Any, mapping: Any, *, rows: int, cols: int, macs_per_pe: int, burst: int = 64) -> Schedule:
    """The schedule of `op` (plain) under `mapping` on an array of rows x cols PEs: iterate over it for every move.

    `burst` is the external memory's [byte]. Raises `KPUError` for arguments of the wrong kind or below 1.
    """
    check_op(op)
    check_mapping(mapping)
    given = {"rows": rows, "cols": cols, "macs_per_pe": macs_per_pe, "burst": burst}
    units = {"rows": "PEs", "cols": "PEs", "macs_per_pe": "MAC/cycle", "burst": "byte"}
    return Schedule(op, mapping, **{name: int(check_number(name, v, units[name], low=1, integer=True)) for name, v in given.items()})


def _check_count(at_least: int, most: float) -> None:
    if at_least > most:
        raise KPUError(
            f"this mapping expands to at least {at_least:,} instructions, more than {int(most):,}: "
            "use kpu.simulate, whose exact time and traffic do not expand it, or larger tiles"
        )


def _sized(move: Move, size: float, padded: float, copies: int = 1) -> Move:
    """The move with its bytes: `size` in `padded` bytes of bursts, written to `copies` receivers."""
    move.bytes, move.burst_bytes, move.read, move.written = size, padded, size, size * copies
    return move


def _place_of(done: Needs) -> Needs:
    """The same moves as seen by who wants to overwrite what they read or hold."""
    return [(index, Need.BUFFER) for index, _ in done]
