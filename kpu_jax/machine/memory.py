"""Memories as pure state: bytes in pages that exist once they are written, and the ranges that are taken.

Nothing is changed in place: a write returns the memory after it, which shares all other pages. Reading what was never
written gives zeros. Two 4-bit elements share a byte, the first in the low half.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kpu_jax.base.errors import AddressError, DtypeError, MemoryFullError, ShapeError, check_number, shown
from kpu_jax.hardware.addresses import address_map, region_sizes
from kpu_jax.machine.formats import storage
from kpu_jax.workload.dtypes import NumberFormat

PAGE = 1 << 12  # bytes
LINE = 64  # bytes: allocations begin and end on multiples of it, so that none shares a burst
REGIONS = ("host_memory", "external_memory", "l3_tile", "l2_bank", "l1_buffer", "page_buffer")


@dataclasses.dataclass(frozen=True)
class Memory:
    """One memory of `size` bytes, whose first byte has address `base` in the machine's address map."""

    name: str
    size: int
    base: int = 0
    pages: dict[int, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)  # by number; never changed
    taken: tuple[tuple[int, int], ...] = ()  # (first, end) of each allocation, ascending
    high_water: int = 0  # most bytes taken at once

    @property
    def occupied(self) -> int:
        """Bytes that allocations hold."""
        return sum(end - first for first, end in self.taken)


def memories(config: Any) -> dict[str, Memory]:
    """The memories of a chip by the name of their region, placed by its address map; empty."""
    bases, sizes = address_map(config), region_sizes(config)
    return {name: Memory(name, sizes[f"{name}_base"], bases[f"{name}_base"]) for name in REGIONS}


def locate(chip: dict[str, Memory], address: int, size: int) -> tuple[str, int]:
    """(region, address within it) of `size` bytes at an address of the machine; they must lie in one region."""
    first = _whole("address", address)
    for name, memory in chip.items():
        if memory.base <= first < memory.base + memory.size:
            check_range(memory, first - memory.base, size)
            return name, first - memory.base
    ranges = ", ".join(f"{m.name} {m.base:#x}..{m.base + m.size - 1:#x}" for m in chip.values())
    raise AddressError(f"address = {first:#x} belongs to no memory [byte address]: {ranges}")


def check_range(memory: Memory, address: int, size: int) -> tuple[int, int]:
    """(address, size) as ints, or the `AddressError` that says where they leave the memory."""
    first, length = _whole("address", address), _whole("size", size)
    if first + length > memory.size:
        raise AddressError(
            f"{memory.name}: {length} bytes at address {first:#x} end beyond its {memory.size} bytes; "
            f"at that address {max(memory.size - first, 0)} bytes are left"
        )
    return first, length


def _whole(field: str, value: Any, unit: str = "byte") -> int:
    try:
        return int(check_number(field, value, unit, integer=True, high=2.0**53))
    except ValueError as error:
        raise AddressError(str(error)) from None


def read(memory: Memory, address: int, size: int) -> np.ndarray:
    """`size` bytes [uint8] from `address` on."""
    first, length = check_range(memory, address, size)
    out = np.zeros(length, np.uint8)
    for number, at, within, count in _pieces(first, length):
        if number in memory.pages:
            out[at : at + count] = memory.pages[number][within : within + count]
    return out


def write(memory: Memory, address: int, data: Any) -> Memory:
    """The memory after `data` (uint8, any shape, in row-major order) is written from `address` on."""
    values = np.asarray(data)
    if values.dtype != np.uint8:
        raise DtypeError(f"{memory.name}.write: data must be uint8, got {values.dtype}; use data.view(np.uint8) for its bytes")
    flat = values.ravel()
    first, _ = check_range(memory, address, flat.size)
    return _written(memory, [(first, flat)])


def _written(memory: Memory, runs: Iterable[tuple[int, np.ndarray]]) -> Memory:
    """The memory after runs of bytes are written, each from its address on; each page is copied once."""
    pages, fresh = dict(memory.pages), set()
    for first, data in runs:
        for number, at, within, count in _pieces(first, len(data)):
            if number not in fresh:
                fresh.add(number)
                pages[number] = np.array(pages[number]) if number in pages else np.zeros(PAGE, np.uint8)
            pages[number][within : within + count] = data[at : at + count]
    return dataclasses.replace(memory, pages=pages)


def _pieces(first: int, length: int) -> Any:
    """(page, offset in the data, offset in the page, bytes) of a range, page by page."""
    at = 0
    while at < length:
        number, within = divmod(first + at, PAGE)
        count = min(PAGE - within, length - at)
        yield number, at, within, count
        at += count


def array_bytes(shape: tuple[int, ...], fmt: NumberFormat) -> int:
    """Bytes of an array in a memory; 4-bit elements are packed."""
    return -(-int(np.prod(shape, dtype=np.int64)) * fmt.bits // 8)


def read_array(memory: Memory, address: int, shape: tuple[int, ...], fmt: NumberFormat) -> np.ndarray:
    """An array in row-major order from `address`, which must be a multiple of the element's bytes."""
    _check_aligned(memory, address, fmt)
    shape = _checked_shape(shape)
    data = read(memory, address, array_bytes(shape, fmt))
    if fmt.bits == 4:
        data = np.stack([data & 15, data >> 4], axis=-1).ravel()[: int(np.prod(shape, dtype=np.int64))]
        if not fmt.is_float:
            return ((data.astype(np.int8) ^ 8) - 8).astype(storage(fmt)).reshape(shape)
    return data.view(storage(fmt)).reshape(shape)


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, (tuple, list)):
        raise ShapeError(f"shape must be a tuple of sizes [elements], got {shown(shape)}")
    try:
        return tuple(int(check_number("a size in shape", size, "elements", integer=True, high=2.0**53)) for size in shape)
    except ValueError as error:
        raise ShapeError(str(error)) from None


