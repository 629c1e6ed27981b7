"""What a program's instructions find in the memories: is it there, is it waited for, and is there room?

Follows the blocks through the memories in program order. Every operand has one or two places per memory (by the mapping's
buffering), which its visits take in turn; a visit lasts as long as the fabric's passes use one block. A move inwards is for
the pass that follows it, a move of C outwards for the pass before it. An instruction knows that another is complete if it
waits for it, or for one that knows, or if an earlier instruction of its queue does.

The bias of a block of C comes with the block's first visit, into the block's place, and waits until that is free. From then on
it counts as there until the block is complete, also while other blocks have the place. Where C lies in L3 throughout, its
bias does too: there is no place in L3 that it would wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from kpu_jax.program.blocks import AXES, OPERAND_AXES, Blocks, Step
from kpu_jax.program.isa import INSTRUCTIONS, Engine, Need, Opcode, Operand, route
from kpu_jax.program.outside import Outside
from kpu_jax.program.program import NO_BLOCK, Program
from kpu_jax.program.stays import changes

DEPTH = {"host": 1, "dram": 1, "l3": 1, "l2": 2, "l1": 3}  # levels of indices that name a block there
INWARDS = ("host", "dram", "l3", "l2", "l1")
HOST, L3 = 0, 2  # locations of operands
Key = tuple[int, ...]


class Block:
    """A block in a memory: for which visit, who wrote and who reads it, and how large it is."""

    def __init__(self, visit: int, name: Key) -> None:
        self.visit, self.name = visit, name
        self.writers: dict[int, int] = {}  # lane -> last instruction
        self.readers: dict[int, int] = {}
        self.pieces: dict[Key, float] = {}  # [byte]
        self.left = -1  # passes before C last left from here


class Capacity(NamedTuple):
    """Bytes that blocks may occupy."""

    l3: float  # in all
    l2: float  # of one compute tile


class Residency:
    """Walks through a program; `trouble` is called with an instruction and what is wrong with it, and raises."""

    def __init__(self, program: Program, capacity: Capacity, trouble: Callable[[int, str], None]) -> None:
        self.program, self.capacity, self.trouble = program, capacity, trouble
        self.op, mapping = program.op, program.mapping
        chip = {name: int(getattr(program, name)) for name in ("rows", "cols", "macs_per_pe")}
        self.blocks = Blocks(self.op, mapping, **chip)
        self.outside = Outside(self.op, self.blocks, int(program.burst))
        doubles = {"l3": mapping.double_l3, "l2": mapping.double_l2, "l1": mapping.double_l1}
        self.places = {memory: 1 + int(double) for memory, double in doubles.items()}
        self.location = {Operand.A: int(self.op.loc_a), Operand.B: int(self.op.loc_b), Operand.C: int(self.op.loc_c)}
        self.held: dict[tuple[str, Operand, Any], Block] = {}  # by memory, operand and place
        passes = program.opcode == Opcode.FABRIC_PASS
        self.steps = np.column_stack([program.batch[passes], program.tile[passes].reshape(-1, 9)])  # [pass, 10] indices
        self.visits = self._visits()
        self.passed = 0  # passes so far
        queue = np.unique(program.queue, return_inverse=True)[1]
        self.lane = np.unique(queue * len(Engine) + program.engine, return_inverse=True)[1].tolist()

    def check(self) -> None:
        """Raise for the first instruction that reads what is not there, or writes where there is no room."""
        for i, known, row in self._rows():
            opcode, operand = Opcode(row["opcode"]), Operand(row["operand"])
            if INSTRUCTIONS[opcode].engine == Engine.CONTROL:
                continue
            self.known = known
            key = row["batch"], *(index for level in row["tile"] for index in level)
            if opcode == Opcode.FABRIC_PASS:
                self._check_size(i, Operand.C, 1, key, row)
                self._pass(i, key)
                self.passed += 1
            else:
                self._move(i, opcode, operand, key, row)

    def _visits(self) -> dict[tuple[str, Operand], list[int]]:
        """[pass] which visit to a memory it belongs to, from 1, by operand."""
        visits = {}
        for memory in ("l3", "l2", "l1"):
            for x in (Operand.A, Operand.B, Operand.C):
                depth = len(AXES) * DEPTH[memory]
                own = [0] + [1 + i for i in range(depth) if AXES[i % len(AXES)] in OPERAND_AXES[x.name]]
                visits[memory, x] = np.cumsum(changes(self.steps[:, own])).tolist() if len(self.steps) else []
        return visits

    def _rows(self) -> Iterator[tuple[int, list[int], dict[str, Any]]]:
        """(number, [lane] the last instruction that is known to be complete, columns) of every instruction."""
        p = self.program
        names = ("opcode", "operand", "batch", "tile", "bytes", "height", "width", "bias_read")
        columns = zip(*(getattr(p, name).tolist() for name in names), strict=True)
        none = [-1] * (max(self.lane, default=0) + 1)
        before: dict[int, list[int]] = {}
        known: list[list[int]] = []
        waits = zip(p.queue.tolist(), p.needs.tolist(), p.need_kind.tolist(), strict=True)
        for i, (row, (queue, needs, kinds)) in enumerate(zip(columns, waits, strict=True)):
            knows = before.get(queue, none)
            for need, kind in zip(needs, kinds, strict=True):
                if need >= 0:
                    knows = list(map(max, knows, known[need]))
                    if kind != Need.START:
                        knows[self.lane[need]] = max(knows[self.lane[need]], need)
            before[queue] = knows
            known.append(knows)
            yield i, knows, dict(zip(names, row, strict=True))

    def _move(self, i: int, opcode: Opcode, operand: Operand, key: Key, row: dict[str, Any]) -> None:
        source, target = route(opcode, operand)
        self._check_size(i, operand, 4 - max(DEPTH[source], DEPTH[target]), key, row)
        inwards = INWARDS.index(source) < INWARDS.index(target)
        if operand == Operand.BIAS:
            self._read_bias(i, source, key, inwards)
            self._write_bias(i, target, key)
            return
        left = self._read(i, source, operand, key, inwards)
        if left is not None and not inwards:
            left.left = self.passed
        if opcode == Opcode.BM_ACCUMULATE_TILE:
            self._read(i, target, operand, key, inwards)
        if row["bias_read"] > 0:
            self._read_bias(i, "l1", key, inwards)
        size = row["bytes"]
        if target == "l2":  # of the first compute tile
            size = row["height"] * row["width"] * self.blocks.bytes.get(operand.name, self.blocks.acc_bytes)
        self._write(i, target, operand, key, size, inwards)

    def _check_size(self, i: int, x: Operand, level: int, key: Key, row: dict[str, Any]) -> None:
        """Is the block as high and wide as the mapping's block with these indices?"""
        levels = [dict(zip(AXES, key[first : first + 3], strict=True)) for first in (1, 4, 7)]
        step = Step(key[0], *levels)
        axes = ("n",) if x == Operand.BIAS else OPERAND_AXES[x.name]
        if any(levels[depth][a] < 0 for depth in range(4 - level) for a in axes):
            self.trouble(i, f"names no block of {x.name} of {'L1 L2 L3'.split()[level - 1]}: it lacks indices")
        if x == Operand.BIAS:
            size = 1, self.blocks.extent(level, "n", step, 0) if level < 3 else self.blocks.l3_size("n", step.l3["n"])
        else:
            size = self.blocks.block(level, x.name, step)[1:3]
        if size != (row["height"], row["width"]):
            self.trouble(i, f"moves {row['height']} x {row['width']} elements, where the mapping has a block of {size[0]} x {size[1]}")

    def _pass(self, i: int, key: Key) -> None:
        for x in (Operand.A, Operand.B):
            if self.blocks.bytes[x.name]:
                self._read(i, "l1", x, key, True)
        if self.op.has_bias:
            self._read_bias(i, "l1", key, True)
        self._write(i, "l1", Operand.C, key, 0, True)
        place, _ = self._place(i, "l1", Operand.C, (), True)
        for lane, writer in self.held["l1", Operand.C, place].writers.items():
            if self.known[lane] < writer and lane != self.lane[i]:  # passes follow each other through the array
                self.trouble(i, f"adds to C without waiting for instruction {writer}, which brings its partial sums")

    def _name(self, memory: str, x: Operand, key: Key) -> Key:
        """The block of an operand in a memory that an instruction with these indices touches."""
        axes = ("n",) if x == Operand.BIAS else OPERAND_AXES[x.name]
        depth = len(AXES) * DEPTH[memory]
        return key[0], *(index if AXES[i % len(AXES)] in axes else NO_BLOCK for i, index in enumerate(key[1 : 1 + depth]))

    def _always_there(self, memory: str, x: Operand, key: Key) -> bool:
        """Data of the operation's own, and padding."""
        if memory == "l3" and self.location[x] == L3:
            return True
        if memory in ("host", "dram") and x != Operand.C:
            return memory == "host" or self.location[x] != HOST
        if memory == "l3" and x == Operand.A and self.blocks.kind == 1:  # windows that lie outside the input altogether
            step = Step(key[0], dict(zip(AXES, key[1:4], strict=True)), {}, {})
            return self.outside.size("A", step)[0] == 0
        return False

    def _place(self, i: int, memory: str, x: Operand, name: Key, inwards: bool) -> tuple[Any, int]:
        """(place, visit) of the block that instruction i touches in a memory; blocks that stay have a place each."""
        if memory not in self.places or (memory == "l3" and self.location[x] == L3):
            return name, 0
        visit = self.visits[memory, x][self._step(i, x, name, inwards)]
        return visit % self.places[memory], visit

    def _step(self, i: int, x: Operand, name: Key, inwards: bool) -> int:
        """The pass that an instruction moves its block for."""
        step = self.passed - (not inwards)
        if not 0 <= step < len(self.steps):
            self.trouble(i, f"moves {self._words(x, name)}, and no pass {'follows' if inwards else 'came before'}")
        return step

    def _biased(self, i: int, memory: str, key: Key, inwards: bool) -> Key:
        """The block of C whose bias instruction i touches in a memory."""
        name = self._name(memory, Operand.BIAS, key)
        of_pass = tuple(self.steps[self._step(i, Operand.BIAS, name, inwards)].tolist())
        if name != (used := self._name(memory, Operand.BIAS, of_pass)):
            self.trouble(i, f"moves {self._words(Operand.BIAS, name)}, where the passes use {self._words(Operand.BIAS, used)}")
        return self._name(memory, Operand.C, of_pass)

    def _read(self, i: int, memory: str, x: Operand, key: Key, inwards: bool) -> Block | None:
        """The block, or None if it is the operation's own data."""
        name = self._name(memory, x, key)
        place, visit = self._place(i, memory, x, name, inwards)
        block = self.held.get((memory, x, place))
        if block is None or block.visit != visit or block.name != name or not block.writers:
            if not self._always_there(memory, x, key):
                self.trouble(i, f"reads {self._words(x, name)} in {memory} before it is there")
            return None
        self._await_writers(i, memory, x, block)
        block.readers[self.lane[i]] = i
        return block

    def _await_writers(self, i: int, memory: str, x: Operand, block: Block) -> None:
        for lane, writer in block.writers.items():
            if self.known[lane] < writer:
                what = f"reads {self._words(x, block.name)} in {memory} without waiting for instruction {writer}, which writes it"
                self.trouble(i, what)

    def _read_bias(self, i: int, memory: str, key: Key, inwards: bool) -> None:
        if memory == "dram":
            return
        name = self._biased(i, memory, key, inwards)
        block = self.held.get((memory, Operand.BIAS, name))
        if block is None:
            self.trouble(i, f"reads {self._words(Operand.BIAS, self._name(memory, Operand.BIAS, key))} in {memory} before it is there")
            return
        self._await_writers(i, memory, Operand.BIAS, block)
        place, visit = self._place(i, memory, Operand.C, name, inwards)
        if (of_c := self.held.get((memory, Operand.C, place))) is not None and of_c.visit == visit:
            of_c.readers[self.lane[i]] = i

    def _write_bias(self, i: int, memory: str, key: Key) -> None:
        name = self._biased(i, memory, key, inwards=True)
        place, visit = self._place(i, memory, Operand.C, name, inwards=True)
        self._occupy(i, memory, Operand.C, place, visit, name).readers[self.lane[i]] = i  # whoever comes next waits for it
        block = self.held[memory, Operand.BIAS, name] = Block(visit, self._name(memory, Operand.BIAS, key))
        block.writers[self.lane[i]] = i

    def _write(self, i: int, memory: str, x: Operand, key: Key, size: float, inwards: bool) -> None:
        name = self._name(memory, x, key)
        place, visit = self._place(i, memory, x, name, inwards)
        block = self._occupy(i, memory, x, place, visit, name)
        gone = block.left == self.passed or (memory == "dram" and block.left >= 0)  # to the host it goes once
        if not inwards and gone:
            self.trouble(i, f"writes {self._words(x, name)} to {memory} after it left from there, with older sums")
        block.writers[self.lane[i]] = i
        block.pieces[key] = size
        if isinstance(place, int):
            self._check_room(i, memory)

    def _occupy(self, i: int, memory: str, x: Operand, place: Any, visit: int, name: Key) -> Block:
        """The block in a place from this visit on; whoever used the place before must be done."""
        block = self.held.get((memory, x, place))
        if block is not None and block.visit != visit:
            for lane, user in (*block.readers.items(), *block.writers.items()):
                if self.known[lane] < user:
                    what = f"overwrites {self._words(x, block.name)} without waiting for instruction {user}, which uses it"
                    self.trouble(i, f"overflows {memory}: it {what}; {self.places[memory]} place(s) for {x.name}")
        if block is None or block.visit != visit:
            block = self.held[memory, x, place] = Block(visit, name)
        if block.name != name:
            self.trouble(i, f"moves {self._words(x, name)}, where the passes use {self._words(x, block.name)}")
        return block

    def _check_room(self, i: int, memory: str) -> None:
        if memory not in ("l3", "l2"):
            return
        most = getattr(self.capacity, memory)
        places = [(memory, x, place) for x in (Operand.A, Operand.B, Operand.C) for place in range(2)]
        occupied = sum(sum(self.held[place].pieces.values()) for place in places if place in self.held)
        if occupied > most:
            of = "" if memory == "l3" else " of a compute tile"
            self.trouble(i, f"overflows {memory}{of}: its blocks take {occupied:,.0f} [byte], it holds {most:,.0f}")

    def _words(self, x: Operand, name: Key) -> str:
        levels = [name[1 + len(AXES) * d : 1 + len(AXES) * (d + 1)] for d in range(len(name) // len(AXES))]
        indices = (".".join(str(level[a]) for level in levels) for a in range(len(AXES)))
        return f"{x.name} " + " ".join(f"t{'ijk'[a]}={text}" for a, text in enumerate(indices) if not text.startswith("-"))