def write_array(memory: Memory, address: int, array: Any, fmt: NumberFormat) -> Memory:
    """The memory after `array`, whose elements must be of `fmt`, is written from `address` on."""
    _check_aligned(memory, address, fmt)
    values = np.ascontiguousarray(array)
    if values.dtype != storage(fmt):
        raise DtypeError(f"{memory.name}: an array of {values.dtype} is not in {fmt.name}; convert it first")
    data = values.ravel().view(np.uint8)
    if fmt.bits == 4:
        halves = np.append(data & 15, np.zeros(data.size % 2, np.uint8)).reshape(-1, 2)
        data = halves[:, 0] | (halves[:, 1] << 4)
    return write(memory, address, data)


def _check_aligned(memory: Memory, address: int, fmt: NumberFormat) -> None:
    step = max(fmt.bits // 8, 1)
    if _whole("address", address) % step:
        raise AddressError(f"{memory.name}: address {address:#x} is no multiple of the {step} bytes of a {fmt.name}")


def allocate(memory: Memory, size: int) -> tuple[Memory, int]:
    """(memory, address) after the lowest range of whole lines is taken, in no page that was written to before.

    Raises `MemoryFullError` with the bytes that are wanted and the largest range that is free.
    """
    length = _whole("size", size)
    largest, start = 0, 0
    for first, end in [*sorted([*memory.taken, *_untaken(memory)]), (memory.size, memory.size)]:
        largest = max(largest, first - start)
        if length <= first - start:
            taken = tuple(sorted([*memory.taken, (start, min(-(-(start + length) // LINE) * LINE, memory.size))]))
            after = dataclasses.replace(memory, taken=taken)
            return dataclasses.replace(after, high_water=max(memory.high_water, after.occupied)), start
        start = max(start, end)
    raise MemoryFullError(
        f"{memory.name} is full: {length} bytes wanted, the largest free range of its {memory.size} bytes has {largest}; "
        "free some, or give the chip more memory"
    )


def _untaken(memory: Memory) -> list[tuple[int, int]]:
    """Runs of pages that exist and hold no allocation."""
    held = {p for first, end in memory.taken for p in range(first // PAGE, -(-end // PAGE))}
    numbers = sorted(memory.pages.keys() - held)
    starts = [p for i, p in enumerate(numbers) if not i or p - numbers[i - 1] > 1]
    ends = [p + 1 for i, p in enumerate(numbers) if i + 1 == len(numbers) or numbers[i + 1] - p > 1]
    return [(start * PAGE, end * PAGE) for start, end in zip(starts, ends, strict=True)]


def free(memory: Memory, address: int) -> Memory:
    """The memory after the allocation that starts at `address` is given back, and its bytes are forgotten."""
    match = [(first, end) for first, end in memory.taken if first == address]
    if not match:
        starts = ", ".join(f"{first:#x}" for first, _ in memory.taken) or "none"
        raise AddressError(f"{memory.name}: no allocation starts at {shown(address)}; allocations: {starts}")
    first, end = match[0]
    taken = tuple(pair for pair in memory.taken if pair != match[0])
    pages = dict(memory.pages)
    for p in range(first // PAGE, -(-end // PAGE)):
        page = pages.pop(p, None)
        if page is not None and any(low < (p + 1) * PAGE and p * PAGE < high for low, high in taken):
            pages[p] = np.array(page)  # another allocation has its bytes there
            pages[p][max(first - p * PAGE, 0) : end - p * PAGE] = 0
    return dataclasses.replace(memory, taken=taken, pages=pages)


def transfer(
    source: Memory,
    source_address: int,
    target: Memory,
    target_address: int,
    width: int,
    *,
    rows: int = 1,
    source_stride: int | None = None,
    target_stride: int | None = None,
) -> Memory:
    """The target memory after a DMA transfer of `rows` runs of `width` bytes, `stride` bytes apart at each end.

    A stride defaults to the width (contiguous). Source and target may be one memory, if the ranges do not overlap.
    Raises `AddressError` for ranges that leave a memory or overlap, and rows closer together than they are long.
    """
    wide, high = _whole("width", width), _whole("rows", rows, "runs")
    spans = []
    ends = ("source", source, source_address, source_stride), ("target", target, target_address, target_stride)
    for name, memory, address, given in ends:
        stride = wide if given is None else _whole(f"{name}_stride", given)
        if stride < wide and high > 1:
            raise AddressError(f"{name}_stride must be at least the width of {wide} bytes, got {stride}")
        first, length = check_range(memory, address, (high - 1) * stride + wide if high else 0)
        spans.append((first, first + length, stride))
    (start, end, step), (begin, stop, pitch) = spans
    if source is target and start < stop and begin < end:
        raise AddressError(f"{source.name}: source {start:#x}..{end - 1:#x} and target {begin:#x}..{stop - 1:#x} overlap")
    if step == pitch == wide:
        return _written(target, [(begin, read(source, start, end - start))])

    def images() -> Iterator[tuple[int, np.ndarray]]:
        """The target's ranges of some runs and what lies between them, no page of which is without a run."""
        at_once = max(PAGE // max(step, pitch), 1)
        for row in range(0, high, at_once):
            count = min(at_once, high - row)
            image = read(target, begin + row * pitch, (count - 1) * pitch + wide)
            runs = read(source, start + row * step, (count - 1) * step + wide)
            strided = np.lib.stride_tricks.as_strided
            strided(image, (count, wide), (pitch, 1))[:] = strided(runs, (count, wide), (step, 1))
            yield begin + row * pitch, image

    return _written(target, images() if wide else ())
